"""Inner products of stored rows with all queries: a matrix product for numbers, table look-ups for sign codes.

A byte of a sign code stands for eight signs, so its contribution to a score is one of 256 sums of eight query numbers.
These sums are computed once a search, in a table. A row's score is then one table entry for each of its bytes, added
up, and no bit is unpacked.
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

QueryVectors = Mapping[str, Float[Tensor, "queries _dim"]]
"""Column name to float32 `[queries, dim]`: the vectors that the rows' vectors are multiplied with."""

Metrics = Mapping[str, FittedMetric]
"""Column name to the metric of its products; a column without a metric has plain inner products."""


def fit_metrics(
    index: Index, wanted: Mapping[str, Metric], device: torch.device | str = "cpu"
) -> dict[str, FittedMetric]:
    """Fit each column's metric on the present rows of the index, on a device.

    Raises:
        UsageError: a column holds codes, whose second moment is not that of the vectors.
    """
    stored = {column.name: column for column in index.manifest.columns}
    fitted = {}
    for name, metric in wanted.items():
        if stored[name].scale is not None:
            remedy = "build the index without --code for this method"
            raise UsageError(f"column '{name}' holds codes, which fit no metric", where=index.path, remedy=remedy)
        fitted[name] = fit_metric(metric, _vectors(index, name, device), where=f"{index.path}, column '{name}'")
    return fitted


def apply_metrics(metrics: Metrics, vectors: QueryVectors) -> QueryVectors:
    """Precondition the query vectors of the columns that have a metric; the others stay as they are."""
    return {name: metrics[name].probes(v) if name in metrics else v for name, v in vectors.items()}


def _vectors(index: Index, name: str, device: torch.device | str) -> Iterator[Float[Tensor, "rows dim"]]:
    for batch in index.batches([name], rows=1024):
        values = from_dlpack(batch.column(name).flatten())
        yield values.view(batch.num_rows, -1).to(device).to(torch.float32)


Product = Callable[[Tensor], Float[Tensor, "queries rows"]]
"""Takes stored rows `[rows, width]` and gives their float32 products with every query, not yet scaled."""

_CACHE_BYTES = 1 << 19
"""Bytes of float32 rows multiplied at once on a CPU: they fit its second-level cache (3 times faster for one query)."""

_FEWEST_ROWS = 64
_FEWEST_BYTES, _MOST_BYTES = 16, 64
"""How many bytes of code are looked up at once on a CPU: few enough that their tables stay in its cache."""


def product(probes: Float[Tensor, "queries dim"], column: Column) -> Product:
    """A function that multiplies a column's stored rows with these queries, on the queries' device."""
    queries = transform(probes.float(), column)
    return _looked_up(queries) if column.dtype == "sign" else _multiplied(queries)


def _multiplied(probes: Float[Tensor, "queries dim"]) -> Product:
    def products(stored: Tensor) -> Tensor:
        """Multiply all rows with all queries; on a CPU in pieces, so that a piece's float32 copy stays in the cache."""
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
