"""Laws of heads that run in parts: losses and gradients are those of whole logits, which are never made."""

from __future__ import annotations

import pytest
import torch

from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.features.capture import visit_gradients
from headwater.features.parameters import select_parameters
from headwater.features.perturbed import Movable
from headwater.models import heads
from headwater.models.heads import head_in_parts, window_losses
from headwater.models.load import wrap_model
from headwater.sketch.products import dense
from oracles.gradient_oracles import everything_in_double, random_rows
from zoo import VOCAB, tiny_tokenizer, zoo

WHOLE = Window(64)
POSITIONS = 3
"""So many positions of a batch of three rows are read at a time."""


def batch_of(*lengths: int, window: Window = WHOLE) -> TokenBatch:
    (batch,) = plan_batches(random_rows(lengths), window, tokens_per_batch=100_000)
    return batch


def in_parts(monkeypatch: pytest.MonkeyPatch, batch: TokenBatch, itemsize: int = 8) -> None:
    limit = POSITIONS * len(batch.input_ids) * VOCAB * itemsize
    monkeypatch.setattr(heads, "LOGITS_BYTES", {"cpu": limit, "cuda": limit})


def read(model, batch: TokenBatch, globs: str = "") -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    selection = select_parameters(model, globs)
    losses = visit_gradients(model, selection, batch, lambda gradient: found.update({gradient.name: dense(gradient)}))
    return found, losses


def prepared(name: str):
    model = zoo()[name](seed=0).double().eval().requires_grad_(False)
    model.config._experts_implementation = "eager"
    return model


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gemma2", "cohere", "granite", "phi", "llama-lora"])
def test_gradients_and_losses_are_those_of_whole_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = prepared(name), batch_of(60, 9, 31)  # more positions than the head has inputs
    with everything_in_double():
        whole, losses = read(model, batch)
        table = window_losses(model, batch)
        in_parts(monkeypatch, batch)
        assert head_in_parts(model, batch.response) is not None
        seen: list[int] = []
        handle = model.get_output_embeddings().register_forward_hook(lambda _, given, out: seen.append(out.shape[1]))
        parts, again = read(model, batch)
        handle.remove()
        torch.testing.assert_close(window_losses(model, batch), table, rtol=1e-12, atol=0)
    assert max(seen[-10:]) <= POSITIONS
    assert set(whole) == set(parts)
    for tensor, gradient in whole.items():
        torch.testing.assert_close(parts[tensor], gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(again, losses, rtol=1e-12, atol=0, equal_nan=True)


def test_windows_and_factors_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = prepared("llama"), batch_of(41, 12, window=Window(16, 4))
    blocks: list[int] = []
    with everything_in_double():
        whole, _ = read(model, batch)
        in_parts(monkeypatch, batch)
        torch.testing.assert_close(read(model, batch)[0], whole, rtol=1e-9, atol=1e-12)
        selection = select_parameters(model, "lm_head.weight")
        tall = batch_of(60, 9)
        for head in ("summed", "tokens"):
            visit_gradients(model, selection, tall, lambda g: blocks.append(g.blocks[0].right.shape[1]), head=head)
    assert blocks == [model.config.hidden_size, 57]


def test_losses_of_moved_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, batch = wrap_model(prepared("llama-tied"), tiny_tokenizer()), batch_of(20, 9)
    movable = Movable.select(loaded)
    with everything_in_double():
        moved = movable.moved(movable.direction([batch]), 0.1)
        plain, whole = movable.losses(batch), movable.losses(batch, moved)
        in_parts(monkeypatch, batch)
        torch.testing.assert_close(movable.losses(batch, moved), whole, rtol=1e-12, atol=0)
        torch.testing.assert_close(movable.losses(batch), plain, rtol=1e-12, atol=0)
    assert float((whole - plain).abs().min()) > 1e-4


def test_logits_of_another_kind_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = prepared("llama"), batch_of(20, 9)
    model.lm_head.register_forward_hook(lambda _, given, output: torch.nn.functional.softplus(output))
    plain = model.forward

    def squared(**given):  # what becomes of the head's output is neither a factor nor a soft-cap
        out = plain(**given)
        out.logits = out.logits + 0.1 * out.logits.square()
        return out

    model.forward = squared
    whole = window_losses(model, batch)
    in_parts(monkeypatch, batch)
    assert head_in_parts(model, batch.response) is None
    torch.testing.assert_close(window_losses(model, batch), whole)
