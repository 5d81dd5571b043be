"""Where to cut a ranking of rows, so that a stated share of those above the cut is expected to be right.

    u(r) = (s(r) − mean s) / sd s                       each query's scores, over rows
    T(r) = u(r) − max over clean queries c of u_c(r)    how far the odd answer is above every clean answer
    expected precision at t = 1 − m · P₀(T ≥ t) / #{r: T(r) ≥ t}        m rows in all

Every answer has rows that taught it, clean answers too. So a high score alone says nothing, and a row counts only as
far as the odd answer scores it higher than all clean answers do. P₀ is how far any answer stands above the others on
rows that are not to be forgotten. It is measured on each clean query against the other clean queries, over all rows,
also those that taught the clean answer: an odd answer has such rows too (a story about aliens stands above clean
answers on other stories), and a null without them states too much. The cut is the lowest t whose expected precision is
still the stated one; it is above 0, where P₀ is about one in as many as there are clean queries.

Several odd answers share one cut: a row has the highest of its T, and the P₀ of all answers are added up, because right
rows are found again by each answer and wrong ones are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from headwater.core.errors import UsageError

FEWEST_CLEAN = 8
"""Fewest clean queries that make a null."""
NULL_ROWS = 20_000
"""Most rows, spaced evenly, on which P₀ is measured."""


@dataclass(frozen=True)
class Cut:
    """The rows above the cut.

    Attributes:
        chosen: their positions, the highest T first; empty if no cut has the expected precision.
        margins: T of every row, in standard deviations of a query's scores.
        threshold: the least T above the cut; infinite if nothing is chosen.
        expected: expected precision at the cut, 0 to 1; 0 if nothing is chosen.
        counts: of the chosen rows, those that each odd answer puts above the cut.
    """

    chosen: Int[np.ndarray, " chosen"]
    margins: Float[np.ndarray, " rows"]
    threshold: float
    expected: float
    counts: tuple[int, ...]


def margins(odd: Float[np.ndarray, " rows"], clean: Float[np.ndarray, "rows queries"]) -> Float[np.ndarray, " rows"]:
    """T of every row; scores in `clean` that are NaN are left out (a query's own row says nothing about others)."""
    highest = np.nanmax(standardised(clean), axis=1, initial=-np.inf)
    found: Float[np.ndarray, " rows"] = standardised(odd[:, None])[:, 0] - highest
    return found


def choose_rows(
    odd: Sequence[Float[np.ndarray, " rows"]],
    clean: Sequence[Float[np.ndarray, "rows _"]],
    *,
    precision: float,
    fewest: int = 5,
) -> Cut:
    """Cut a ranking where the expected precision falls below `precision`.

    Args:
        odd: scores of all rows on each odd answer.
        clean: for each odd answer, scores of all rows on clean queries; NaN where the row is the query itself.
        precision: least share of right rows to expect above the cut.
        fewest: a cut with fewer rows above it is none.

    Raises:
        UsageError: a precision that is not between 0 and 1, or fewer than 8 clean queries.
    """
    if not 0 < precision < 1:
        raise UsageError(f"an expected precision of {precision}", where="--precision", remedy="between 0 and 1")
    few = min(scores.shape[1] for scores in clean)
    if few < FEWEST_CLEAN:
        what = f"{few} clean queries are too few for a null"
        raise UsageError(what, where="cut", remedy=f"give {FEWEST_CLEAN} or more")
    each = np.stack([margins(scores, null) for scores, null in zip(odd, clean, strict=True)])
    found = each.max(axis=0)
    order = np.argsort(-found, kind="stable")
    ranked, places = found[order], np.arange(1, len(found) + 1)
    wrong = len(found) * sum(_exceeding(ranked, null_margins(null)) for null in clean)
    expected = 1 - wrong / places
    good = np.flatnonzero((expected >= precision) & (places >= fewest) & (ranked > 0))
    if not len(good):
        return Cut(order[:0], found, float("inf"), 0.0, (0,) * len(each))
    last = int(good[-1])
    counts = tuple(int(count) for count in (each >= ranked[last]).sum(axis=1))
    return Cut(order[: last + 1], found, float(ranked[last]), float(expected[last]), counts)


def _exceeding(values: np.ndarray, null: np.ndarray) -> np.ndarray:
    """The share of the null at or above each value, with the value itself counted as one of the null."""
    return np.asarray((len(null) - np.searchsorted(np.sort(null), values, side="left") + 1) / (len(null) + 1))


def null_margins(clean: Float[np.ndarray, "rows queries"]) -> Float[np.ndarray, " pairs"]:
    """T of each clean query against the other clean queries, on rows of all kinds but its own."""
    scores = standardised(clean)[:: -(-len(clean) // NULL_ROWS)]
    filled = np.where(np.isnan(scores), -np.inf, scores)
    top = np.argsort(-filled, axis=1)[:, :2]
    rows = np.arange(len(filled))
    best, second = filled[rows, top[:, 0]], filled[rows, top[:, 1]]
    others = np.where(np.arange(filled.shape[1]) == top[:, :1], second[:, None], best[:, None])
    return np.asarray((scores - others)[~np.isnan(scores)])


def standardised(scores: Float[np.ndarray, "rows queries"]) -> Float[np.ndarray, "rows queries"]:
    """Each query's scores with mean 0 and standard deviation 1 over rows."""
    mean, spread = np.nanmean(scores, axis=0, dtype=np.float64), np.nanstd(scores, axis=0, dtype=np.float64)
    scale = np.where(spread > 0, spread, 1.0)
    found: Float[np.ndarray, "rows queries"] = (scores - mean.astype(scores.dtype)) / scale.astype(scores.dtype)
    return found
