"""Inner products of stored rows with all queries: a matrix product for numbers, table look-ups for sign codes.

A byte of a sign code stands for eight signs, so it can only add one of 256 sums of a query's numbers: those are made
once a search, and a row's score is the sum of as many table entries as it has bytes, without unpacking a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import embedding_bag
from torch.utils.dlpack import from_dlpack

from headwater.core.errors import UsageError
from headwater.core.spec import Column
from headwater.curvature.gram import FittedMetric, Metric, fit_metric
from headwater.index.store import Index
from headwater.search.codes import SIGNS_OF_BYTE, transform

Metrics = Mapping[str, FittedMetric]
"""Column name to the metric its products are made in; a column without one has plain inner products."""


def fit_metrics(index: Index, wanted: Mapping[str, Metric]) -> dict[str, FittedMetric]:
    """Fit each column's metric on the rows of the index as they are.

    Raises:
        UsageError: a column stored as codes, whose second moment is not that of the vectors.
    """
    stored = {column.name: column for column in index.manifest.columns}
    fitted = {}
    for name, metric in wanted.items():
        if stored[name].scale is not None:
            remedy = "build the index without --code for this method"
            raise UsageError(f"column '{name}' holds codes, which fit no metric", where=index.path, remedy=remedy)
        fitted[name] = fit_metric(metric, _vectors(index, name), where=f"{index.path}, column '{name}'")
    return fitted


def apply_metrics(
    metrics: Metrics, vectors: Mapping[str, Float[Tensor, "queries _dim"]]
) -> dict[str, Float[Tensor, "queries _dim"]]:
    """Query vectors as probes: those of a column with a metric are preconditioned."""
    return {name: metrics[name].probes(v) if name in metrics else v for name, v in vectors.items()}


def _vectors(index: Index, name: str) -> Iterator[Float[Tensor, "rows dim"]]:
    for batch in index.batches([name], rows=1024):
        values = from_dlpack(batch.column(name).flatten())
        yield values.view(batch.num_rows, -1).to(torch.float32)


Product = Callable[[Tensor], Float[Tensor, "queries rows"]]
"""From stored rows `[rows, width]` to float32 products with every query, before scales."""

_CACHE_BYTES = 1 << 19
"""Bytes of float32 rows multiplied at once on a CPU: what its second cache level holds (thrice as fast, one query)."""

_FEWEST_ROWS = 64
_FEWEST_BYTES, _MOST_BYTES = 16, 64
"""Bytes of code looked up at once on a CPU: their tables should stay in its cache."""


def product(probes: Float[Tensor, "queries dim"], column: Column) -> Product:
    """What gives the products of a column's stored rows with these queries; computed on the queries' device."""
    made = transform(probes.float(), column)
    return _looked_up(made) if column.dtype == "sign" else _multiplied(made)


def _multiplied(probes: Float[Tensor, "queries dim"]) -> Product:
    def products(stored: Tensor) -> Tensor:
        """On a CPU piece by piece, so that the float32 copy of the rows never leaves the cache."""
        rows, width = stored.shape
        piece = rows if probes.is_cuda else min(rows, max(_FEWEST_ROWS, _CACHE_BYTES // (4 * width)))
        total = torch.empty(len(probes), rows, device=probes.device)
        single = torch.empty(piece, width, device=probes.device)
        for start in range(0, rows, piece):
            part = stored[start : start + piece]
            torch.mm(probes, single[: len(part)].copy_(part).T, out=total[:, start : start + piece])
        return total

    return products


def _looked_up(probes: Float[Tensor, "queries bits"]) -> Product:
    queries, size = len(probes), probes.shape[1] // 8
    by_byte = torch.einsum("si,qbi->bsq", SIGNS_OF_BYTE.to(probes), probes.view(queries, size, 8))
    fitting = min(max((1 << 20) // (1024 * queries), _FEWEST_BYTES), _MOST_BYTES)
    tables = by_byte.split(size if probes.is_cuda else fitting)

    def products(stored: Tensor) -> Tensor:
        total = torch.zeros(len(stored), queries, device=probes.device)
        start = 0
        for table in tables:
            part = stored[:, start : start + len(table)].to(probes.device, torch.int32)
            places = part + 256 * torch.arange(len(table), dtype=torch.int32, device=probes.device)
            total += embedding_bag(places, table.reshape(-1, queries), mode="sum")
            start += len(table)
        return total.T

    return products
