"""The readout: a causal language model's head, and the hidden states it reads.

    z = cap(scale · (W h + b)),   cap(x) = c · tanh(x / c),   ∂z / ∂(W h + b) = scale · (1 − (z / c)²)

Heads differ in a bias (Phi), a factor on the logits (Cohere multiplies, Granite divides), a soft-cap (Gemma 2), and in
what lies between the trunk and the head (MiniCPM scales, BERT transforms). None of this is looked up by name. h is what
the head is given; what becomes of its output is found by putting chosen numbers in its place and looking at the model's
logits. The result is then **checked**: a readout that does not reproduce the model's logits is an error, so an unknown
architecture is either read correctly or not at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headwater.core.errors import ModelError
from headwater.core.spec import Coverage
from headwater.models.adapters import without_adapter
from headwater.models.fingerprint import parameter_count
from headwater.models.load import LoadedModel
from headwater.models.logit_map import find_map
from headwater.models.trunk import Compiled, trunk_of
from headwater.sketch.precision import half_product, multiplies_half

_SLICE = 16_384
"""Rows of a half-precision head converted to float32 at a time; bounds the size of the copy."""

_KEPT_BYTES = 256 * 2**20
"""Up to this size the float32 copy is kept on a CPU, where converting it anew took half of the readout's time."""

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}
"""Largest difference allowed, as a share of the largest logit or state; the model's own rounding can be that large."""

_TOKENS = 12
_PREFIX = 8

_LARGE = 64.0
"""The check amplifies logits until the largest is about this, because a soft-cap hardly changes small ones."""


@dataclass(frozen=True)
class Readout:
    """A head that has been checked against its model.

    Attributes:
        weight: the head's matrix W `[vocab, width]`, in the model's dtype (an adapter on the head is folded in).
        bias: b `[vocab]`, or None.
        scale: factor on the logits, before the soft-cap.
        soft_cap: c, or None for no soft-cap.
        coverage: the share of all parameters that the head's matrix has; a bias is not counted.
        trunk: the model up to its head.
    """

    weight: Float[Tensor, "vocab width"]
    bias: Float[Tensor, " vocab"] | None
    scale: float
    soft_cap: float | None
    coverage: Coverage
    trunk: Any = field(repr=False)

    def hidden(self, input_ids: Int[Tensor, "items tokens"]) -> Float[Tensor, "items tokens width"]:
        """The head's input at each position, in the model's dtype.

        No logits are computed. Rows are padded on the right, so no real token sees padding and no mask is needed. One
        would rule out fast attention kernels, and give NaN for padding that lies wholly outside a sliding window. The
        states at padding are meaningless.
        """
        states: Tensor = self.trunk(input_ids=input_ids, use_cache=False).last_hidden_state
        return states

    def logits(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocab"]:
        """The model's logits, computed in float32 (float64 for a float64 model) whatever its dtype.

        On CUDA, half-precision states and head are multiplied as they are and summed in float32. Elsewhere the head is
        converted in slices, or once if it is small.
        """
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        states = hidden.to(device=self.weight.device)
        if multiplies_half(states, self.weight):
            logits = half_product(states, self.weight)
        elif self.weight.dtype == dtype:
            logits = states.to(dtype) @ self.weight.T
        else:
            logits = torch.cat([states.to(dtype) @ rows.to(dtype).T for rows in self._slices], dim=-1)
        if self.bias is not None:
            logits = logits + self.bias.to(dtype)
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.soft_cap is None else self.soft_cap * torch.tanh(logits / self.soft_cap)

    def slope(self, logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"] | float:
        """∂z / ∂(W h + b), entry by entry, at the logits z that `logits` gave; one number without a soft-cap."""
        return self.scale if self.soft_cap is None else self.scale * (1 - (logits / self.soft_cap).square())

    @cached_property
    def _slices(self) -> tuple[Tensor, ...]:
        """The head's parts to multiply with: one converted copy if it may be kept, else slices still to convert."""
        small = 4 * self.weight.numel() <= _KEPT_BYTES
        if small and self.weight.device.type == "cpu":
            return (self.weight.float(),)
        return torch.split(self.weight, _SLICE)


def find_readout(loaded: LoadedModel) -> Readout:
    """The checked readout of a model.

    Raises:
        ModelError: the model has no linear head over its vocabulary, or the head found does not reproduce the
            model's logits.
    """
    inner = without_adapter(loaded.model)
    head = inner.get_output_embeddings()
    if head is None:
        remedy = "give a causal language model, not an encoder or a classifier"
        raise ModelError(f"{type(inner).__name__} has no head over a vocabulary", where=loaded.name, remedy=remedy)
    if loaded.weightless:  # nothing can be checked, and nothing is computed
        weight, bias = head.weight, getattr(head, "bias", None)
        return Readout(weight, bias, 1.0, None, _coverage(head, weight, bias, loaded), inner.base_model)
    weight, bias = _linear(head, loaded)
    scale, soft_cap = find_map(loaded.model, device=loaded.device, where=loaded.name)
    trunk = trunk_of(inner, head, _batch(loaded)[0])
    readout = Readout(weight, bias, scale, soft_cap, _coverage(head, weight, bias, loaded), trunk)
    check_readout(readout, loaded)
    return replace(readout, trunk=Compiled.of(trunk)) if loaded.compiled else readout


def check_readout(readout: Readout, loaded: LoadedModel) -> None:
    """Raise an error unless the readout gives the model's logits.

    The check is one small batch: a row, the same row with another ending, and the same row cut short and padded. At all
    real tokens `logits(hidden)` must equal the model's logits, and the states of the common beginning must agree. The
    logits are compared again with the head's input amplified by a power of two, which is exact in every dtype.

    Raises:
        ModelError: the logits or states differ; gives the largest difference.
    """
    tolerance = _TOLERANCE[torch.promote_types(loaded.model.dtype, readout.weight.dtype)]
    input_ids, attention = _batch(loaded)
    with torch.no_grad():
        hidden = readout.hidden(input_ids)
        real = attention.to(readout.weight.device)
        logits = readout.logits(hidden)[real]
        if not bool(logits.isfinite().all()):
            raise ModelError("the logits are not finite", where=loaded.name, remedy="load the model in a wider dtype")
        others = (hidden[1:, :_PREFIX] - hidden[0, :_PREFIX]).abs().max() / hidden[0].abs().max()
        if float(others) > tolerance:
            what = f"a token's state changes by {float(others):.2g} with the tokens after it, {tolerance:.0e} allowed"
            raise ModelError(what, where=loaded.name, remedy="give a causal language model, not an encoder")
        gain = 2.0 ** round(math.log2(_LARGE / max(float(logits.abs().max()), 1e-6)))
        for factor in (1.0, gain):
            expected = _model_logits(loaded, input_ids, attention, factor)
            _require_same(readout.logits(hidden * factor), expected, real, tolerance, loaded)


def _linear(head: Any, loaded: LoadedModel) -> tuple[Tensor, Tensor | None]:
    """Matrix and bias of the head; if it is not a plain linear layer, they are computed from its output on a basis."""
    if isinstance(head, torch.nn.Linear) and head.weight.is_floating_point():
        if head.weight.is_meta:
            raise ModelError("the head is offloaded", where=loaded.name, remedy="keep the head on a device")
        return head.weight.detach(), None if head.bias is None else head.bias.detach()
    width, dtype = loaded.model.config.get_text_config().hidden_size, loaded.model.dtype
    device = next(head.parameters()).device
    with torch.no_grad():
        bias = head(torch.zeros(1, width, dtype=dtype, device=device))[0]
        basis = torch.eye(width, dtype=dtype, device=device)
        weight = torch.cat([head(rows) for rows in torch.split(basis, 256)]) - bias
    return weight.T.contiguous(), bias if bool(bias.any()) else None


def _coverage(head: Any, weight: Tensor, bias: Tensor | None, loaded: LoadedModel) -> Coverage:
    embedding = loaded.model.get_input_embeddings()
    tied = any(p is embedding.weight for p in head.parameters())
    note = "the head, tied to the input embedding: its use as embedding is not seen" if tied else "the head"
    note += "" if bias is None else "; its bias is not seen"
    parameters = list(loaded.model.parameters())
    return Coverage(weight.numel(), parameter_count(parameters), note, tensors_seen=1, tensors_total=len(parameters))


def _batch(loaded: LoadedModel) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, `[3, tokens]`; ids are spread over the vocabulary and the same on every device."""
    vocab = loaded.model.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(_TOKENS) * 2_654_435_761 + 7) % vocab
    input_ids = ids.repeat(3, 1)
    input_ids[1, _PREFIX:] = (ids[_PREFIX:] + 1 + vocab // 2) % vocab
    input_ids[2, _PREFIX:] = 0
    attention = torch.ones_like(input_ids, dtype=torch.bool)
    attention[2, _PREFIX:] = False
    return input_ids.to(loaded.device), attention.to(loaded.device)


def _model_logits(loaded: LoadedModel, input_ids: Tensor, attention: Tensor, factor: float) -> Tensor:
    """The whole model's logits, with the input of its head multiplied by `factor`."""

    def amplify(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * factor, *inputs[1:])

    handle = loaded.model.get_output_embeddings().register_forward_pre_hook(amplify)
    try:
        logits: Tensor = loaded.model(input_ids=input_ids, attention_mask=attention.long(), use_cache=False).logits
    finally:
        handle.remove()
    return logits


def _require_same(found: Tensor, expected: Tensor, real: Tensor, tolerance: float, loaded: LoadedModel) -> None:
    kind = type(loaded.model).__name__
    remedy = f"{kind} reads out in a way this version does not know; use a method that does not read the head"
    if found.shape != expected.shape:
        what = f"logits of shape {tuple(found.shape)}, the model's have {tuple(expected.shape)}"
        raise ModelError(what, where=loaded.name, remedy=remedy)
    theirs = expected.to(found)[real]
    error = float((found[real] - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12))
    if not error <= tolerance:
        what = f"logits differ from the model's by {error:.2g} of the largest, {tolerance:.0e} allowed"
        raise ModelError(what, where=loaded.name, remedy=remedy)
