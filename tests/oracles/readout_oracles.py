"""Slow, obvious truths about the readout: autograd for the gradients, a loop of sorted lists for the truncation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headwater.models.load import LoadedModel
from headwater.models.readout import Readout


def readout_gradients(loaded: LoadedModel, readout: Readout, ids: Tensor, first: int = 1) -> tuple[Tensor, Tensor]:
    """Gradients of the summed loss of tokens `first`.. of one row by the head's weight W and by A in z = W A h.

    Logit scale and soft-cap are left out, as the kernel's definition leaves them out.
    """
    with torch.no_grad():
        hidden = readout.hidden(ids[None])[0]
    weight = readout.weight.clone().requires_grad_()
    inserted = torch.eye(weight.shape[1], dtype=weight.dtype, requires_grad=True)
    logits = hidden @ inserted.T @ weight.T
    loss = torch.nn.functional.cross_entropy(logits[first - 1 : -1], ids[first:], reduction="sum")
    by_weight, by_inserted = torch.autograd.grad(loss, (weight, inserted))
    return by_weight, by_inserted


def truncated_residual(logits: list[float], target: int, *, temperature: float, top: int, mass: float) -> list[float]:
    """The published truncation for one token, word by word; at least 4 entries."""
    order = sorted(range(len(logits)), key=lambda v: -logits[v])[:top]
    if target not in order:
        order[-1] = target
    peak = max(logits[v] for v in order)
    weights = {v: math.exp((logits[v] - peak) / temperature) for v in order}
    total = sum(weights.values())
    kept, cumulative = [], 0.0
    for v in order:
        if cumulative < mass or len(kept) < 4 or v == target:
            kept.append(v)
        cumulative += weights[v] / total
    share = sum(weights[v] for v in kept)
    residual = [0.0] * len(logits)
    for v in kept:
        residual[v] = weights[v] / share
    residual[target] -= 1.0
    return residual
