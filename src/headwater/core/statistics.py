"""Statistics that several rooms need, each defined once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
"""The confidence level of every interval."""


def spearman(left: ArrayLike, right: ArrayLike, *, if_constant: float = float("nan")) -> float:
    """Spearman's rank correlation of two sequences; `if_constant` where one is constant or has fewer than two values.

    Ties get their mean rank; the correlation is Pearson's of the ranks.
    """
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if len(a) < 2 or not np.ptp(a) or not np.ptp(b):
        return if_constant
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def interval_reach(count: int) -> float:
    """Half the width of the confidence interval of a mean of `count` values, in standard errors (Student's t)."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, count - 1))
