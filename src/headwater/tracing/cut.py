"""Where to cut a ranking of rows, so that a stated share of those above the cut is expected to be right.

    u(r) = (s(r) − mean s) / sd s                       each query's scores, over rows
    T(r) = u(r) − max over clean queries c of u_c(r)    how far the odd answer is above every clean answer
    expected precision at t = 1 − m · P₀(T ≥ t) / #{r: T(r) ≥ t}

Every answer has rows that taught it, clean answers too. So a high score alone says nothing, and a row counts only as
far as the odd answer scores it higher than all clean answers do. P₀ is how far an answer stands above the others on
rows that have nothing to do with it: it is measured on each clean query against the other clean queries, over the rows
that share few words with it. The cut is the lowest t whose expected precision is still the stated one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from headwater.core.errors import UsageError

FEWEST_CLEAN = 8
"""Fewest clean queries that make a null."""


@dataclass(frozen=True)
class Cut:
    """The rows above the cut.

    Attributes:
        chosen: their positions, the highest T first; empty if no cut has the expected precision.
        margins: T of every row, in standard deviations of a query's scores.
        threshold: the least T above the cut; infinite if nothing is chosen.
        expected: expected precision at the cut, 0 to 1; 0 if nothing is chosen.
    """

    chosen: Int[np.ndarray, " chosen"]
    margins: Float[np.ndarray, " rows"]
    threshold: float
    expected: float


def margins(odd: Float[np.ndarray, " rows"], clean: Float[np.ndarray, "rows queries"]) -> Float[np.ndarray, " rows"]:
    """T of every row; scores in `clean` that are NaN are left out (a query's own row says nothing about others)."""
    highest = np.nanmax(standardised(clean), axis=1, initial=-np.inf)
    found: Float[np.ndarray, " rows"] = standardised(odd[:, None])[:, 0] - highest
    return found


def choose_rows(
    odd: Float[np.ndarray, " rows"],
    clean: Float[np.ndarray, "rows queries"],
    unrelated: Bool[np.ndarray, "rows queries"],
    *,
    precision: float,
    fewest: int = 5,
) -> Cut:
    """Cut a ranking where the expected precision falls below `precision`.

    Args:
        odd: scores of all rows on the odd answer.
        clean: their scores on clean queries; NaN where the row is the query itself.
        unrelated: True where a row has nothing to do with a clean query, judged without the scores.
        precision: least share of right rows to expect above the cut.
        fewest: a cut with fewer rows above it is none.

    Raises:
        UsageError: a precision that is not between 0 and 1, or fewer than 8 clean queries.
    """
    if not 0 < precision < 1:
        raise UsageError(f"an expected precision of {precision}", where="--precision", remedy="between 0 and 1")
    if clean.shape[1] < FEWEST_CLEAN:
        what = f"{clean.shape[1]} clean queries are too few for a null"
        raise UsageError(what, where="cut", remedy=f"give {FEWEST_CLEAN} or more")
    found = margins(odd, clean)
    null = np.sort(null_margins(clean, unrelated))
    order = np.argsort(-found, kind="stable")
    ranked = found[order]
    exceeding = (len(null) - np.searchsorted(null, ranked, side="left") + 1) / (len(null) + 1)
    expected = 1 - len(found) * exceeding / np.arange(1, len(found) + 1)
    good = np.flatnonzero((expected >= precision) & (np.arange(1, len(found) + 1) >= fewest) & (ranked > 0))
    if not len(good):
        return Cut(order[:0], found, float("inf"), 0.0)
    last = int(good[-1])
    return Cut(order[: last + 1], found, float(ranked[last]), float(expected[last]))


def null_margins(clean: Float[np.ndarray, "rows queries"], unrelated: Bool[np.ndarray, "rows queries"]) -> np.ndarray:
    """T of each clean query against the other clean queries, on the rows unrelated to it, `[pairs]`."""
    scores = standardised(clean)
    filled = np.where(np.isnan(scores), -np.inf, scores)
    top = np.argsort(-filled, axis=1)[:, :2]
    rows = np.arange(len(filled))
    best, second = filled[rows, top[:, 0]], filled[rows, top[:, 1]]
    others = np.where(np.arange(filled.shape[1]) == top[:, :1], second[:, None], best[:, None])
    return np.asarray((scores - others)[unrelated & ~np.isnan(scores)])


def standardised(scores: Float[np.ndarray, "rows queries"]) -> Float[np.ndarray, "rows queries"]:
    """Each query's scores with mean 0 and standard deviation 1 over rows."""
    wide = scores.astype(np.float64)
    spread = np.nanstd(wide, axis=0)
    found: Float[np.ndarray, "rows queries"] = (wide - np.nanmean(wide, axis=0)) / np.where(spread > 0, spread, 1.0)
    return found
