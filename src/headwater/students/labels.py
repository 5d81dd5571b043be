"""Labels for a student: winsorised, standardised, and split into a train part and a held-out part.

clip(y, 1 %, 99 %) → (y − mean) / sd        bounds, mean and sd of the TRAIN split alone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headwater.core.errors import DataError, NumericError
from headwater.core.seeds import key
from headwater.core.statistics import spearman
from headwater.data.rows import Row

WINSOR = 0.01
HELD_OUT = 0.1
HELD_OUT_FEWEST = 19
"""With fewer held-out labels there is no interval that holds in 95 of 100 cases."""
FEWEST = 20
"""A student needs at least so many labelled rows."""


@dataclass(frozen=True)
class Scale:
    """How labels were standardised."""

    low: float
    high: float
    mean: float
    sd: float

    @classmethod
    def of(cls, labels: NDArray[np.float64]) -> Scale:
        """The scale of the train split's labels; raises `DataError` if they are all equal."""
        low, high = np.quantile(labels, [WINSOR, 1 - WINSOR])
        clipped = np.clip(labels, low, high)
        if not clipped.std() > 1e-12 * max(abs(float(clipped.mean())), 1e-300):
            what = f"the teacher gave all {len(labels):,} rows the same score, {labels[0]:g}"
            raise DataError(what, where="labels", remedy="choose another teacher, target or pool")
        return cls(float(low), float(high), float(clipped.mean()), float(clipped.std()))

    def apply(self, labels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Labels in the standardised form that the student learns."""
        scaled: NDArray[np.float64] = (np.clip(labels, self.low, self.high) - self.mean) / self.sd
        return scaled

    def undo(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predictions in the teacher's units."""
        labels: NDArray[np.float64] = scaled * self.sd + self.mean
        return labels


@dataclass(frozen=True)
class Lesson:
    """Labelled rows, split in two.

    Attributes:
        rows: all labelled rows.
        labels: float64 `[rows]`, standardised with `scale`.
        train: positions of the rows that the student is trained on.
        held_out: positions of the rows that measure it.
        scale: how the labels were standardised, on the train split.
    """

    rows: tuple[Row, ...]
    labels: NDArray[np.float64]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    scale: Scale

    @classmethod
    def of(cls, rows: Sequence[Row], labels: NDArray[np.float64], *, seed: int, random: int | None = None) -> Lesson:
        """Split labelled rows; some are held out, drawn by seed and row id.

        A tenth is held out, but at least 19 rows, as many as an interval needs, up to a quarter of the rows. They are
        among the first `random` rows, because rows that were chosen for a reason tell nothing of the pool.

        Raises:
            DataError: there are too few rows, or the labels are all equal.
            NumericError: a label is not finite.
        """
        if len(rows) < FEWEST:
            remedy = "label more rows (--set labels=...), or value with the teacher's method itself"
            raise DataError(f"{len(rows)} labelled rows; a student needs {FEWEST}", where="labels", remedy=remedy)
        bad = np.flatnonzero(~np.isfinite(labels))
        if len(bad):
            raise NumericError(f"label {labels[bad[0]]}", where=f"row '{rows[int(bad[0])].id}'")
        sampled = len(rows) if random is None else random
        order = np.argsort([key(seed, "held out", row.id) for row in rows[:sampled]], kind="stable")
        count = max(round(HELD_OUT * len(rows)), min(HELD_OUT_FEWEST, len(rows) // 4))
        held_out = np.sort(order[:count])
        train = np.setdiff1d(np.arange(len(rows)), held_out)
        scale = Scale.of(labels[train])
        return cls(tuple(rows), scale.apply(labels), train, held_out, scale)

    def rows_at(self, places: NDArray[np.int64]) -> list[Row]:
        """The rows at these positions."""
        return [self.rows[i] for i in places]

    def held_out_agreement(self, predicted: NDArray[np.float64]) -> float:
        """The Spearman correlation of predictions for the held-out rows with their labels."""
        return spearman(predicted, self.labels[self.held_out], if_constant=0.0)
