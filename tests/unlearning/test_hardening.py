"""Hardened gradients are those of the slow truth, and the weights are the same after them."""

from __future__ import annotations

import pytest
import torch

from headwater.core.errors import UsageError
from headwater.models.load import LoadedModel
from headwater.models.rounding import round_weights, rounded_copy
from headwater.unlearning.adapter import Lora, trainable_model, trainable_state
from headwater.unlearning.hardening import SHARE, check_hardening, hardened, rounded_in_place
from zoo import tiny_loaded


@pytest.fixture
def adapted() -> tuple[LoadedModel, torch.nn.Module]:
    """A model with an adapter whose B is not zero."""
    loaded = tiny_loaded("llama")
    model = trainable_model(loaded, Lora(rank=2, dropout=0.0), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    return loaded, model


IDS = torch.arange(5, 17)[None]


def loss_of(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS, labels=IDS).loss


def gradients(model: torch.nn.Module, name: str | None) -> dict[str, torch.Tensor]:
    model.zero_grad()

    def gradient() -> torch.Tensor:
        loss = loss_of(model)
        loss.backward()
        return loss

    hardened(model, name, gradient)
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_a_sharp_gradient_is_that_a_step_up_the_gradient(adapted):
    _, model = adapted
    before = trainable_state(model)
    plain, sharp = gradients(model, None), gradients(model, "sharp")
    assert all(torch.equal(before[name], value) for name, value in trainable_state(model).items())
    size, norm = (torch.cat([v.ravel() for v in of.values()]).norm() for of in (before, plain))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in plain:
                parameter.add_(plain[name] * SHARE * size / norm)
    expected = gradients(model, None)
    for name, value in sharp.items():
        torch.testing.assert_close(value, expected[name])
    assert any(not torch.allclose(sharp[name], value) for name, value in plain.items())


def test_rounded_in_place_is_the_merged_model_rounded_and_is_put_back(adapted):
    loaded, model = adapted
    whole = {name: p.detach().clone() for name, p in model.named_parameters()}
    expected = rounded_copy(type(loaded)(**{**vars(loaded), "model": model}), 4).model(IDS).logits
    with rounded_in_place(model, 4):
        torch.testing.assert_close(model(IDS).logits, expected, atol=1e-4, rtol=1e-4)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                assert "lora" not in name or torch.equal(parameter, whole[name]), "the adapter itself is not rounded"
    assert all(torch.equal(p, whole[name]) for name, p in model.named_parameters())
    rounded = gradients(model, "int4")
    assert rounded.keys() == {name for name in whole if "lora" in name}
    assert any(not torch.allclose(rounded[name], value) for name, value in gradients(model, None).items())


def test_all_weights_that_train_are_rounded_without_an_adapter():
    model = trainable_model(tiny_loaded("llama"), None, seed=0)
    weight = model.model.layers[0].mlp.up_proj.weight
    expected, head = round_weights(weight.detach(), 8), model.lm_head.weight.detach().clone()
    with rounded_in_place(model, 8):
        assert torch.equal(weight, expected)
        assert torch.equal(model.lm_head.weight, head)


def test_an_unknown_hardening_is_refused():
    check_hardening(None)
    with pytest.raises(UsageError, match="did you mean 'sharp'"):
        check_hardening("shrp")
