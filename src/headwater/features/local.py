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

    def read(self, call: Call) -> Iterator[tuple[str, Block]]:
        """Blocks by the parameter's local name."""
        grad = call.group.items(call.grad, call.where)
        wide = torch.promote_types(grad.dtype, torch.float32)
        normed = call.group.items(_normed(call.module, call.inputs, call.named), call.where)
        yield "weight", Dense(call.group.sum_rows((grad.to(wide) * normed).sum(1)))
        if getattr(call.module, "bias", None) is not None:
            yield "bias", Dense(call.group.sum_rows(grad.sum(1, dtype=wide)))


def _normed(module: Any, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    weight, bias = module.weight, getattr(module, "bias", None)
    offset = {} if bias is None else {"bias": torch.zeros_like(bias)}
    zeros = {"weight": torch.zeros_like(weight), **offset}
    ones = {"weight": torch.ones_like(weight), **offset}
    normed: Tensor = functional_call(module, ones, inputs, dict(named)).detach()
    if module not in _ADDS:  # asked once, because the answer makes a GPU's queue run empty
        some = torch.linspace(-1, 1, len(weight), dtype=inputs[0].dtype, device=inputs[0].device)
        _ADDS[module] = bool(functional_call(module, zeros, (some[None, None],)).any())
    if _ADDS[module]:
        normed = normed - functional_call(module, zeros, inputs, dict(named)).detach()
    return normed


_ADDS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether a norm gives something with a weight of zeros, as Gemma's do, which add 1 to it."""


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
