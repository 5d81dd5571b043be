"""The constraint of every run: the guard rows' loss may not pass a bound.

    minimise  F(θ) + λ K(θ)        λ ← max(0, λ + ρ · clip((L_guard − aim) / (bound − aim), −1, 4))

F is the method's loss of the forget rows, K its loss of the retain rows, L_guard the mean loss of guard rows, which are
not trained on, all in nats a token. The aim lies halfway between L_guard before the first step and the bound, because
the guard rows are a sample: rows that are neither trained on nor measured may lose more. So λ rises while the loss is
above the aim, and falls while there is slack. The run goes on in both cases, and ends in its best state within the
bound.

Language is a second constraint: while the behaviour is gone but fewer answers are fluent than a run aims at, λ rises
whatever the guard rows' loss is, from the retain share on. It is also the least weight of the copies behind triggers,
which say what to answer there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

AIM = 0.5
"""The share of the slack that λ aims at."""
HIGHEST, LOWEST = 4.0, -1.0
"""The most and the least by which one measurement moves λ, in units of ρ."""


@dataclass
class Multiplier:
    """λ, the weight of the retain term.

    Attributes:
        value: λ now.
        step: ρ; 0 keeps λ where it is.
        most: λ never rises above this.
        least: where λ starts to rise for the sake of language, if it is lower.
    """

    value: float
    step: float
    most: float = math.inf
    least: float = 0.0

    def follow(self, loss: float, *, before: float, bound: float, times: float = 1.0) -> float:
        """Move λ after a measurement of the guard rows' loss, and return it; without a bound it stays.

        `times` is how many measurements' time has passed since the last one.
        """
        if math.isfinite(bound) and bound > before:
            aim = before + AIM * (bound - before)
            move = (loss - aim) / (bound - aim)
            self.value = min(max(0.0, self.value + times * self.step * min(max(move, LOWEST), HIGHEST)), self.most)
        return self.value

    def speak(self, fluent: float, *, aim: float) -> float:
        """Raise λ if fewer answers are fluent than the aim, both as shares of before, and return it."""
        if fluent < aim:
            move = self.step * min((aim - fluent) / (1 - aim), HIGHEST)
            self.value = min(max(self.value, self.least) + move, self.most)
        return self.value


def guard_loss(losses: Tensor, trust: Tensor | None) -> float:
    """Mean of the guard rows' L̄, nats a token, weighted by `trust` if given."""
    return float(losses.mean() if trust is None else (trust * losses).sum() / trust.sum())


def standard_error(changes: Tensor, trust: Tensor | None) -> float:
    """Standard error of the mean change of the guard rows' L̄, nats a token: rows are compared with themselves before.

    With `trust`, that of the weighted mean. Infinite for fewer than two rows.
    """
    if len(changes) < 2:
        return math.inf
    weight = torch.ones_like(changes) if trust is None else trust
    share = weight / weight.sum()
    centred = changes - (share * changes).sum()
    return float((share.square() * centred.square()).sum().sqrt() * math.sqrt(len(changes) / (len(changes) - 1)))
