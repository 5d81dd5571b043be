"""Slow and obvious: take the step, measure the target again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from headwater.data.tokens import TokenRow
from headwater.models.load import LoadedModel
from oracles.gradient_oracles import row_gradients


def mean_loss(model, rows: Sequence[TokenRow], *, over: str = "rows") -> float:
    total, tokens = 0.0, 0
    for row in rows:
        logits = model(input_ids=torch.from_numpy(row.ids)[None], use_cache=False).logits[0]
        log = torch.log_softmax(logits.double(), -1)
        losses = [-float(log[t - 1, int(row.ids[t])]) for t in range(1, len(row.ids)) if row.response[t]]
        total += sum(losses) / len(losses) if over == "rows" else sum(losses)
        tokens += len(losses)
    return total / (len(rows) if over == "rows" else tokens)


def adam_scale(loaded: LoadedModel, groups: Sequence[Sequence[TokenRow]]) -> dict[str, torch.Tensor]:
    """1 / (√v + a tenth of its root mean), of root mean square 1; v: mean square of the groups' gradients by token."""
    squares = {name: torch.zeros_like(p) for name, p in loaded.model.named_parameters()}
    for group in groups:
        counts = [int(row.response.sum()) for row in group]
        gradients = [row_gradients(loaded.model, row) for row in group]
        for name in squares:
            whole = sum(count * one[name] for count, one in zip(counts, gradients, strict=True)) / sum(counts)
            squares[name] += whole**2 / len(groups)
    scale = {name: 1 / (v.sqrt() + 0.1 * v.mean().sqrt()) for name, v in squares.items()}
    size = torch.cat([factors.flatten() for factors in scale.values()]).square().mean().sqrt()
    return {name: factors / size for name, factors in scale.items()}


def one_step_influence(
    loaded: LoadedModel,
    rows: Sequence[TokenRow],
    target: Sequence[TokenRow],
    rate: float,
    *,
    over: str = "rows",
    scale: Mapping[str, torch.Tensor] | None = None,
) -> np.ndarray:
    """L_t(θ) − L_t(θ − rate·scale·∇l(z; θ)) of every row, by training one step on each from the same start."""
    with torch.no_grad():
        before = mean_loss(loaded.model, target, over=over)
    found = []
    for row in rows:
        gradient = row_gradients(loaded.model, row)
        stepped = copy.deepcopy(loaded.model)
        with torch.no_grad():
            for name, parameter in stepped.named_parameters():
                parameter.sub_(rate * gradient[name] * (1 if scale is None else scale[name]))
            found.append(before - mean_loss(stepped, target, over=over))
    return np.array(found)
