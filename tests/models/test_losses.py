"""The loss, and its gradient written down: against the model's own loss and against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from headwater.models import losses as module
from headwater.models.losses import all_logits, losses_and_gradient, may_overwrite, target_logits, token_losses
from zoo import VOCAB, zoo


def test_token_losses_are_the_models_own_loss() -> None:
    model = zoo()["gemma2"]()
    ids = torch.randint(1, VOCAB, (1, 20), generator=torch.Generator().manual_seed(0))
    output = model(input_ids=ids, labels=ids)
    losses = token_losses(output.logits[0, :-1], ids[0, 1:])
    assert losses.shape == (19,)
    torch.testing.assert_close(losses.mean(), output.loss)
    by_hand = -torch.log_softmax(output.logits[0, :-1].double(), -1)[torch.arange(19), ids[0, 1:]]
    torch.testing.assert_close(losses.double(), by_hand, rtol=1e-5, atol=1e-6)


def test_token_losses_of_halves_are_float32() -> None:
    logits = torch.randn(4, 9, dtype=torch.bfloat16)
    assert token_losses(logits, torch.arange(4)).dtype == torch.float32
    assert token_losses(logits.double(), torch.arange(4)).dtype == torch.float64


@pytest.mark.parametrize("name", sorted(zoo()))
@torch.no_grad()
def test_target_logits_are_the_models_at_their_places(name: str) -> None:
    """In every architecture, and its head sees those places alone."""
    model = zoo()[name]()
    ids = torch.randint(1, VOCAB, (3, 12), generator=torch.Generator().manual_seed(0))
    response = torch.zeros(3, 12, dtype=torch.bool)
    response[0, 7:11] = response[1, 2] = True
    response[2, [0, 5, 11]] = True
    seen = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    logits, place = target_logits(model, ids, response)
    handle.remove()
    assert seen == [4]
    assert place.shape == (3, 4)
    assert all(len(set(places)) == 4 for places in place.tolist())
    assert response.gather(1, place).sum() == response.sum()
    whole = all_logits(model, ids)
    torch.testing.assert_close(
        logits, whole.gather(1, place[..., None].expand(-1, -1, whole.shape[2])), rtol=1e-4, atol=1e-5
    )
    response[1] = True  # a window cut from a longer row: every token predicts the next
    logits, place = target_logits(model, ids, response)
    torch.testing.assert_close(logits, whole)
    assert torch.equal(place, torch.arange(12).expand(3, 12))
    assert not head._forward_pre_hooks


@torch.no_grad()
def test_target_logits_of_a_model_whose_head_cannot_be_found() -> None:
    model = zoo()["llama"]()
    ids = torch.randint(1, VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
    response = torch.arange(9).expand(2, 9) > 5
    expected, _ = target_logits(model, ids, response)

    class Plain(nn.Module):
        def forward(self, **inputs: object) -> object:
            return model(**inputs)

    torch.testing.assert_close(target_logits(Plain(), ids, response)[0], expected)


@pytest.mark.parametrize("slice_bytes", [1, 1500, 2**20])
def test_the_gradient_written_down_is_the_one_derived(slice_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.SLICE_BYTES, "cpu", slice_bytes)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(17, 41, generator=generator, dtype=torch.float64) * 5
    logits[3] *= 200  # neither overflow nor a loss that rounds away
    logits.requires_grad_()
    targets = torch.randint(0, 41, (17,), generator=generator)
    weights = torch.rand(17, generator=generator, dtype=torch.float64)
    weights[5] = 0.0
    expected = token_losses(logits, targets)
    (expected * weights).sum().backward()
    losses, gradient = losses_and_gradient(logits, targets, weights)
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(gradient, logits.grad)
    assert (gradient[5] == 0).all()


def test_the_gradient_of_halves_is_computed_wide_and_rounded_once() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 33, generator=generator).bfloat16()
    targets = torch.arange(6)
    losses, gradient = losses_and_gradient(logits, targets, torch.full((6,), 0.25))
    wide_losses, wide = losses_and_gradient(logits.float(), targets, torch.full((6,), 0.25))
    assert losses.dtype == torch.float32
    assert torch.equal(losses, wide_losses)
    assert torch.equal(gradient, wide.bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_may_take_the_place_of_the_logits(dtype: torch.dtype) -> None:
    logits = torch.randn(9, 33, generator=torch.Generator().manual_seed(0)).to(dtype)
    targets, weights = torch.arange(9), torch.linspace(0.1, 1, 9)
    losses, gradient = losses_and_gradient(logits, targets, weights)
    found, over = losses_and_gradient(logits, targets, weights, overwrite=True)
    assert over.data_ptr() == logits.data_ptr()
    assert torch.equal(found, losses)
    assert torch.equal(over, gradient)


@pytest.mark.parametrize(("name", "allowed"), [("llama", True), ("gpt2", True), ("phi", False), ("gemma2", False)])
def test_logits_are_overwritten_only_where_no_derivative_needs_them(name: str, allowed: bool) -> None:
    """Gemma 2's soft-cap computes its derivative from its output; hooks on Phi's logits, a view, would be lost."""
    model = zoo()[name]()
    states = model.get_input_embeddings()(torch.arange(6)[None]).detach().requires_grad_()
    assert may_overwrite(model(inputs_embeds=states).logits) is allowed
    assert not may_overwrite(states)
