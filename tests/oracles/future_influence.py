"""Slow and obvious: take the step, measure the target again."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch

from headwater.data.tokens import TokenRow
from headwater.models.load import LoadedModel
from oracles.gradient_oracles import row_gradients


def mean_loss(model, rows: Sequence[TokenRow]) -> float:
    total = 0.0
    for row in rows:
        logits = model(input_ids=torch.from_numpy(row.ids)[None], use_cache=False).logits[0]
        log = torch.log_softmax(logits.double(), -1)
        losses = [-float(log[t - 1, int(row.ids[t])]) for t in range(1, len(row.ids)) if row.response[t]]
        total += sum(losses) / len(losses)
    return total / len(rows)


def one_step_influence(
    loaded: LoadedModel, rows: Sequence[TokenRow], target: Sequence[TokenRow], rate: float
) -> np.ndarray:
    """L_t(θ) − L_t(θ − rate·∇l(z; θ)) of every row, by training one step on each from the same start."""
    with torch.no_grad():
        before = mean_loss(loaded.model, target)
    found = []
    for row in rows:
        gradient = row_gradients(loaded.model, row)
        stepped = copy.deepcopy(loaded.model)
        with torch.no_grad():
            for name, parameter in stepped.named_parameters():
                parameter.sub_(rate * gradient[name])
            found.append(before - mean_loss(stepped, target))
    return np.array(found)
