"""Approximate search with a vector index that the user built, which also measures its own recall.

Lance takes `REFINED` times as many candidates as are wanted from the vector index and orders them by their stored
vectors. The scores of the rows returned are then computed as exact search computes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import StoreError, UsageError
from headwater.index.info import approximate_columns
from headwater.index.store import Index
from headwater.search.codes import read_vectors
from headwater.search.products import QueryVectors
from headwater.search.retention import mean_overlap
from headwater.search.scan import DEFAULT_MEMORY, Found, top_k

REFINED = 10
PROBED = 32
"""How many partitions are searched for each query."""

SAMPLED = 4
"""How many queries are searched exactly as well, to measure the recall."""


@dataclass(frozen=True)
class Recall:
    """The share of the exact top rows that an approximate search found, over a sample of queries."""

    queries: int
    top: int
    share: float

    def __str__(self) -> str:
        return (
            f"approximate search found {100 * self.share:.1f} % of the exact top {self.top} of {self.queries} queries"
        )


def top_k_approximate(
    index: Index, probes: QueryVectors, k: int, *, where: str | None = None, lowest: bool = False
) -> list[list[Found]]:
    """Approximately the k rows of highest (or lowest) score for each query, best first, with exact scores.

    Raises:
        UsageError: `probes` has more than one column, or k is below 1.
        StoreError: the column has no vector index.
    """
    column = _column(index, probes)
    if k < 1:
        raise UsageError(f"top {k} rows were asked for", remedy="ask for 1 or more")
    return [_nearest(index, column, probe, k, where=where, lowest=lowest) for probe in probes[column].float().cpu()]


def measure_recall(
    index: Index,
    probes: QueryVectors,
    found: list[list[Found]],
    *,
    where: str | None = None,
    lowest: bool = False,
    max_memory: int = DEFAULT_MEMORY,
) -> Recall:
    """Search the first `SAMPLED` queries exactly, and compare with the rows `found`; reads the whole index once."""
    sample = {name: probe[:SAMPLED] for name, probe in probes.items()}
    top = max(map(len, found), default=0)
    exact = top_k(index, sample, max(top, 1), where=where, lowest=lowest, max_memory=max_memory)
    best, other = ([[hit.address for hit in hits] for hits in side] for side in (exact, found[:SAMPLED]))
    return Recall(len(exact), top, mean_overlap(best, other))


def _column(index: Index, probes: QueryVectors) -> str:
    if len(probes) != 1:
        what = f"approximate search by {' + '.join(probes)}"
        raise UsageError(what, where="--engine ann", remedy="rank by one column, or exactly")
    (column,) = probes
    if column not in approximate_columns(index):
        remedy = "headwater index ann builds one, or search exactly"
        raise StoreError(f"'{column}' has no vector index", where=index.path, remedy=remedy)
    return column


def _nearest(
    index: Index, column: str, probe: Float[Tensor, " dim"], k: int, *, where: str | None, lowest: bool
) -> list[Found]:
    signed = -probe if lowest else probe
    largest = float(signed.abs().max()) or 1.0
    query = (signed / largest).numpy().astype(np.float16)  # scaling a query does not change the order of its products
    wanted = {"column": column, "q": query, "k": k, "nprobes": PROBED, "refine_factor": REFINED, "metric": "dot"}
    with index.reading(where):
        scanner = index.dataset.scanner(
            columns=["_distance"], nearest=wanted, filter=index.condition(where), prefilter=True, with_row_address=True
        )
        addresses = scanner.to_table().column("_rowaddr").to_pylist()
    if not addresses:
        return []
    scores = read_vectors(index, addresses, [column])[column] @ probe
    order = sorted(range(len(addresses)), key=lambda i: (-float(scores[i]) if not lowest else float(scores[i]), i))
    return [Found(addresses[i], float(scores[i])) for i in order]
