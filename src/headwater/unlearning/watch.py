"""When to stop: the poison is forgotten, utility suffers, or training diverges; the last good state is kept.

The forget rows are forgotten once their loss is that of unseen rows: driving it further only does damage. Utility is
the loss of retain rows that are not trained on. Both are measured every few steps on all such rows, with dropout off.
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
"""The target was reached; utility would have fallen below its bound; the loss was no number; the steps ran out."""


@dataclass(frozen=True)
class LossLimits:
    """Where training ends.

    Attributes:
        target: nats a token; forgotten when the forget rows' mean loss is at least this. Infinite: never.
        bound: nats a token; the guard rows' mean loss may not pass it. Infinite: no guard.
        every: steps between two looks.
    """

    target: float
    bound: float
    every: int = 5


@dataclass(frozen=True)
class Reading:
    """One look: mean losses in nats a token; `guard` is 0 where there are no guard rows."""

    step: int
    forget: float
    guard: float


def guard_loss(losses: Tensor, trust: Tensor | None) -> float:
    """Mean of the guard rows' L̄, nats a token, each counted by how far it is trusted."""
    return float(losses.mean() if trust is None else (trust * losses).sum() / trust.sum())


@dataclass
class Watch(TrainerCallback):  # type: ignore[misc]
    """Looks at the model as it trains; `outcome` says why training ended, `readings` what was seen.

    Attributes:
        forget, guard: the rows looked at; `guard` may be empty.
        limits: where to stop.
        trust: how much each guard row counts; None: alike. A row that looks like poison says little about utility.
        seen: called with the forget rows' L̄ after every look.
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
        """The first look, at the model before or as it was resumed."""
        self._good = trainable_state(given["model"])
        self._look(given["model"], state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> Any:
        """Look if it is time, and stop if there is reason to."""
        model = given["model"]
        if self.finite and state.global_step % self.limits.every and state.global_step < state.max_steps:
            return control
        self.outcome = self._judge(self._look(model, state.global_step))
        if self.outcome in ("guarded", "diverged"):
            restore_state(model, self._good)
        else:
            self._good = trainable_state(model)
        control.should_training_stop = control.should_training_stop or self.outcome != "steps"
        return control

    def _look(self, model: Any, step: int) -> Reading:
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
