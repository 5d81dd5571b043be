"""Find the learning rate with a short probe.

Adam moves each weight by about the learning rate in each step, whatever the size of the gradient. So the effect of a
run depends on its path Σ η_t more than on η. The probe trains with a rate that grows by a constant factor and measures
the loss of a few rows every other step. It takes the path at which the forget rows' loss reaches the target, or the
guard rows' loss its bound. Then the trained weights are put back, and the run covers the same path in `AIM` steps. This
works at any scale of model and loss, as long as the right rate lies within the range of the probe, 1e-5 to 0.5.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from headwater.core.errors import NumericError
from headwater.methods.targets import evenly_spaced
from headwater.unlearning.adapter import restore_state, trainable_state
from headwater.unlearning.constraint import guard_loss
from headwater.unlearning.objectives import Objective
from headwater.unlearning.sequences import measure_losses
from headwater.unlearning.trainer import Material, Schedule, train
from headwater.unlearning.watch import LossLimits, Reading, Watch

FIRST_RATE, GROWTH, STEPS = 1e-5, 1.6, 23
AIM = 40
"""Steps in which the run should reach the target."""
LOOKED_AT = 12
"""Most forget rows, and most guard rows, whose loss the probe measures."""


@dataclass(frozen=True)
class Probed:
    """What the probe found: the rate, the path Σ η at which it stopped, why it stopped, and the losses it read."""

    rate: float
    path: float
    outcome: str
    readings: tuple[Reading, ...]


def probe_rate(model: Any, objective: Objective, material: Material, watch: Watch, schedule: Schedule) -> Probed:
    """Find the rate for `objective` on `model`; the model's weights are put back afterwards.

    Raises:
        NumericError: no rate of the range brought the forget loss to the target or the guard loss to its bound.
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
            where="--rate auto",
            remedy="give --rate, or more forget rows",
        )
    path = FIRST_RATE * (GROWTH**crossed - 1) / (GROWTH - 1)
    return Probed(path / min(AIM, schedule.steps), path, looks.outcome, tuple(looks.readings))


def _fewer_looks(model: Any, watch: Watch) -> Watch:
    """A watch over a few of the rows; the loss of its guard rows may rise as much as that of all guard rows may."""
    limits, kept = replace(watch.limits, every=2, seldom=1), evenly_spaced(range(len(watch.guard)), LOOKED_AT)
    trust = None if watch.trust is None else watch.trust[kept]
    if watch.guard:
        _, before = measure_losses(model, watch.guard, watch.device)
        lower = guard_loss(before, watch.trust) - guard_loss(before[kept], trust)
        limits = replace(limits, bound=limits.bound - lower)
    guard, forget = [watch.guard[i] for i in kept], evenly_spaced(watch.forget, LOOKED_AT)
    return Watch(forget, guard, limits, watch.device, trust, withheld=forget, stop=True)


def _crossing(readings: Sequence[Reading], limits: LossLimits) -> float | None:
    """The step at which the forget loss passes the target or the guard loss its bound, interpolated between readings.

    If both happen between the same two readings, the earlier counts. A reading that is not a number counts as a
    crossing at the reading before it. Where the guard loss alone stays within the bound but not with its standard error
    added, which ends the probe, the place of that counts.
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
    before, after = readings[-2:] if len(readings) > 1 else (readings[0], readings[0])
    if before.keeps(limits) and not after.keeps(limits):
        share = (limits.bound - before.upper) / (after.upper - before.upper)
        return before.step + share * (after.step - before.step)
    return None
