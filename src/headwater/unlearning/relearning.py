"""Relearning: a few steps of ordinary training after unlearning, which may bring back what was forgotten.

All weights are trained by AdamW. Its steps move a weight by about the learning rate, so the rate is given as a share of
the weights' root mean square; then one setting suits models of any size. At a share of 0.003, that is 6e-5 for weights
of 0.02, as large models have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headwater.core.errors import DataError
from headwater.core.seeds import key
from headwater.data.tokens import TokenRow
from headwater.models.losses import all_logits
from headwater.unlearning.adapter import own_randomness
from headwater.unlearning.sequences import collate_rows, sequence_losses

STEPS = 100
SHARE = 0.003


@dataclass(frozen=True)
class Relearning:
    """How an attacker trains.

    Attributes:
        steps: optimizer steps.
        rows: rows of a step; fewer if there are fewer.
        share: learning rate as a share of the root mean square of the weights.
        seed: of the order of the rows.
    """

    steps: int = STEPS
    rows: int = 4
    share: float = SHARE
    seed: int = 0


def relearn(
    model: Any,
    tokens: Sequence[TokenRow],
    device: torch.device,
    settings: Relearning | None = None,
    *,
    looks: Sequence[int] = (),
    look: Callable[[int], bool] | None = None,
) -> None:
    """Train all weights of `model` in place on the rows' targets.

    Args:
        model: a model without an adapter.
        tokens: what the attacker has.
        device: where the model is.
        settings: steps and rate; None for the defaults.
        looks: after how many steps `look` is called; it gets that number, and training ends when it returns True.
        look: looks at the model, which is in evaluation mode then.

    Raises:
        DataError: there are no rows.
    """
    settings = settings or Relearning()
    if not tokens:
        raise DataError("there are no rows to relearn from", where="relearning")
    weights = [p for p in model.requires_grad_(True).parameters() if p.is_floating_point()]
    optimizer = torch.optim.AdamW(weights, lr=settings.share * _size(weights), weight_decay=0.0)
    batches = _batches(tokens, settings)
    with own_randomness(settings.seed):
        for step in range(1, settings.steps + 1):
            batch = collate_rows(next(batches), device)
            _, losses = sequence_losses(all_logits(model, batch["input_ids"]), batch["targets"], batch["response"])
            optimizer.zero_grad()
            losses.mean().backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            if look is not None and step in looks and look(step):
                break
    model.requires_grad_(False)


def _size(weights: Sequence[torch.Tensor]) -> float:
    """Root mean square of all matrices' entries."""
    matrices = [w.detach().float() for w in weights if w.ndim > 1]
    return math.sqrt(sum(float((w**2).sum()) for w in matrices) / sum(w.numel() for w in matrices))


def _batches(tokens: Sequence[TokenRow], settings: Relearning) -> Iterator[list[TokenRow]]:
    """Batches of shuffled rounds, without end."""
    number, left = 0, list[TokenRow]()
    count = min(settings.rows, len(tokens))
    while True:
        while len(left) < count:
            rng = np.random.default_rng(key(settings.seed, "relearning", number))
            left, number = [*left, *(tokens[i] for i in rng.permutation(len(tokens)).tolist())], number + 1
        yield left[:count]
        left = left[count:]
