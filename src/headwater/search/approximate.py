"""Approximate search by a vector index the user built, with exact scores of what it finds and its recall measured.

The vector index proposes rows, `REFINED` times as many as asked for, and orders them by their stored vectors; the
scores of those returned are computed here as exact search computes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import StoreError, UsageError
from headwater.index.approximate import approximate_columns
from headwater.index.store import Index, storing
from headwater.search.codes import read_vectors
from headwater.search.scan import DEFAULT_MEMORY, Found, top_k

REFINED = 10
PROBED = 32
"""Partitions looked into a query."""

SAMPLED = 4
"""Queries that are searched exactly too, to tell the recall."""

Probes = Mapping[str, Float[Tensor, "queries _dim"]]


@dataclass(frozen=True)
class Recall:
    """Of the exact top rows of a sample of queries, the share an approximate search found."""

    queries: int
    top: int
    share: float

    def __str__(self) -> str:
        return (
            f"approximate search found {100 * self.share:.1f} % of the exact top {self.top} of {self.queries} queries"
        )


def top_k_approximate(
    index: Index, probes: Probes, k: int, *, where: str | None = None, lowest: bool = False
) -> list[list[Found]]:
    """About the k rows of highest (or lowest) score for each query, best first, with exact scores.

    Raises:
        UsageError: the ranking sums several columns.
        StoreError: the column has no vector index.
    """
    column = _column(index, probes)
    if k < 1:
        raise UsageError(f"top {k} rows were asked for", remedy="ask for 1 or more")
    return [_nearest(index, column, probe, k, where=where, lowest=lowest) for probe in probes[column].float().cpu()]


def measure_recall(
    index: Index,
    probes: Probes,
    found: list[list[Found]],
    *,
    where: str | None = None,
    lowest: bool = False,
    max_memory: int = DEFAULT_MEMORY,
) -> Recall:
    """The recall of what was found for the first `SAMPLED` queries; reads the whole index once."""
    sample = {name: probe[:SAMPLED] for name, probe in probes.items()}
    top = max(map(len, found), default=0)
    exact = top_k(index, sample, max(top, 1), where=where, lowest=lowest, max_memory=max_memory)
    shares = [
        len({hit.address for hit in a} & {hit.address for hit in b}) / max(len(a), 1)
        for a, b in zip(exact, found[:SAMPLED], strict=True)
    ]
    return Recall(len(exact), top, sum(shares) / max(len(shares), 1))


def _column(index: Index, probes: Probes) -> str:
    if len(probes) != 1:
        raise UsageError(
            f"approximate search by {' + '.join(probes)}", where="--engine ann", remedy="rank by one column, or exactly"
        )
    (column,) = probes
    if column not in approximate_columns(index):
        raise StoreError(
            f"'{column}' has no vector index",
            where=index.path,
            remedy="headwater index ann builds one, or search exactly",
        )
    return column


def _nearest(
    index: Index, column: str, probe: Float[Tensor, " dim"], k: int, *, where: str | None, lowest: bool
) -> list[Found]:
    signed = -probe if lowest else probe
    largest = float(signed.abs().max()) or 1.0
    query = (signed / largest).numpy().astype(np.float16)  # the order of inner products knows no scale
    wanted = {"column": column, "q": query, "k": k, "nprobes": PROBED, "refine_factor": REFINED, "metric": "dot"}
    with storing(index.path, where=where):
        scanner = index.dataset.scanner(
            columns=["_distance"], nearest=wanted, filter=where, prefilter=True, with_row_address=True
        )
        addresses = scanner.to_table().column("_rowaddr").to_pylist()
    if not addresses:
        return []
    scores = read_vectors(index, addresses, [column])[column] @ probe
    order = sorted(range(len(addresses)), key=lambda i: (-float(scores[i]) if not lowest else float(scores[i]), i))
    return [Found(addresses[i], float(scores[i])) for i in order]
