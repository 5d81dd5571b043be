"""Blocks of norms of any kind, whose code need not be known.

A norm's output is linear in its scale and offset, entry by entry: y = scale ∘ x̂ + offset (Gemma: (1 + scale) ∘ x̂). Its
x̂ is therefore the module's own output at scale 1 minus that at scale 0, whatever kind of norm it is. A gate, which many
state-space models give their norms as a second input, is passed on, and is part of x̂.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from headwater.features.layers import Call, Shape
from headwater.sketch.blocks import Block, Dense


class Norm:
    """Modules that scale (and shift) every feature separately, which `claims` checks on random input."""

    def claims(self, module: Any) -> bool:
        """Whether the module is linear in `weight` and `bias`, entry by entry."""
        own = dict(module.named_parameters())
        weight = own.get("weight")
        if weight is None or weight.ndim != 1 or not weight.is_floating_point() or not own.keys() <= {"weight", "bias"}:
            return False
        if any(parameter.shape != weight.shape for parameter in own.values()):
            return False
        try:
            return _is_linear_in_scale(module, weight)
        except Exception:  # other modules may fail in any way; they are run again example by example
            return False

    def certain(self, module: Any) -> bool:
        """Whether the claim holds without a run that proves it: it was checked on random input."""
        return not (module._forward_hooks or module._forward_pre_hooks)

    def transposed(self, module: nn.Module) -> bool:
        """Never."""
        return False

    def tensors(self, module: Any, name: str) -> dict[str, Shape]:
        """The gradient tensors of a parameter, with shapes."""
        return {"": tuple(module._parameters[name].shape)}

    def keeps_output(self, module: Any, output: Tensor) -> bool:
        """Whether `read` is given the output: on a CPU, in float32 or wider, from a norm without an offset."""
        weight = module.weight
        here = output.device.type == "cpu" and weight.device == output.device
        wide = output.dtype == weight.dtype and output.dtype.itemsize >= 4
        return here and wide and getattr(module, "bias", None) is None

    def read(self, call: Call) -> Iterator[tuple[str, Block]]:
        """Blocks by the parameter's local name."""
        grad = call.group.items(call.grad, call.where)
        wide = torch.promote_types(grad.dtype, torch.float32)
        scales, value = _from_output(call), call.value
        if scales is None or value is None:
            normed = call.group.items(_normed(call.module, call.inputs, call.named), call.where)
            summed = (grad.to(wide) * normed).sum(1)
        else:
            summed = (grad * call.group.items(value, call.where)).sum(1) / scales
        yield "weight", Dense(call.group.sum_rows(summed))
        if getattr(call.module, "bias", None) is not None:
            yield "bias", Dense(call.group.sum_rows(grad.sum(1, dtype=wide)))


def _from_output(call: Call) -> Tensor | None:
    """What the output is to be divided by to give x̂; None if the norm must run again to find it.

    Without an offset y = scale ∘ x̂ (Gemma: (1 + scale) ∘ x̂), so Σ_t δ_t ∘ x̂_t = (Σ_t δ_t ∘ y_t) / scale, up to the
    rounding of y, if no scale is zero or next to it. In half precision that rounding would count, and a GPU would have
    to be waited for to look at the scales.
    """
    added = None if call.value is None else _ground(call.module, call.value)
    if added is None:
        return None
    scales: Tensor = call.module.weight.detach() + added
    return scales if float(scales.abs().min()) > _LEAST_SCALE else None


_LEAST_SCALE = 1e-20
"""Products with smaller scales may be subnormal numbers of float32, which have fewer bits."""


def _normed(module: Any, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    weight, bias = module.weight, getattr(module, "bias", None)
    offset = {} if bias is None else {"bias": torch.zeros_like(bias)}
    zeros = {"weight": torch.zeros_like(weight), **offset}
    ones = {"weight": torch.ones_like(weight), **offset}
    normed: Tensor = functional_call(module, ones, inputs, dict(named)).detach()
    if _ground(module, inputs[0]) != 0.0:
        normed = normed - functional_call(module, zeros, inputs, dict(named)).detach()
    return normed


def _ground(module: Any, like: Tensor) -> float | None:
    """The c of a norm that gives c · x̂ with a scale of zeros: 0, or 1 for Gemma's, which add 1 to their scale.

    None if what it gives is neither. Asked once, because the answer makes a GPU's queue run empty.
    """
    if module not in _GROUNDS:
        weight, bias = module.weight, getattr(module, "bias", None)
        offset = {} if bias is None else {"bias": torch.zeros_like(bias)}
        some = torch.linspace(-1, 1, len(weight), dtype=like.dtype, device=like.device)[None, None]
        ground, more = (
            functional_call(module, {"weight": torch.full_like(weight, scale), **offset}, (some,)) for scale in (0, 1)
        )
        whole = not bool(ground.any())
        _GROUNDS[module] = 0.0 if whole else 1.0 if torch.equal(more, 2 * ground) else None
    return _GROUNDS[module]


_GROUNDS: WeakKeyDictionary[nn.Module, float | None] = WeakKeyDictionary()


def _is_linear_in_scale(module: Any, weight: Tensor) -> bool:
    generator = torch.Generator().manual_seed(0)
    x, scale, offset = torch.randn(3, 2, 3, len(weight), generator=generator).to(weight)
    bias = getattr(module, "bias", None)
    shift = {} if bias is None else {"bias": offset[0, 0]}
    with torch.no_grad():
        base = {} if bias is None else {"bias": torch.zeros_like(bias)}
        found = functional_call(module, {"weight": scale[0, 0], **shift}, (x,))
        ground = functional_call(module, {"weight": torch.zeros_like(weight), **base}, (x,))
        expected = ground + scale[0, 0] * _normed(module, (x,), {}) + (0 if bias is None else offset[0, 0])
    tolerance = 0.05 if weight.dtype in (torch.float16, torch.bfloat16) else 1e-3
    return bool(found.shape == x.shape and torch.allclose(found, expected, rtol=tolerance, atol=tolerance))
