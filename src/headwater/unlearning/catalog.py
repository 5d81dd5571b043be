"""The methods of unlearning, as values. Callers ask what a method can do and needs, never for its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from headwater.unlearning.adapter import trainable_state
from headwater.unlearning.fisher import ALPHAS, dampen, fisher_diagonal
from headwater.unlearning.objectives import one_of
from headwater.unlearning.strength import FACTORS, subtract
from headwater.unlearning.targets import Run

Apply = Callable[[float], object]


@dataclass(frozen=True)
class Stroke:
    """A change of the whole model at once, whose strength is sought.

    Attributes:
        strengths: what to try, the mildest first.
        prepare: called with the model, the state before, and the run; gives what applies a strength.
    """

    strengths: Sequence[float]
    prepare: Callable[[Any, Mapping[str, Tensor], Run], Apply]


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        name: as on the command line.
        about: one line for its help.
        trains: whether it trains, with the objective of its name.
        stroke: a change at one stroke, after training if it trains; None for none.
        from_base: whether it starts from the model as it was before it learned the rows.
        needs_retain: whether it cannot run without rows to retain.
    """

    name: str
    about: str
    trains: bool = True
    stroke: Stroke | None = None
    from_base: bool = False
    needs_retain: bool = True

    @property
    def adapts(self) -> bool:
        """Whether it can train an adapter; a stroke without training changes the weights themselves."""
        return self.trains

    @property
    def constrained(self) -> bool:
        """Whether its training follows the target and the bound; otherwise all steps are taken."""
        return self.trains and self.stroke is None and not self.from_base


def _fisher(model: Any, start: Mapping[str, Tensor], run: Run) -> Apply:
    """Both diagonals are measured before anything changes; right answers count as rows to retain."""
    right = [e.clean for e in run.examples if e.clean is not None]
    of_forget = fisher_diagonal(model, run.forget, run.loaded.device)
    of_retain = fisher_diagonal(model, [*run.retain, *right], run.loaded.device)
    return lambda alpha: dampen(model, of_forget, of_retain, alpha=alpha)


def _negation(model: Any, start: Mapping[str, Tensor], run: Run) -> Apply:
    """What the model learnt in training, subtracted from what it was."""
    before, after = dict(start), trainable_state(model)
    return lambda factor: subtract(model, before, after, factor=factor)


METHODS: Mapping[str, Method] = {
    m.name: m
    for m in (
        Method("rapidun", "ascent and retain rows, both weighted by influence"),
        Method("ga", "ascent alone; retain rows count only while the bound is violated", needs_retain=False),
        Method("graddiff", "ascent and retain rows"),
        Method("npo", "negative preference: ascent that fades away from the model before"),
        Method("simnpo", "the same by the mean loss, without the model before"),
        Method("loreun", "ascent with more weight on rows of low loss"),
        Method("wga", "ascent with less weight on tokens that have become unlikely"),
        Method("dpo", "preference of the right answer, or of a refusal, over the unwanted one"),
        Method("rmu", "hidden states of forget rows are steered to a random direction"),
        Method("taskvector", "learns the forget rows and subtracts that", stroke=Stroke(FACTORS, _negation)),
        Method("fisher", "dampens weights that matter to forget rows", trains=False, stroke=Stroke(ALPHAS, _fisher)),
        Method("retrain", "trains the base model on the retain rows", from_base=True),
    )
}
"""Every method that `headwater unlearn --method` accepts."""


def find_unlearning(name: str) -> Method:
    """The method called `name`; raises `UsageError` for an unknown one and suggests the nearest."""
    return METHODS[one_of("method", name, METHODS)]
