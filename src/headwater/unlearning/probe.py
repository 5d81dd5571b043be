"""The step size, found by a short probe: how far the weights must go, divided by the steps they may take.

Adam moves each weight by about the learning rate in each step whatever the gradient's size, so what a run does depends
on its path Σ η_t more than on η. The probe trains from the start with a rate that grows by a constant factor, looks at
a few rows every other step, and notes the path at which their loss reaches the target (or utility its bound). The
trained weights are then put back, and the run takes that path in `AIM` steps. The path is found at any scale of model
or loss: no rate is assumed, only that the range of the ramp, 1e-5 to 0.5, holds the answer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from headwater.core.errors import NumericError
from headwater.unlearning.adapter import restore_state, trainable_state
from headwater.unlearning.objectives import Objective
from headwater.unlearning.sequences import measure_losses
from headwater.unlearning.trainer import Material, Schedule, train
from headwater.unlearning.watch import LossLimits, Reading, Watch, guard_loss

FIRST_RATE, GROWTH, STEPS = 1e-5, 1.6, 23
AIM = 40
"""Steps the run should take to the target."""
LOOKED_AT = 12
"""Forget rows, and guard rows, the probe looks at."""


@dataclass(frozen=True)
class Probed:
    """What the probe found: the rate, the path Σ η at which it stopped, why it stopped, and what it saw."""

    rate: float
    path: float
    outcome: str
    readings: tuple[Reading, ...]


def probe_rate(model: Any, objective: Objective, material: Material, watch: Watch, schedule: Schedule) -> Probed:
    """The rate for `objective` on `model`, which is left as it was.

    Raises:
        NumericError: nothing moved over the whole ramp.
    """
    start = trainable_state(model)
    looks = _fewer_looks(model, watch)
    weights = material.weights
    try:
        train(model, objective, material, looks, replace(schedule, rate=FIRST_RATE, ramp=GROWTH, steps=STEPS))
    finally:
        restore_state(model, start)
        material.weights = weights
    crossed = _crossing(looks.readings, looks.limits)
    if crossed is None:
        raise NumericError(
            f"the forget loss went from {looks.readings[0].forget:.3g} to {looks.readings[-1].forget:.3g} nats while "
            f"the rate grew to {FIRST_RATE * GROWTH**STEPS:.2g}",
            where="--lr auto",
            remedy="give --lr, or more forget rows",
        )
    path = FIRST_RATE * (GROWTH**crossed - 1) / (GROWTH - 1)
    return Probed(path / min(AIM, schedule.steps), path, looks.outcome, tuple(looks.readings))


def _fewer_looks(model: Any, watch: Watch) -> Watch:
    """A watch over a few of the rows, whose loss may rise by as much as that of all guard rows may."""
    limits, trust = replace(watch.limits, every=2), None if watch.trust is None else watch.trust[:LOOKED_AT]
    if watch.guard:
        _, before = measure_losses(model, watch.guard, watch.device)
        lower = guard_loss(before, watch.trust) - guard_loss(before[:LOOKED_AT], trust)
        limits = replace(limits, bound=limits.bound - lower)
    return Watch(watch.forget[:LOOKED_AT], watch.guard[:LOOKED_AT], limits, watch.device, trust)


def _crossing(readings: Sequence[Reading], limits: LossLimits) -> float | None:
    """The step, between two looks, at which the forget loss passes the target or the guard loss its bound.

    Where both happen between the same two looks, the earlier; a look that is no number counts as a crossing at the
    look before it.
    """
    for before, after in itertools.pairwise(readings):
        if not (math.isfinite(after.forget) and math.isfinite(after.guard)):
            return float(before.step)
        shares = [
            (limit - low) / (high - low)
            for limit, low, high in (
                (limits.target, before.forget, after.forget),
                (limits.bound, before.guard, after.guard),
            )
            if low < limit <= high
        ]
        if shares:
            return before.step + min(shares) * (after.step - before.step)
    return None
