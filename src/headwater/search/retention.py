"""Measure how much of exact search a code or an approximate search keeps, on the user's own queries.

agreement@k = mean over queries of |top-k found ∩ top-k exact| / k
P@k         = mean over queries of the share of relevant rows among the top k
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.spec import Column
from headwater.index.store import Index
from headwater.search.codes import decode, encode, stored_names, stored_vectors
from headwater.search.products import Metrics, QueryVectors
from headwater.search.scan import top_k

TOP = 10
"""How many top rows of each query are compared."""

OWN = 32
"""How many of an index's own rows are asked for where there are no queries."""


@dataclass(frozen=True)
class Retention:
    """How much of exact search another search keeps.

    Attributes:
        queries: how many queries were searched.
        rows: how many rows were searched.
        top: how many top rows of each query were compared.
        agreement: mean share of the exact top rows that the other search found, in [0, 1].
        precision: mean share of relevant rows among those it found; None if it is not known which rows are relevant.
        exact_precision: the same for exact search.
    """

    queries: int
    rows: int
    top: int
    agreement: float
    precision: float | None = None
    exact_precision: float | None = None

    @property
    def precision_kept(self) -> float | None:
        """P@k over the P@k of exact search; None if either is unknown or the latter is 0."""
        if self.precision is None or not self.exact_precision:
            return None
        return self.precision / self.exact_precision

    def __str__(self) -> str:
        text = f"{100 * self.agreement:.1f} % of the exact top {self.top} found"
        if self.precision is not None and self.exact_precision is not None:
            text += f"; P@{self.top} {self.precision:.3f}, exact {self.exact_precision:.3f}"
        if (kept := self.precision_kept) is not None:
            text += f" ({100 * kept:.1f} % kept)"
        return f"{text}; {self.queries:,} queries, {self.rows:,} rows"


@dataclass(frozen=True)
class Searched:
    """An index with the same queries as any other: their vectors, under the index's own metrics."""

    index: Index
    probes: QueryVectors
    metrics: Metrics = field(default_factory=dict)


def own_queries(index: Index) -> Searched:
    """Some of the index's own rows as queries, for want of others: no model and no metric is needed."""
    places = np.unique(np.linspace(0, max(index.count - 1, 0), min(OWN, index.count)).astype(int)).tolist()
    counted = {column.name: column.weight for column in index.manifest.columns if column.weight}
    names = [name for column in index.manifest.columns if column.name in counted for name in stored_names(column)]
    table = index.take(places, names)
    columns = [column for column in index.manifest.columns if column.name in counted]
    return Searched(index, {column.name: counted[column.name] * stored_vectors(table, column) for column in columns})


def compare_indexes(exact: Searched, other: Searched, *, relevant: str | None = None) -> Retention:
    """Compare searches of an index and of another, which holds the same rows as codes.

    `relevant` is an SQL condition that the relevant rows meet, for P@k.
    """
    best, found = _top_ids(exact), _top_ids(other)
    kept = _retention(best, found, exact.index.count)
    if relevant is None:
        return kept
    batches = exact.index.batches(["id"], where=relevant)
    wanted = frozenset(row_id for batch in batches for row_id in batch.column("id").to_pylist())
    return replace(kept, precision=_precision(found, wanted), exact_precision=_precision(best, wanted))


def compare_rows(
    vectors: Mapping[str, Float[Tensor, "rows _dim"]], columns: Sequence[Column], probes: QueryVectors
) -> Retention:
    """Compare searches of these rows in float16 and as the codes of `columns`, for an index that holds only codes.

    `vectors` holds the rows' float32 vectors by column name.
    """
    used = [column for column in columns if column.name in probes]

    def top(read: Callable[[Column], Tensor]) -> list[list[int]]:
        scores = torch.stack([probes[column.name] @ read(column).T for column in used]).sum(0)
        found: list[list[int]] = scores.topk(min(TOP, scores.shape[1]), dim=1).indices.tolist()
        return found

    exact = top(lambda column: vectors[column.name].half().float())
    found = top(lambda column: decode(encode(vectors[column.name], column), column))
    return _retention(exact, found, len(vectors[used[0].name]))


def mean_overlap(exact: Sequence[Sequence[Any]], found: Sequence[Sequence[Any]]) -> float:
    """The share of each query's exact top rows that were found, averaged over the queries."""
    shares = [len({*a} & {*b}) / max(len(a), 1) for a, b in zip(exact, found, strict=True)]
    return sum(shares) / max(len(shares), 1)


def _top_ids(asked: Searched) -> list[list[str]]:
    """The ids of each query's top rows, best first."""
    found = top_k(asked.index, asked.probes, TOP, metrics=asked.metrics)
    addresses = sorted({hit.address for hits in found for hit in hits})
    ids = dict(zip(addresses, asked.index.at(addresses, ["id"]).column("id").to_pylist(), strict=True))
    return [[ids[hit.address] for hit in hits] for hits in found]


def _retention(exact: Sequence[Sequence[Any]], found: Sequence[Sequence[Any]], rows: int) -> Retention:
    return Retention(len(exact), rows, max(map(len, exact), default=0), mean_overlap(exact, found))


def _precision(found: Sequence[Sequence[str]], relevant: Collection[str]) -> float:
    shares = [sum(row_id in relevant for row_id in ids) / max(len(ids), 1) for ids in found]
    return sum(shares) / max(len(shares), 1)
