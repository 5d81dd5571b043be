"""Weights rounded to a few bits: no weight moves by more than half a step, and what is rounded stays rounded."""

from __future__ import annotations

import pytest
import torch

from headwater.core.errors import UsageError
from headwater.models.load import wrap_model
from headwater.models.rounding import merged_copy, round_weights, rounded_copy
from zoo import tiny_loaded, tiny_tokenizer, zoo


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("axis", [-1, 0])
def test_a_slow_loop_rounds_alike(bits, axis):
    weights = torch.randn(5, 7, generator=torch.Generator().manual_seed(bits))
    weights[2] = 0
    channels = weights if axis == -1 else weights.T
    expected = torch.empty_like(channels)
    for i, channel in enumerate(channels):
        step = float(channel.abs().max()) / (2 ** (bits - 1) - 1)
        for j, weight in enumerate(channel.tolist()):
            expected[i, j] = round(weight / step) * step if step else 0.0
    found = round_weights(weights, bits, axis=axis)
    torch.testing.assert_close(found, expected if axis == -1 else expected.T, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(round_weights(found, bits, axis=axis), found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt2", "mixtral", "llama-lora"])
def test_a_copy_is_rounded_within_half_a_step_and_the_model_is_left_alone(name):
    loaded = wrap_model(zoo()[name](), tiny_tokenizer(), name)
    plain = dict(merged_copy(loaded).model.named_parameters())
    state = {k: v.clone() for k, v in loaded.model.state_dict().items()}
    rounded = dict(rounded_copy(loaded, 4).model.named_parameters())
    assert all(torch.equal(value, state[k]) for k, value in loaded.model.state_dict().items())
    changed = 0
    for key, before in plain.items():
        after = rounded[key]
        if torch.equal(before, after):
            assert before.ndim < 2 or any(part in key for part in ("embed", "lm_head", "wte", "wpe")), key
            continue
        changed += 1
        axis = 0 if name == "gpt2" else -1
        step = before.abs().amax(dim=axis, keepdim=True) / 7
        assert bool(((after - before).abs() <= step / 2 * (1 + 1e-5)).all()), key
        values = (after / step).round()
        assert values.unique().numel() <= 15
    assert changed >= 8, "the layers' matrices"


def test_bits_that_make_no_sense_are_refused():
    for bits in (1, 17):
        with pytest.raises(UsageError, match=f"{bits} bits"):
            rounded_copy(tiny_loaded("llama"), bits)
