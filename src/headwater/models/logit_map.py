"""What a model does to its head's output before it calls it logits: nothing, a factor, or a soft-cap.

    z = scale · x      or      z = c · tanh(scale · x / c)

Chosen numbers x, from very small to very large, are put in place of the head's output, and the logits are looked at:
the largest give c, where they stop growing; the smallest give the scale; all of them must then be on the curve.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from headwater.core.errors import ModelError

_SMALLEST, _LARGEST = 1e-3, 1e6
"""Sizes of the numbers that are put in. Float16, where a model converts its logits to it, ends at 65,504."""

_TOKENS = 4


def find_map(model: Any, *, device: torch.device, where: str = "") -> tuple[float, float | None]:
    """The scale, and the soft-cap c or None, of a model whose inputs are on `device`.

    Raises:
        ModelError: the logits are another function of the head's output.
    """
    planted, logits = _planted(model, device, where)
    x, z = planted.double().flatten(), logits.double().flatten()
    digits = 12 if logits.dtype == torch.float64 else 6
    cap = float(z.abs().max())
    capped = cap < 0.5 * float((z / x).abs().max() * x.abs().max())
    small = x.abs() < 10 * _SMALLEST
    slopes = cap * torch.atanh(z[small] / cap) / x[small] if capped else z[small] / x[small]
    scale, soft_cap = _rounded(float(slopes.median()), digits), _rounded(cap, digits) if capped else None
    expected = scale * x if soft_cap is None else soft_cap * torch.tanh(scale * x / soft_cap)
    error = float(((z - expected).abs() / expected.abs().clamp_min(1e-9)).max())
    if not error < (1e-3 if digits > 6 or logits.dtype == torch.float32 else 2e-2):
        what = f"the logits are neither a multiple nor a soft-cap of what the head gives: {error:.2g} off"
        raise _unknown(what, model, where)
    return scale, soft_cap


def _planted(model: Any, device: torch.device, where: str) -> tuple[Tensor, Tensor]:
    """Numbers in place of the head's output, `[2, tokens, vocab]`, and the logits that the model makes of them."""
    held: list[Tensor] = []

    def plant(_: Any, inputs: Any, output: Tensor) -> Tensor:
        wide = output.dtype if output.device.type == "mps" else torch.float64
        largest = min(_LARGEST, 0.5 * torch.finfo(model.dtype).max)
        exponents = torch.linspace(math.log10(_SMALLEST), math.log10(largest), output.numel(), dtype=torch.float64)
        order = torch.randperm(output.numel(), generator=torch.Generator().manual_seed(0))
        signs = 1.0 - 2.0 * (torch.arange(output.numel()) % 2)
        held.append((10**exponents * signs)[order].view(output.shape).to(output.device, wide))
        return held[-1]

    ids = torch.arange(2 * _TOKENS, device=device).view(2, _TOKENS)
    ids = (ids * 7 + 3) % model.get_input_embeddings().weight.shape[0]
    handle = model.get_output_embeddings().register_forward_hook(plant)
    try:
        with torch.no_grad():
            logits: Tensor = model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
    shapes = [tuple(values.shape) for values in held]
    if shapes != [tuple(logits.shape)]:
        given = " and ".join(map(str, shapes)) or "nothing"
        raise _unknown(f"the head gives {given}, and the logits have shape {tuple(logits.shape)}", model, where)
    return held[0], logits.to(held[0].device)


def _unknown(what: str, model: Any, where: str) -> ModelError:
    remedy = f"{type(model).__name__} reads out in a way this version does not know; use a gradient method"
    return ModelError(what, where=where, remedy=remedy)


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
