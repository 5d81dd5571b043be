"""Measure how much of exact search a code or an approximate search keeps, on the user's own queries.

agreement@k = mean over queries of |top-k found ∩ top-k exact| / k
P@k         = mean over queries of the share of relevant rows among the top k
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.spec import Column
from headwater.index.store import Index
from headwater.search.codes import decode, encode
from headwater.search.products import QueryVectors
from headwater.search.scan import top_k

TOP = 10
"""How many top rows of each query are compared."""


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


def compare_indexes(exact: Index, other: Index, probes: QueryVectors, *, relevant: str | None = None) -> Retention:
    """Compare searches of `exact` and of `other`, which holds the same rows as codes.

    `relevant` is an SQL condition that the relevant rows meet, for P@k.
    """
    best, found = (_top_ids(index, probes) for index in (exact, other))
    kept = _retention(best, found, exact.count)
    if relevant is None:
        return kept
    batches = exact.batches(["id"], where=relevant)
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


def _top_ids(index: Index, probes: QueryVectors) -> list[list[str]]:
    """The ids of each query's top rows, best first."""
    found = top_k(index, probes, TOP)
    addresses = sorted({hit.address for hits in found for hit in hits})
    ids = dict(zip(addresses, index.at(addresses, ["id"]).column("id").to_pylist(), strict=True))
    return [[ids[hit.address] for hit in hits] for hits in found]


def _retention(exact: Sequence[Sequence[Any]], found: Sequence[Sequence[Any]], rows: int) -> Retention:
    return Retention(len(exact), rows, max(map(len, exact), default=0), mean_overlap(exact, found))


def _precision(found: Sequence[Sequence[str]], relevant: Collection[str]) -> float:
    shares = [sum(row_id in relevant for row_id in ids) / max(len(ids), 1) for ids in found]
    return sum(shares) / max(len(shares), 1)
