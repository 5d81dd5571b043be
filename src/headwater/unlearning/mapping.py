"""From influence scores to training weights (RapidUn).

    z = (S − median S) / max(1.4826 MAD(S), floor)          w = exp(clip(z / τ, ln low, ln high))

then scaled to mean one within the group. Monotone in S, and the same for S + a and for c S (c > 0).

Two defects of the published order are kept under `compat=True` alone: its floor is an absolute 1e-3, which for scores
of smaller scale flattens and for a MAD of zero clips everything; and it divides by the mean *after* clipping, which
leaves the bounds. By default the floor is relative to the scores' standard deviation, and the scale c is sought for
which clip(c · exp(z/τ), low, high) has mean one: bounds and mean both hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from headwater.core.errors import NumericError, UsageError

NORMAL_MAD = 1.4826
"""1 / Φ⁻¹(3/4): the factor that makes the median absolute deviation of a normal sample its standard deviation."""
COMPAT_FLOOR = 1e-3


@dataclass(frozen=True)
class Mapping:
    """How scores become weights.

    Attributes:
        tau: temperature; larger is flatter. Published: 0.7 for forget rows, 1.2 for retain rows.
        low, high: bounds of a weight, below and above 1.
        floor: least scale of z, as a share of the scores' standard deviation (under `compat`: 1e-3, absolute).
        compat: the published order: clip, then divide by the mean.
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
    """Weights of one group `[rows]` with their z, and how they came out.

    Attributes:
        z: robust z-scores.
        weights: mean 1.
        at_low, at_high: rows the clip held at either bound.
        scale: what S was divided by.
    """

    z: NDArray[np.float64]
    weights: NDArray[np.float64]
    at_low: int
    at_high: int
    scale: float

    @property
    def effective_rows(self) -> float:
        """(Σw)² / Σw²: how many rows of equal weight these amount to."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())


def map_scores(scores: NDArray[np.float64], mapping: Mapping) -> Mapped:
    """Weights of a group's scores `[rows]`; all 1 where all scores are equal.

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
    """The ln c for which the mean of exp(clip(raw + ln c, low, high)) is one; exists as low < 0 < high."""

    def excess(shift: float) -> float:
        return float(np.exp(np.clip(raw + shift, low, high)).mean()) - 1

    return float(brentq(excess, low - raw.max(), high - raw.min(), xtol=1e-14))
