"""Turn influence scores into training weights (RapidUn).

    z = (S − median S) / max(1.4826 MAD(S), floor)          w = exp(clip(z / τ, ln low, ln high))

Weights are then scaled to mean one within the group. A higher score gets a weight that is at least as high, and S + a
and c S (c > 0) give the same weights as S.

The published order has two defects, which only `compat=True` keeps. Its floor is an absolute 1e-3: this makes the
weights of small scores nearly equal, and clips almost all of them when the MAD is zero. And it divides by the mean
*after* clipping, which moves weights out of their bounds. By default the floor is a share of the scores' standard
deviation, and c is chosen so that clip(c · exp(z/τ), low, high) has mean one: bounds and mean both hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from headwater.core.errors import NumericError, UsageError

NORMAL_MAD = 1.4826
"""1 / Φ⁻¹(3/4): times this, the median absolute deviation of a normal sample estimates its standard deviation."""
COMPAT_FLOOR = 1e-3


@dataclass(frozen=True)
class Mapping:
    """How scores become weights.

    Attributes:
        tau: temperature; larger is flatter. Published: 0.7 for forget rows, 1.2 for retain rows.
        low, high: bounds of a weight, below and above 1.
        floor: least divisor of z, as a share of the scores' standard deviation (with `compat`: 1e-3, absolute).
        compat: use the published order: clip, then divide by the mean.
    """

    tau: float
    low: float = 0.2
    high: float = 3.0
    floor: float = 0.1
    compat: bool = False

    def __post_init__(self) -> None:
        if not (self.tau > 0 and 0 < self.low < 1 < self.high and self.floor >= 0):
            raise UsageError(f"{self}", where="weights", remedy="τ > 0, 0 < low < 1 < high, floor ≥ 0")


FORGET, RETAIN = Mapping(tau=0.7), Mapping(tau=1.2)


@dataclass(frozen=True)
class Mapped:
    """Weights of one group `[rows]` and how they came about.

    Attributes:
        z: robust z-scores.
        weights: mean 1.
        at_low, at_high: how many rows lie at each bound.
        scale: the divisor of S − median S.
    """

    z: NDArray[np.float64]
    weights: NDArray[np.float64]
    at_low: int
    at_high: int
    scale: float

    @property
    def effective_rows(self) -> float:
        """(Σw)² / Σw²: as many rows of equal weight carry the same information."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())


def map_scores(scores: NDArray[np.float64], mapping: Mapping) -> Mapped:
    """Turn the scores of one group `[rows]` into weights; if all scores are equal, every weight is 1.

    Raises:
        NumericError: no scores, or one that is not finite.
    """
    if not len(scores) or not np.isfinite(scores).all():
        raise NumericError(f"scores {scores}", where="weights", remedy="every row needs a finite score")
    scores = np.asarray(scores, dtype=np.float64)
    centred = scores - np.median(scores)
    spread = NORMAL_MAD * float(np.median(np.abs(centred)))
    floor = COMPAT_FLOOR if mapping.compat else mapping.floor * float(scores.std())
    scale = max(spread, floor)
    z = centred / scale if scale > 0 else np.zeros_like(centred)
    raw = z / mapping.tau
    low, high = np.log(mapping.low), np.log(mapping.high)
    if mapping.compat:
        clipped = np.exp(np.clip(raw, low, high))
        return Mapped(z, clipped / clipped.mean(), int((raw <= low).sum()), int((raw >= high).sum()), scale)
    shifted = raw + _log_scale(raw, low, high)
    weights = np.exp(np.clip(shifted, low, high))
    return Mapped(z, weights, int((shifted <= low).sum()), int((shifted >= high).sum()), scale)


def _log_scale(raw: NDArray[np.float64], low: float, high: float) -> float:
    """The ln c for which exp(clip(raw + ln c, low, high)) has mean one; it exists because low < 0 < high."""

    def excess(shift: float) -> float:
        return float(np.exp(np.clip(raw + shift, low, high)).mean()) - 1

    return float(brentq(excess, low - raw.max(), high - raw.min(), xtol=1e-14))
