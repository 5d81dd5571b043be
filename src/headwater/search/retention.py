"""What a code or an approximate search keeps of exact search, measured on queries the user cares about.

agreement@k = mean over queries of |top-k found ∩ top-k exact| / k
P@k         = mean over queries of the share of relevant rows among the top k
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.spec import Column
from headwater.index.store import Index
from headwater.search.codes import decode, encode
from headwater.search.scan import Found, top_k

TOP = 10
"""Rows a query that are compared."""

Probes = Mapping[str, Float[Tensor, "queries _dim"]]


@dataclass(frozen=True)
class Retention:
    """How much of exact search was kept.

    Attributes:
        queries: over how many queries.
        rows: among how many rows.
        top: how many rows a query were compared.
        agreement: mean share of the exact top rows that were found, in [0, 1].
        precision: mean share of relevant rows among those found; None where none are known.
        exact_precision: the same of exact search.
    """

    queries: int
    rows: int
    top: int
    agreement: float
    precision: float | None = None
    exact_precision: float | None = None

    @property
    def precision_kept(self) -> float | None:
        """The share of exact search's P@k that is kept; None where unknown or where there is none to keep."""
        if self.precision is None or not self.exact_precision:
            return None
        return self.precision / self.exact_precision

    def __str__(self) -> str:
        said = f"{100 * self.agreement:.1f} % of the exact top {self.top} found"
        if self.precision is not None and self.exact_precision is not None:
            said += f"; P@{self.top} {self.precision:.3f}, exact {self.exact_precision:.3f}"
        if (kept := self.precision_kept) is not None:
            said += f" ({100 * kept:.1f} % kept)"
        return f"{said}; {self.queries:,} queries, {self.rows:,} rows"


def compare_indexes(exact: Index, other: Index, probes: Probes, *, relevant: str | None = None) -> Retention:
    """What `other` (the same rows as codes) keeps of `exact`; `relevant` is an SQL condition over the rows."""
    return compare(
        exact,
        probes,
        lambda: found_ids(other, top_k(other, probes, TOP)),
        relevant=None if relevant is None else _matching(exact, relevant),
    )


def compare(
    exact: Index, probes: Probes, search: Callable[[], list[list[str]]], *, relevant: Collection[str] | None = None
) -> Retention:
    """What another way of searching, which gives ids best first, keeps of exact search of the index."""
    return _retention(found_ids(exact, top_k(exact, probes, TOP)), search(), rows=exact.count, relevant=relevant)


def compare_rows(
    vectors: Mapping[str, Float[Tensor, "rows _dim"]], columns: Sequence[Column], probes: Probes
) -> Retention:
    """What codes in `columns` keep on these rows alone, given as float32 vectors: for an index that has no others."""
    scores = {False: torch.zeros(0), True: torch.zeros(0)}
    for coded in scores:
        parts = []
        for column in columns:
            if column.name in probes:
                rows = vectors[column.name]
                parts.append(
                    probes[column.name] @ (decode(encode(rows, column), column) if coded else rows.half().float()).T
                )
        scores[coded] = torch.stack(parts).sum(0)
    count = scores[False].shape[1]
    top = {coded: s.topk(min(TOP, count), dim=1).indices.tolist() for coded, s in scores.items()}
    exact, found = ([[str(i) for i in row] for row in top[coded]] for coded in (False, True))
    return _retention(exact, found, rows=count)


def found_ids(index: Index, found: Sequence[Sequence[Found]]) -> list[list[str]]:
    """The ids of the rows a search found, query by query."""
    addresses = sorted({hit.address for hits in found for hit in hits})
    ids = dict(zip(addresses, index.at(addresses, ["id"]).column("id").to_pylist(), strict=True))
    return [[ids[hit.address] for hit in hits] for hits in found]


def _retention(
    exact: Sequence[Sequence[str]],
    found: Sequence[Sequence[str]],
    *,
    rows: int,
    relevant: Collection[str] | None = None,
) -> Retention:
    top = max(map(len, exact), default=0)
    shared = [len({*a} & {*b}) / max(len(a), 1) for a, b in zip(exact, found, strict=True)]
    agreement = sum(shared) / max(len(shared), 1)
    if relevant is None:
        return Retention(len(exact), rows, top, agreement)
    return Retention(len(exact), rows, top, agreement, _precision(found, relevant), _precision(exact, relevant))


def _precision(found: Sequence[Sequence[str]], relevant: Collection[str]) -> float:
    shares = [sum(row_id in relevant for row_id in ids) / max(len(ids), 1) for ids in found]
    return sum(shares) / max(len(shares), 1)


def _matching(index: Index, condition: str) -> frozenset[str]:
    batches = index.batches(["id"], where=condition)
    return frozenset(value for batch in batches for value in batch.column("id").to_pylist())
