"""The methods of unlearning, as values. Callers ask what a method can do and needs, never for its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from headwater.unlearning.adapter import trainable_state
from headwater.unlearning.capabilities import Apply, Stroke, UnlearningMethod
from headwater.unlearning.fisher import ALPHAS, dampen, fisher_diagonal
from headwater.unlearning.objectives import one_of
from headwater.unlearning.strength import FACTORS, subtract
from headwater.unlearning.targets import Run


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


METHODS: Mapping[str, UnlearningMethod] = {
    m.name: m
    for m in (
        UnlearningMethod("rapidun", "ascent and retain rows, both weighted by influence"),
        UnlearningMethod("ga", "ascent alone; retain rows count only while the bound is violated", needs_retain=False),
        UnlearningMethod("graddiff", "ascent and retain rows"),
        UnlearningMethod("npo", "negative preference: ascent that fades away from the model before"),
        UnlearningMethod("simnpo", "the same by the mean loss, without the model before"),
        UnlearningMethod("loreun", "ascent with more weight on rows of low loss"),
        UnlearningMethod("wga", "ascent with less weight on tokens that have become unlikely"),
        UnlearningMethod("dpo", "preference of the right answer, or of a refusal, over the unwanted one"),
        UnlearningMethod("rmu", "hidden states of forget rows are steered to a random direction"),
        UnlearningMethod("taskvector", "learns the forget rows and subtracts that", stroke=Stroke(FACTORS, _negation)),
        UnlearningMethod(
            "fisher", "dampens weights that matter to forget rows", trains=False, stroke=Stroke(ALPHAS, _fisher)
        ),
        UnlearningMethod("retrain", "trains the base model on the retain rows", from_base=True),
    )
}
"""Every method that `headwater unlearn --method` accepts."""


def find_unlearning(name: str) -> UnlearningMethod:
    """The method called `name`; raises `UsageError` for an unknown one and suggests the nearest."""
    return METHODS[one_of("method", name, METHODS)]
