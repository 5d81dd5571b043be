"""Early stopping: when the forget rows are forgotten, when utility suffers, or when training diverges.

The forget rows count as forgotten once their loss is that of unseen rows; raising it further only does damage. Utility
is measured by the loss of the guard rows, which are not trained on. Both are measured every few steps, without
dropout. If training stops because of utility or divergence, the weights of the last good measurement are put back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import TrainerCallback

from headwater.data.tokens import TokenRow
from headwater.unlearning.adapter import restore_state, trainable_state
from headwater.unlearning.sequences import measure_losses

Outcome = Literal["forgotten", "guarded", "diverged", "steps"]
"""The target was reached; the guard loss passed its bound; the loss was not a number; all steps were taken."""


@dataclass(frozen=True)
class LossLimits:
    """When training ends.

    Attributes:
        target: nats a token; training ends when the forget rows' mean loss is at least this. Infinite: never.
        bound: nats a token; training ends when the guard rows' mean loss is above this. Infinite: never.
        every: steps between two measurements.
    """

    target: float
    bound: float
    every: int = 5


@dataclass(frozen=True)
class Reading:
    """One measurement: mean losses in nats a token; `guard` is 0 if there are no guard rows."""

    step: int
    forget: float
    guard: float


def guard_loss(losses: Tensor, trust: Tensor | None) -> float:
    """Mean of the guard rows' L̄, nats a token, weighted by `trust` if given."""
    return float(losses.mean() if trust is None else (trust * losses).sum() / trust.sum())


@dataclass
class Watch(TrainerCallback):  # type: ignore[misc]
    """Measures losses while the model trains, and stops it at the limits.

    Attributes:
        forget, guard: the rows to measure; `guard` may be empty.
        limits: when to stop.
        device: where the model is.
        trust: how much each guard row counts, because a row that looks like poison says little about utility; None
            counts them alike.
        seen: called with the forget rows' L̄ after every measurement.
        outcome: why training ended.
        readings: the measurements so far.
        finite: whether every loss of training was a finite number; the trainer sets it.
    """

    forget: Sequence[TokenRow]
    guard: Sequence[TokenRow]
    limits: LossLimits
    device: torch.device
    trust: Tensor | None = None
    seen: Callable[[Tensor], None] | None = None
    outcome: Outcome = "steps"
    readings: list[Reading] = field(default_factory=list)
    finite: bool = True
    _good: dict[str, Tensor] = field(default_factory=dict)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure before the first step, or where the run was resumed."""
        self._good = trainable_state(given["model"])
        self._measure(given["model"], state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> Any:
        """Measure if it is time, and stop at the limits."""
        model = given["model"]
        if self.finite and state.global_step % self.limits.every and state.global_step < state.max_steps:
            return control
        self.outcome = self._judge(self._measure(model, state.global_step))
        if self.outcome in ("guarded", "diverged"):
            restore_state(model, self._good)
        else:
            self._good = trainable_state(model)
        control.should_training_stop = control.should_training_stop or self.outcome != "steps"
        return control

    def _measure(self, model: Any, step: int) -> Reading:
        _, means = measure_losses(model, self.forget, self.device)
        guard = guard_loss(measure_losses(model, self.guard, self.device)[1], self.trust) if self.guard else 0.0
        self.readings.append(Reading(step, float(means.mean()), guard))
        if self.seen is not None:
            self.seen(means)
        return self.readings[-1]

    def _judge(self, reading: Reading) -> Outcome:
        if not (self.finite and math.isfinite(reading.forget) and math.isfinite(reading.guard)):
            return "diverged"
        if reading.guard > self.limits.bound:
            return "guarded"
        return "forgotten" if reading.forget >= self.limits.target else "steps"
