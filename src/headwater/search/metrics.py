"""Metrics of an index's columns: fitted on the stored vectors in one pass, applied to probes and to rows' scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from headwater.core.errors import UsageError
from headwater.curvature.gram import FittedMetric, Metric, fit_metric
from headwater.index.store import Index

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
