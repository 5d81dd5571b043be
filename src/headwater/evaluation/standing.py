"""Who stands where in a table: methods are compared in pairs, on the same queries and the same retrained models.

Two intervals that overlap do not say that two methods are level, because both methods met the same hard queries and the
same noisy models. So the difference is taken value by value, and its own interval decides:

    place(method) = 1 + the number of methods that are better, by an interval of the difference that leaves 0 out,
                    and never less than the place of the method above

Methods of one place are *level*. Neighbours are tested as well, so a reader sees whether each step of the table is
real. Each comparison is at 95 %: of twenty true ties one is called a difference.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from headwater.evaluation.metrics import Estimate, estimate, fixed
from headwater.evaluation.result import Line, Result


@dataclass(frozen=True)
class Standing:
    """A line and its standing in its table.

    Attributes:
        line: the method's line.
        place: 1 + the number of methods that are certainly better.
        level: whether another method has the same place.
        step: this line's value minus that of the line above, with its interval; None for the first.
    """

    line: Line
    place: int
    level: bool
    step: Estimate | None

    @property
    def place_text(self) -> str:
        """`3`, or `3=` if another method has the same place."""
        return f"{self.place}{'=' if self.level else ''}"

    @property
    def step_text(self) -> str:
        """`level`, or the difference to the line above."""
        if self.step is None:
            return ""
        return str(self.step) if certain(self.step) else "level"


def standings(result: Result, group: str = "", metric: str | None = None) -> list[Standing]:
    """The lines of a group that have the metric (by default the first shown), the highest value first."""
    name = metric or result.shown[0]
    lines = [line for line in result.lines if line.group == group and name in line.metrics]
    lines.sort(key=lambda line: -line.metrics[name].value)
    counted = [1 + sum(certain(difference(better, line, name)) for better in lines[:i]) for i, line in enumerate(lines)]
    places = list(itertools.accumulate(counted, max))  # a noisy method is not placed before one with a higher value
    steps = [None, *(difference(lower, upper, name) for upper, lower in itertools.pairwise(lines))]
    return [
        Standing(line, place, places.count(place) > 1, step)
        for line, place, step in zip(lines, places, steps, strict=True)
    ]


def difference(left: Line, right: Line, metric: str) -> Estimate:
    """The left value minus the right one, with the interval of the paired difference.

    If the lines do not hold values of the same queries and models, the interval is that of unpaired means. Numbers
    without an interval (counts, single values) have a difference without one.
    """
    mine, other = (np.asarray(line.samples.get(metric, ()), dtype=np.float64) for line in (left, right))
    one, two = left.metrics[metric], right.metrics[metric]
    value = one.value - two.value
    if mine.size > 1 and mine.shape == other.shape:
        found = estimate(mine - other)
        if found.low is not None and found.high is not None:  # the values may be those of a jackknife: keep the half
            half = (found.high - found.low) / 2
            return Estimate(value, value - half, value + half)
    if one.low is None or one.high is None or two.low is None or two.high is None:
        return fixed(value)
    half = float(np.hypot(one.high - one.low, two.high - two.low)) / 2
    return Estimate(value, value - half, value + half)


def certain(found: Estimate) -> bool:
    """Whether the interval leaves 0 out; a number without an interval is certain unless it is 0."""
    if found.low is None or found.high is None:
        return found.value != 0
    return found.low > 0 or found.high < 0
