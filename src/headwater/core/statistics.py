"""Statistics that several rooms need, each defined once."""

from __future__ import annotations

from functools import cache

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


def mean_interval(values: ArrayLike) -> tuple[float, float]:
    """The 95 % interval of the mean by Student's t; NaN, NaN of fewer than two values, which say nothing of the spread.

    The values are taken to be independent draws. Of normal values it holds at any number; of skewed ones, few of them,
    it holds less often: `tests/core/test_statistics.py` measures how much.
    """
    given = np.asarray(values, dtype=np.float64)
    if len(given) < 2:
        return float("nan"), float("nan")
    mean, half = float(given.mean()), interval_reach(len(given)) * float(given.std(ddof=1)) / float(np.sqrt(len(given)))
    return mean - half, mean + half


def crossed_interval(values: ArrayLike) -> tuple[float, float]:
    """The 95 % interval of the mean of a table `[models, queries]`, for other models and other queries of the kind.

    All queries are measured on the same models (or draws), so the cells of a row share that model's noise, and those of
    a column their query's difficulty. In the model x(m, q) = μ + a(m) + b(q) + e(m, q) the mean of M · N cells has

        Var = (S_models + S_queries − S_rest) / (M · N),        S: the mean squares of the analysis of variance

    never taken below either of the first two, with Student's t at the degrees of freedom of Satterthwaite. A table of
    one row, or of one column, is `mean_interval` of the other side.
    """
    table = np.asarray(values, dtype=np.float64)
    models, queries = table.shape
    if models == 1 or queries == 1:
        return mean_interval(table.ravel())
    mean, by_model, by_query = table.mean(), table.mean(axis=1), table.mean(axis=0)
    rest = table - by_model[:, None] - by_query + mean
    of_models, of_queries = queries * by_model.var(ddof=1), models * by_query.var(ddof=1)
    of_rest = (rest**2).sum() / ((models - 1) * (queries - 1))
    total = max(of_models + of_queries - of_rest, of_models, of_queries)
    if not total:
        return float(mean), float(mean)
    freedom = total**2 / (of_models**2 / (models - 1) + of_queries**2 / (queries - 1))
    half = _reach(min(float(freedom), models * queries - 1.0)) * float(np.sqrt(total / table.size))
    return float(mean) - half, float(mean) + half


def conformal_reach(misses: ArrayLike) -> float:
    """The reach q such that a fresh miss is at most q in 95 of 100 cases; NaN if there are too few to say so.

    Of n misses it is the ⌈0.95 (n + 1)⌉-th smallest, so n must be 19 or more (split-conformal prediction).
    """
    ordered = np.sort(np.asarray(misses, dtype=np.float64))
    place = int(np.ceil(LEVEL * (len(ordered) + 1) - 1e-9))
    return float(ordered[place - 1]) if place <= len(ordered) else float("nan")


@cache
def interval_reach(count: int) -> float:
    """Half the width of the confidence interval of a mean of `count` values, in standard errors (Student's t)."""
    return _reach(float(count - 1))


def _reach(freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))
