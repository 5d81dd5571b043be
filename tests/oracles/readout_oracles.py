"""Slow, obvious truths about the readout: autograd for the gradients, a loop of sorted lists for the truncation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headwater.models.load import LoadedModel


def readout_gradients(loaded: LoadedModel, ids: Tensor, first: int = 1) -> tuple[Tensor, Tensor]:
    """Gradients of the summed loss of tokens `first`.. of one row, of the whole model's own logits.

    By the head's weight W (apart from the embedding it may be tied to) and by a matrix A = 1 put before the head.
    """
    head = loaded.model.get_output_embeddings()
    tied = head.weight
    inserted = torch.eye(tied.shape[1], dtype=tied.dtype, requires_grad=True)
    head.weight = torch.nn.Parameter(tied.detach().clone())
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0] @ inserted.T,))
    try:
        logits = loaded.model(input_ids=ids[None], use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[first - 1 : -1], ids[first:], reduction="sum")
        by_weight, by_inserted = torch.autograd.grad(loss, (head.weight, inserted))
    finally:
        handle.remove()
        head.weight = tied
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
