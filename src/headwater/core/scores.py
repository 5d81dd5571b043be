"""Scores of every row on every query: the result of a method, and all that later steps see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.core.errors import DataError
from headwater.core.tables import Tabular


@dataclass(frozen=True)
class Scores(Tabular):
    """Scores of rows on queries: `values` is float32 `[rows, queries]`.

    What a score means depends on the method (see `headwater methods`). For most of them a positive score marks a
    proponent: training more on the row lowers the loss of the query.
    """

    ids: tuple[str, ...]
    queries: tuple[str, ...]
    values: NDArray[np.float32]
    method: str

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.ids), len(self.queries)):
            what = f"scores of shape {self.values.shape} for {len(self.ids)} rows and {len(self.queries)} queries"
            raise DataError(what, where=self.method)

    def records(self) -> list[dict[str, Any]]:
        """One record per row: its `id`, and its score on each query."""
        return [
            {"id": row, **dict(zip(self.queries, map(float, values), strict=True))}
            for row, values in zip(self.ids, self.values, strict=True)
        ]

    def ranks(self) -> NDArray[np.int64]:
        """Rank of each row for each query, 1 the highest; ties keep row order. Shape `[rows, queries]`."""
        order = np.argsort(-self.values, axis=0, kind="stable")
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(1, len(self.ids) + 1)[:, None], axis=0)
        return ranks

    def top(self, k: int) -> NDArray[np.int64]:
        """Row positions of the k highest scores of each query, best first. Shape `[k, queries]`."""
        return np.argsort(-self.values, axis=0, kind="stable")[:k]

    def mean(self) -> NDArray[np.float32]:
        """Mean over queries: the value of each row for the query set. Shape `[rows]`."""
        mean: NDArray[np.float32] = self.values.mean(axis=1)
        return mean


def fuse(scores: Sequence[Scores], weights: Sequence[float], *, method: str) -> Scores:
    """Σ_m w_m · (s_m − mean) / sd of several methods' scores of the same rows and queries, standardised by query.

    Unlike a sum of reciprocal ranks, this keeps how far apart rows are, so sums over rows are still meaningful.

    Raises:
        DataError: the scores are of different rows or queries.
    """
    first, total = scores[0], np.zeros(scores[0].values.shape)
    for some, weight in zip(scores, weights, strict=True):
        if some.ids != first.ids or some.queries != first.queries:
            where = f"{first.method}, {some.method}"
            raise DataError("scores of different rows or queries cannot be fused", where=where)
        values = some.values.astype(np.float64)
        spread = values.std(axis=0)
        total += weight * (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return Scores(first.ids, first.queries, total.astype(np.float32), method)
