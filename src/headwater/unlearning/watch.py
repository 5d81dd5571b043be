"""Measure a run while it trains: is the behaviour gone, is the bound kept, and which state is the best so far?

Part of the forget rows is withheld from training. Their loss, and the model's answers to their prompts, say whether
the behaviour is gone: the loss of the rows that are pushed up says nothing about it. Utility is measured by the loss of
guard rows, which are not trained on either. The weight of the retain term follows the bound (`constraint`), and the
state that a run ends in is the best one within the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import TrainerCallback

from headwater.data.tokens import TokenRow
from headwater.unlearning.adapter import restore_state, trainable_state
from headwater.unlearning.constraint import AIM, Multiplier, guard_loss, standard_error
from headwater.unlearning.sequences import measure_losses

Outcome = Literal["forgotten", "bound", "diverged", "steps"]
"""The target was reached; the bound was what kept it from being reached; the loss was not a number; steps ran out."""
CONFIRMED = 2
"""Measurements in a row that must find the target reached."""
FLUENT_AIM = 0.95
"""Share of the fluent answers of before that must be left for a run to end: it lies halfway to the share below which
a run has failed (`language.FLUENT`), because few prompts are asked."""
PATIENCE = 16
"""A run also ends if in so many measurements with the behaviour gone its answers have not become more fluent."""
BEYOND = 5
"""A run also ends if the behaviour was gone in so many measurements in a row, and the bound kept in none of them; then
it is drawn back (`strength.draw_back`)."""
FAR = 0.25
"""While the withheld rows' loss has gone less than this share of the way to the target, and the guard rows' loss less
than halfway to the bound, a run measures less often, because a measurement costs more than five steps."""
STATE = "watch.pt"


@dataclass(frozen=True)
class LossLimits:
    """What a run aims at, and what it may not pass.

    Attributes:
        target: nats a token; the behaviour counts as gone when the withheld rows' loss is at least this and the
            model's answers to their prompts are not unwanted. Infinite: never.
        bound: nats a token; the guard rows' mean loss may not be above this. Infinite: no bound.
        every: steps between two measurements.
        seldom: so many times more steps while both are far (`Reading.far`); 1 for a probe, whose rate grows.
    """

    target: float
    bound: float
    every: int = 5
    seldom: int = 4


@dataclass(frozen=True)
class Reading:
    """One measurement.

    Attributes:
        step: steps taken.
        forget, guard: mean losses of known forget rows and of guard rows, nats a token; `guard` is 0 without rows.
        withheld: mean loss of the withheld forget rows; None if none are withheld.
        error: standard error of the guard rows' mean change.
        unwanted: share of unwanted answers to the withheld rows' prompts; None if they were not asked.
        fluent: fluent answers to the prompts of withheld rows and of guard rows behind triggers, as a share of those
            before; measured where the behaviour is gone within the bound, else None.
        multiplier: λ after the measurement; None without one.
    """

    step: int
    forget: float
    guard: float
    withheld: float | None = None
    error: float = 0.0
    unwanted: float | None = None
    multiplier: float | None = None
    fluent: float | None = None

    @property
    def finite(self) -> bool:
        """Whether every loss is a finite number."""
        return all(math.isfinite(x) for x in (self.forget, self.guard, self.withheld or 0.0))

    def reaches(self, limits: LossLimits) -> bool:
        """Whether withheld rows say that the behaviour is gone; without withheld rows nothing says so."""
        return self.withheld is not None and self.withheld >= limits.target and not self.unwanted

    def ends(self, limits: LossLimits) -> bool:
        """Whether the run may end here: the behaviour is gone within the bound, and the answers are still language."""
        return self.reaches(limits) and self.keeps(limits) and (self.fluent is None or self.fluent >= FLUENT_AIM)

    def keeps(self, limits: LossLimits) -> bool:
        """Whether the guard rows' loss, with its standard error added, is within the bound."""
        return self.finite and self.upper <= limits.bound

    def far(self, first: Reading, limits: LossLimits) -> bool:
        """Whether both the target and the bound are still far, seen from the first measurement of the run."""
        if self.withheld is None or first.withheld is None or not (self.finite and math.isfinite(limits.target)):
            return False
        slack = limits.bound - first.guard
        calm = not math.isfinite(slack) or self.upper - first.guard < AIM * slack
        return calm and self.withheld - first.withheld < FAR * (limits.target - first.withheld)

    @property
    def upper(self) -> float:
        """The guard rows' loss with its standard error added, where there is one."""
        return self.guard + (self.error if math.isfinite(self.error) else 0.0)

    def rank(self, limits: LossLimits) -> tuple[float, float, float, float, float]:
        """How good a state within the bound is; larger is better.

        The fewest unwanted answers come first, then whether the behaviour is gone, then fluent answers, then losses of
        forget rows up to the target (more counts for nothing), then the least loss of guard rows.
        """
        rows = [self.forget if self.withheld is None else self.withheld, self.forget]
        top = limits.target if math.isfinite(limits.target) else max(*rows, 1.0)
        gone = sum(min(loss / top, 1.0) for loss in rows)
        fluent = 1.0 if self.fluent is None else min(self.fluent, 1.0)
        return -(self.unwanted or 0.0), float(self.reaches(limits)), fluent, round(gone, 3), -self.guard


@dataclass
class Watch(TrainerCallback):  # type: ignore[misc]
    """Measures a model while it trains, moves λ, keeps the best state, and ends the run when the behaviour is gone.

    Attributes:
        forget, withheld, guard: the rows to measure; `withheld` and `guard` may be empty.
        limits: what to reach and what to keep.
        device: where the model is.
        trust: how much each guard row counts, because a row that looks like poison says little about utility; None
            counts them alike.
        multiplier: λ; None leaves the retain term as it is.
        ask: gives the share of unwanted answers of a model to the withheld rows' prompts; None asks nothing.
        listen: gives the fluent answers of a model as a share of those before; None measures none.
        stop: end the run at the first violation of the bound, as earlier versions did (`--stop`).
        seen: called with the forget rows' L̄ after every measurement.
        outcome: why training ended.
        readings: the measurements so far.
        finite: whether every loss of training was a finite number; the trainer sets it.
        best: the reading of the best state within the bound.
        gone: the last state in which the behaviour was gone, within the bound or not; empty if it never was.
    """

    forget: Sequence[TokenRow]
    guard: Sequence[TokenRow]
    limits: LossLimits
    device: torch.device
    trust: Tensor | None = None
    withheld: Sequence[TokenRow] = ()
    multiplier: Multiplier | None = None
    ask: Callable[[Any], float] | None = None
    listen: Callable[[Any], float] | None = None
    stop: bool = False
    seen: Callable[[Tensor], None] | None = None
    outcome: Outcome = "steps"
    readings: list[Reading] = field(default_factory=list)
    finite: bool = True
    best: Reading | None = None
    gone: dict[str, Tensor] = field(default_factory=dict)
    _state: dict[str, Tensor] = field(default_factory=dict)
    _before: Tensor | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure before the first step; a resumed run takes over what was measured before."""
        kept = Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE
        if state.global_step and kept.is_file():
            self._load(kept)
        else:
            self.look(given["model"], state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> Any:
        """Measure if it is time; end the run if the behaviour is gone, or if the loss is no longer a number."""
        if self.finite and state.global_step % self._interval() and state.global_step < state.max_steps:
            return control
        ended = self.look(given["model"], state.global_step)
        control.should_training_stop = control.should_training_stop or ended
        return control

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Put the best state back."""
        self.finish(given["model"])

    def look(self, model: Any, step: int) -> bool:
        """Measure, keep the state if it is the best within the bound, and say whether the run should end."""
        reading = self._measure(model, step)
        better = self.best is None or reading.rank(self.limits) >= self.best.rank(self.limits)
        best = self.best is None or (self.finite and reading.keeps(self.limits) and better)
        gone = reading.finite and reading.reaches(self.limits)
        state = trainable_state(model) if best or gone else {}
        if best:
            self.best, self._state = reading, state
        if gone:
            self.gone = state
        if not (self.finite and reading.finite):
            self.outcome = "diverged"
        elif self.stop and not reading.keeps(self.limits):
            self.outcome = "bound"
        elif self.reached or self._settled():
            self.outcome = "forgotten"
        return self.outcome != "steps" or self._beyond()

    def _interval(self) -> int:
        """Steps between measurements: more while neither the target nor the bound is near."""
        far = bool(self.readings) and self.readings[-1].far(self.readings[0], self.limits)
        return self.limits.every * self.limits.seldom if far else self.limits.every

    @property
    def reached(self) -> bool:
        """Whether the last measurements found the behaviour gone within the bound, and the answers still language."""
        last = self.readings[-CONFIRMED:]
        return len(last) == CONFIRMED and all(r.ends(self.limits) for r in last)

    def _settled(self) -> bool:
        """Whether the behaviour is gone, and the answers have not become more fluent for a while."""
        heard = [r.fluent for r in self.readings if r.fluent is not None]
        return len(heard) > PATIENCE and max(heard[-PATIENCE:]) <= max(heard[:-PATIENCE])

    def _beyond(self) -> bool:
        """Whether the behaviour has been gone for a while, but never within the bound."""
        last = self.readings[-BEYOND:]
        return len(last) == BEYOND and all(r.reaches(self.limits) and not r.keeps(self.limits) for r in last)

    def finish(self, model: Any) -> None:
        """Put the best state within the bound back, and say what kept the run from its target if it missed it."""
        restore_state(model, self._state)
        if self.outcome == "steps" and self.best is not None:
            if self.best.reaches(self.limits):
                self.outcome = "forgotten"
            elif any(not r.keeps(self.limits) for r in self.readings):
                self.outcome = "bound"

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep what a resumed run needs beside the checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            kept = {"readings": [asdict(r) for r in self.readings], "best": self.best and asdict(self.best)}
            multiplier = None if self.multiplier is None else self.multiplier.value
            torch.save(
                {**kept, "multiplier": multiplier, "state": self._state, "before": self._before, "gone": self.gone},
                folder / STATE,
            )

    def _measure(self, model: Any, step: int) -> Reading:
        _, means = measure_losses(model, self.forget, self.device)
        guard, error = self._guarded(model)
        hidden = means if self.withheld is self.forget else None
        if hidden is None and self.withheld:
            hidden = measure_losses(model, self.withheld, self.device)[1]
        withheld = None if hidden is None else float(hidden.mean())
        unwanted = self.ask(model) if self.ask is not None and math.isfinite(float(means.mean())) else None
        if self.multiplier is not None and step and self.readings and math.isfinite(guard):
            first, last = self.readings[0], self.readings[-1]
            times = max(step - last.step, 1) / self.limits.every
            self.multiplier.follow(guard, before=first.guard, bound=self.limits.bound, times=times)
        value = None if self.multiplier is None else self.multiplier.value
        reading = Reading(step, float(means.mean()), guard, withheld, error, unwanted, value)
        if self.listen is not None and reading.reaches(self.limits) and reading.keeps(self.limits):
            fluent = self.listen(model)
            raised = None if self.multiplier is None else self.multiplier.speak(fluent, aim=FLUENT_AIM)
            reading = replace(reading, fluent=fluent, multiplier=raised)
        self.readings.append(reading)
        if self.seen is not None:
            self.seen(means)
        return self.readings[-1]

    def _guarded(self, model: Any) -> tuple[float, float]:
        """The guard rows' mean loss, and the standard error of its change since the first measurement."""
        if not self.guard:
            return 0.0, 0.0
        losses = measure_losses(model, self.guard, self.device)[1]
        self._before = losses if self._before is None else self._before
        return guard_loss(losses, self.trust), standard_error(losses - self._before, self.trust)

    def _load(self, kept: Path) -> None:
        found = torch.load(kept, weights_only=True)
        self.readings = [Reading(**r) for r in found["readings"]]
        self.best = found["best"] and Reading(**found["best"])
        self._state, self._before, self.gone = found["state"], found["before"], found.get("gone", {})
        if self.multiplier is not None and found["multiplier"] is not None:
            self.multiplier.value = found["multiplier"]
