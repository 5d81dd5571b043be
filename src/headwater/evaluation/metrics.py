"""Detection metrics: how well scores put the planted rows first.

The papers' metric (RapidIn, section 4.3; RISE, section 5) takes, for each query, the K highest and the K lowest scored
rows and computes average precision (auPRC@K) and area under the ROC curve (auROC@K) on those 2K rows. It can be high
although few positives are found, so P@K, R@K and the two areas over the full pool are always computed too. Every number
is a mean over queries with Student's interval over queries.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray

from headwater.core.errors import DataError, NumericError, UsageError
from headwater.core.scores import Scores
from headwater.core.statistics import crossed_interval

DEFAULT_KS = (5, 10, 50)
_CHANCE = 0.5

SHARE = (0.0, 1.0)
"""Between these are all metrics of detection."""


@dataclass(frozen=True)
class Estimate:
    """A mean over queries, seeds or models and its 95 % interval; a single value has none."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return f"{self.value:.3f}" if self.low is None else f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def detection_metrics(
    scores: Scores, positives: Mapping[str, Collection[str]], ks: Sequence[int] = DEFAULT_KS
) -> dict[str, Estimate]:
    """Every metric of `detection_values`: its mean over queries with an interval."""
    values = detection_values(scores, positives, ks)
    return {name: estimate(per_query, within=SHARE) for name, per_query in values.items()}


def detection_values(
    scores: Scores, positives: Mapping[str, Collection[str]], ks: Sequence[int] = DEFAULT_KS
) -> dict[str, NDArray[np.float64]]:
    """Each metric of each query, in the order of `scores.queries`.

    Args:
        scores: positive means proponent; ties in rank keep row order, ties in an area count half.
        positives: query id to the ids of the rows that should rank first.
        ks: sizes of the top; 2K may not exceed the number of rows.

    Returns:
        `auPRC@K`, `auROC@K`, `P@K`, `R@K` for each K, then `AUROC`, `AP` (full pool) and `prevalence`, each float64
        `[queries]`. Without positives, average precision and recall are 0. With a single class, the ROC area is 0.5,
        which is chance.

    Raises:
        DataError: a query without ground truth, or a positive that is not a row.
        NumericError: a score that is not finite.
        UsageError: a K that does not fit.
    """
    _check_sizes(ks, len(scores.ids))
    _check_finite(scores)
    truth = _truth(scores, positives)
    per_query = [_one_query(v, t, ks) for v, t in zip(scores.values.T, truth.T, strict=True)]
    return {name: np.array([metrics[name] for metrics in per_query]) for name in per_query[0]}


def estimate(values: ArrayLike, *, within: tuple[float, float] | None = None) -> Estimate:
    """The mean of independent values (one a query, a seed or a model), and its interval by Student's t.

    Of a table `[models, queries]`, in which all queries share the models, the interval is for other models and queries.
    `within` holds the least and the most that the mean can be: the interval is cut there.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.size < 2:
        return fixed(float(given.mean()))
    low, high = crossed_interval(np.atleast_2d(given))
    if within is not None:
        low, high = max(low, within[0]), min(high, within[1])
    return Estimate(float(given.mean()), low, high)


def fixed(value: float) -> Estimate:
    """A number that is not a mean of a sample, so that there is no interval."""
    return Estimate(value, None, None)


def _one_query(
    values: Float[np.ndarray, " rows"], truth: Bool[np.ndarray, " rows"], ks: Sequence[int]
) -> dict[str, float]:
    order = np.argsort(-values, kind="stable")
    total = int(truth.sum())
    found: dict[str, float] = {}
    for k in ks:
        ends = np.concatenate([order[:k], order[-k:]])
        hits = int(truth[order[:k]].sum())
        found[f"auPRC@{k}"], found[f"auROC@{k}"] = _areas(values[ends], truth[ends])
        found[f"P@{k}"] = hits / k
        found[f"R@{k}"] = hits / total if total else 0.0
    found["AP"], found["AUROC"] = _areas(values[order], truth[order])
    found["prevalence"] = total / len(truth)
    return found


def _areas(values: Float[np.ndarray, " rows"], truth: Bool[np.ndarray, " rows"]) -> tuple[float, float]:
    """Average precision and ROC area of rows in descending order of `values`; rows of equal value count as one step.

    AP = Σ_n (R_n − R_{n−1}) P_n over distinct values; ROC area = P(positive above negative) + ½ P(tied).
    """
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # the last row of each run of equal values
    hits, taken = np.cumsum(truth)[last], last + 1
    misses = taken - hits
    positives, negatives = int(hits[-1]), int(misses[-1])
    gained = np.diff(hits, prepend=0)
    precision = float((gained * hits / taken).sum() / positives) if positives else 0.0
    if not positives or not negatives:
        return precision, _CHANCE
    above = (gained * (negatives - misses)).sum() + 0.5 * (gained * np.diff(misses, prepend=0)).sum()
    return precision, float(above / (positives * negatives))


def _truth(scores: Scores, positives: Mapping[str, Collection[str]]) -> Bool[np.ndarray, "rows queries"]:
    place = {row: position for position, row in enumerate(scores.ids)}
    truth = np.zeros(scores.values.shape, dtype=bool)
    for column, query in enumerate(scores.queries):
        if query not in positives:
            raise DataError(f"no ground truth for query '{query}'", where=scores.method)
        unknown = [row for row in positives[query] if row not in place]
        if unknown:
            raise DataError(f"positive row '{unknown[0]}' has no score", where=f"{scores.method}, query '{query}'")
        truth[[place[row] for row in positives[query]], column] = True
    return truth


def _check_sizes(ks: Sequence[int], rows: int) -> None:
    for k in ks:
        if not 0 < k <= rows // 2:
            raise UsageError(f"K = {k} with {rows} rows", where="ks", remedy="choose 1 ≤ K ≤ half of the rows")


def _check_finite(scores: Scores) -> None:
    bad = np.argwhere(~np.isfinite(scores.values))
    if len(bad):
        row, query = bad[0]
        where = f"{scores.method}, row '{scores.ids[row]}', query '{scores.queries[query]}'"
        raise NumericError(f"the score is {scores.values[row, query]}", where=where)
