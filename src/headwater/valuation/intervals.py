"""Values with intervals, from scores on a target's parts.

    value = Σ_p w_p s_p,   w_p = rows of part p / rows of the target
    error² = Σ_p w_p (s_p − value)² / (parts − 1)        with equal parts: sd / √parts

The interval is value ± t·error with Student's t at 95 % and parts − 1 degrees of freedom: what would change had the
target's rows been others of their kind. It does not cover what first order leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from headwater.core.statistics import interval_reach


def intervals(
    scores: Float[np.ndarray, "rows parts"], targets: Sequence[str], weights: Sequence[int]
) -> Float[np.ndarray, "rows targets 3"]:
    """Value, low and high of every row on every target, in order of first appearance; NaN ends for a single part.

    Args:
        scores: one column a part.
        targets: the target each part belongs to.
        weights: rows each part stands for.
    """
    names = list(dict.fromkeys(targets))
    found = np.full((len(scores), len(names), 3), np.nan)
    for place, name in enumerate(names):
        own = [i for i, target in enumerate(targets) if target == name]
        share = np.array([weights[i] for i in own], dtype=np.float64)
        share /= share.sum()
        parts = scores[:, own].astype(np.float64)
        value = parts @ share
        found[:, place, 0] = value
        if len(own) > 1:
            error = np.sqrt((parts - value[:, None]) ** 2 @ share / (len(own) - 1))
            reach = error * interval_reach(len(own))
            found[:, place, 1], found[:, place, 2] = value - reach, value + reach
    return found


def over_targets(estimates: Float[np.ndarray, "rows targets 3"]) -> Float[np.ndarray, "rows 3"]:
    """The mean over targets, each counted alike; errors of different targets are taken as independent."""
    value = estimates[:, :, 0].mean(axis=1)
    reach = np.sqrt(((estimates[:, :, 2] - estimates[:, :, 0]) ** 2).sum(axis=1)) / estimates.shape[1]
    return np.stack([value, value - reach, value + reach], axis=1)
