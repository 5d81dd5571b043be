"""Inner products of stored rows with all queries: a matrix product of numbers, or of integers for sign codes.

For sign codes a query is rounded to 255 levels, which adds about one percent of error to the half that the signs have
already. Its products with signs are then integers below 2^24, so they are exact in whatever order they are summed: the
same ranks on every device and with every number of threads.

On a processor, bytes become eight signs of one byte each by a table, a few rows at a time so that they stay in its
cache, and are multiplied by its 8-bit instructions. Elsewhere a row's score is the sum of one table entry for each byte
of its code: a byte contributes one of 256 sums of eight query numbers, and no bit is unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float, Int8
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
_SIGN_BYTES = 1 << 21
"""Bytes of signs that are multiplied at once on a CPU."""

_EIGHT_SIGNS = SIGNS_OF_BYTE.to(torch.int8).view(torch.int64).flatten()
"""int64 `[256]`: the eight signs of a byte, one byte each, as one number."""

_LEVELS = 127
_TABLES = 16
"""How many bytes of code are looked up at once: few enough that their tables stay in a processor's cache."""


def product(probes: Float[Tensor, "queries dim"], column: Column) -> Product:
    """A function that multiplies a column's stored rows with these queries, on the queries' device."""
    if column.dtype != "sign":
        return _multiplied(transform(probes.float(), column))
    queries = transform(probes.cpu().double(), column)  # in float64, so that every device rounds alike
    step = queries.abs().amax(dim=1, keepdim=True) / _LEVELS
    levels = torch.round(queries / torch.where(step > 0, step, 1)).to(torch.int8)
    multiply = by_integers(levels) if probes.device.type == "cpu" else by_tables(levels.to(probes.device))
    scale = step.to(probes)

    def products(stored: Tensor) -> Tensor:
        return multiply(stored) * scale

    return products


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


def by_integers(queries: Int8[Tensor, "queries bits"]) -> Product:
    """Exact products with sign codes on a CPU: signs of one byte each, multiplied as integers."""
    bits = queries.shape[1]
    right = queries.T.contiguous()

    def products(stored: Tensor) -> Tensor:
        rows, width = stored.shape
        piece = min(rows, max(_FEWEST_ROWS, _SIGN_BYTES // bits))
        total = torch.empty(rows, len(queries))
        eights = torch.empty(piece * width, dtype=torch.int64)
        for start in range(0, rows, piece):
            part = stored[start : start + piece]
            some = eights[: part.numel()]
            torch.index_select(_EIGHT_SIGNS, 0, part.reshape(-1).to(torch.int32), out=some)
            total[start : start + piece] = torch._int_mm(some.view(torch.int8).view(len(part), bits), right)
        return total.T

    return products


def by_tables(queries: Int8[Tensor, "queries bits"]) -> Product:
    """Exact products with sign codes on any device: the sum of a table entry for each byte of the code."""
    count, size = len(queries), queries.shape[1] // 8
    signs = SIGNS_OF_BYTE.to(queries.device)
    by_byte = torch.einsum("si,qbi->bsq", signs, queries.float().view(count, size, 8))
    tables = by_byte.split(size if by_byte.is_cuda else _TABLES)

    def products(stored: Tensor) -> Tensor:
        total = torch.zeros(len(stored), count, device=by_byte.device)
        start = 0
        for table in tables:
            part = stored[:, start : start + len(table)].to(by_byte.device, torch.int32)
            places = part + 256 * torch.arange(len(table), dtype=torch.int32, device=by_byte.device)
            total += embedding_bag(places, table.reshape(-1, count), mode="sum")
            start += len(table)
        return total.T

    return products
