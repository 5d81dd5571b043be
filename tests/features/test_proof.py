"""What is read of a module is autograd's, whatever its class says; what cannot be read is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from headwater.core.errors import ModelError
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.features.capture import visit_gradients
from headwater.features.parameters import select_linear, select_parameters
from headwater.sketch.blocks import Gradient
from headwater.sketch.products import dense
from oracles.gradient_oracles import expected, random_rows, row_gradients
from zoo import zoo

WIDTH, VOCAB = 8, 30


class Toy(nn.Module):
    """Embedding, one block under test, head; as much of a causal language model as gradients need."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.block = block
        self.head = nn.Linear(WIDTH, VOCAB)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        return type("Output", (), {"logits": self.head(torch.tanh(self.block(self.embed(input_ids))))})()


class Doubled(nn.Linear):
    """Linear by its class, and something else by its code, as routers are."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).tanh() * 2


class Scores(nn.Linear):
    """A router: a subclass of Linear that flattens tokens, gives several outputs, and keeps the best of them."""

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        logits = super().forward(input)
        top, place = logits.topk(3, dim=-1)
        return torch.full_like(logits, -torch.inf).scatter_(1, place, top).sigmoid(), logits


class Routed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router = Scores(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.router(x.flatten(0, 1))[0].view_as(x)


class Positions(nn.Embedding):
    """Learned positions behind an offset, which are looked up by a mask."""

    def forward(self, mask: Tensor, past: int = 0) -> Tensor:
        return super().forward((mask.cumsum(1) * mask).long() - 1 + past + 2) * 3.0


class Placed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positions = Positions(60, WIDTH, padding_idx=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.positions(torch.ones(x.shape[:2], dtype=torch.int64))


class GatedNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH // 2))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        normed = self.weight * x * x.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
        return normed if gate is None else normed * torch.nn.functional.silu(gate)


class NeedsGate(GatedNorm):
    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return super().forward(x, gate)


class Gated(nn.Module):
    """A norm over heads, with examples, tokens and heads on one axis, whose second input is a gate."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.mix = nn.Linear(WIDTH, 2 * WIDTH)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        inner, gate = self.mix(x).chunk(2, -1)
        return self.norm(inner.reshape(-1, WIDTH // 2), gate=gate.reshape(-1, WIDTH // 2)).view_as(x)


class Mixer(nn.Module):
    """A state-space mixer in small: its own decay, and a convolution whose weight is used without running it."""

    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.rand(WIDTH))
        self.conv1d = nn.Conv1d(WIDTH, WIDTH, 3, groups=WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        mixed = torch.nn.functional.conv1d(
            torch.nn.functional.pad(x.mT, (2, 0)), self.conv1d.weight, self.conv1d.bias, groups=WIDTH
        ).mT
        state, out = torch.zeros_like(x[:, 0]), []
        for step in mixed.unbind(1):
            state = state * self.decay.sigmoid() + step
            out.append(state)
        return torch.stack(out, 1)


class TwoUses(nn.Module):
    """A layer that runs, and whose weight is used once more without it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).tanh() @ self.layer.weight


class SequenceFirst(nn.Module):
    """Tokens on the first axis and examples on the second."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(x.transpose(0, 1), torch.arange(float(x.shape[1]))).transpose(0, 1)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        return torch.einsum("tbi,io,t->tbo", x, self.weight, places.cos())


class TokensFirst(nn.Module):
    """All tokens on one axis, those of one example apart from one another."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        turned = x.transpose(0, 1)
        return self.layer(turned.flatten(0, 1)).view_as(turned).transpose(0, 1)


class InPlace(nn.Module):
    """Changes what it is given, which the embedding made."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mul_(2.0))


class OutputInPlace(nn.Module):
    """Changes a layer's output, which is a view: PyTorch then does not run hooks on it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        out += x
        return out


class Centred(nn.Module):
    """Takes away the mean over the tokens of a batch, so that no example has a gradient of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.layer(x).mean((0, 1))


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "linear with another forward": lambda: Doubled(WIDTH, WIDTH),
    "router": Routed,
    "learned positions": Placed,
    "norm that may have a gate": lambda: Gated(GatedNorm()),
    "norm that must have a gate": lambda: Gated(NeedsGate()),
    "mixer": Mixer,
    "weight used twice": TwoUses,
    "sequence first": SequenceFirst,
    "tokens first": TokensFirst,
    "in place": InPlace,
    "output in place": OutputInPlace,
}


def toy(block: nn.Module) -> nn.Module:
    return Toy(block).double().eval().requires_grad_(False)


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return toy(BLOCKS[name]())


def one_batch(lengths: tuple[int, ...]) -> TokenBatch:
    rows = random_rows(lengths, vocab=VOCAB, prompt=2)
    (batch,) = plan_batches(rows, Window(64), tokens_per_batch=100_000)
    return batch


def assert_autograds(model: Any, batch: TokenBatch, selection: Any, rtol: float) -> None:
    found: dict[str, Tensor] = {}

    def visit(gradient: Gradient) -> None:
        found[gradient.name] = dense(gradient)

    visit_gradients(model, selection, batch, visit)
    for i, row in enumerate(batch.rows):
        oracle = row_gradients(model, row)
        largest = max(float(value.norm()) for value in oracle.values())
        for name in selection.shapes:
            truth = expected(oracle, name)
            mine = found[name][i].reshape(truth.shape) if name in found else torch.zeros_like(truth)
            assert (mine - truth).norm() <= rtol * truth.norm() + 1e-9 * largest, name


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("lengths", [(9, 6, 12), (7,), (5, 5, 5, 5, 5)], ids=str)
def test_every_parameter_is_read_as_autograd_has_it(name: str, lengths: tuple[int, ...]) -> None:
    model = made(name)
    selection = select_parameters(model)
    assert selection.coverage.note == ""
    assert selection.coverage.seen == selection.coverage.total
    assert_autograds(model, one_batch(lengths), selection, 1e-7)


def test_what_no_way_reads_is_named_with_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.features.replay.MOST", 20)
    model = made("tokens first")
    selection = select_parameters(model)
    assert "block.layer.bias" in selection.shapes
    assert "block.layer.weight" not in selection.shapes
    assert re.search(r"NOT seen: 64 in 1 tensors, \d+ % .* gradient .*\(block.layer.weight\)", str(selection.coverage))
    assert selection.coverage.seen == selection.coverage.total - 64
    assert_autograds(model, one_batch((9, 6)), selection, 1e-7)
    with pytest.raises(ModelError, match="no gradient can be read"):
        select_parameters(model, "block.layer.weight")


def test_a_model_that_mixes_examples_is_refused() -> None:
    with pytest.raises(ModelError, match=r"a row's logits change by .* the rows beside it"):
        select_parameters(toy(Centred()))


def test_linear_layers_are_those_that_are_linear() -> None:
    assert set(select_linear(made("norm that must have a gate")).shapes) == {"block.mix.weight"}
    with pytest.raises(ModelError, match="no linear layer"):
        select_linear(made("router"))


def test_a_parameter_that_two_modules_hold_and_one_uses_counts_once() -> None:
    model = made("mixer")
    holder = nn.Module()
    holder.bias = model.head.bias
    model.head, head = nn.Sequential(holder, model.head), model.head
    holder.forward = lambda x: x
    model.get_output_embeddings = lambda: head
    selection = select_parameters(model)
    assert selection.coverage.note == ""
    assert_autograds(model, one_batch((9, 6)), selection, 1e-7)


def test_a_model_that_fails_says_so_in_a_line() -> None:
    model = made("mixer")
    model.block.decay.data = torch.ones(3)
    with pytest.raises(ModelError, match="the model cannot run a small batch: The size of tensor"):
        select_parameters(model)


def test_the_proof_leaves_no_trace() -> None:
    model = zoo()["llama"]().train()
    model.model.layers[0].mlp.eval()
    held = next(model.parameters())
    held.requires_grad_(False)
    held.grad = torch.ones_like(held)
    modes = [module.training for module in model.modules()]
    select_parameters(model)
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 20
    assert bool((held.grad == 1).all())
    assert all(p.grad is None for p in list(model.parameters())[1:])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "olmoe"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_still_proved(name: str, dtype: torch.dtype) -> None:
    assert select_parameters(zoo()[name]().to(dtype).requires_grad_(False)).coverage.note == ""


def test_an_adapter_in_float32_on_a_narrower_model_is_read_at_its_modules() -> None:
    """Its gradients carry the model's rounding: to hold them to float32 would read every row by a pass of its own."""
    model = get_peft_model(zoo()["llama"]().bfloat16(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            assert parameter.dtype == torch.float32
            nn.init.normal_(parameter, std=0.1)
    selection = select_parameters(model)
    assert len(selection.shapes) == 8
    assert not selection.apart
    assert {type(site.kind).__name__ for site in selection.sites} == {"Linear"}


class Beside(nn.Module):
    """A linear layer, and beside it, with a small weight, one that is not what its class says."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.plain, self.odd, self.weight = nn.Linear(WIDTH, WIDTH), Doubled(WIDTH, WIDTH), weight

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x) + self.weight * self.odd(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight", [1.0, 0.03, 0.003])
def test_a_small_gradient_proves_nothing_of_a_guess(weight: float, dtype: torch.dtype) -> None:
    """Below the rounding of a half-precision model a wrong reading would pass; the module's own code is run instead."""
    torch.manual_seed(0)
    selection = select_parameters(toy(Beside(weight)).to(dtype).requires_grad_(False))
    ways = {site.where: type(site.kind).__name__ for site in selection.sites}
    assert (ways["block.odd"], ways["block.plain"]) == ("Replay", "Linear")


class Scaled(nn.Module):
    """A learned number without an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inner = nn.Parameter(torch.tensor(0.7)), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.inner(x)


def test_a_number_without_an_axis_is_read() -> None:
    torch.manual_seed(0)
    model = toy(Scaled()).double().requires_grad_(False)
    selection = select_parameters(model)
    assert selection.coverage.note == ""
    assert_autograds(model, one_batch((9, 6, 12)), selection, 1e-6)
