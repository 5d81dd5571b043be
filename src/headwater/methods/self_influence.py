"""Self-influence: the influence of a row on its own loss, by any method that gives vectors.

    self-influence(z) = score(z, z)

It is highest for rows that the rest of the data does not explain: memorised, mislabelled or odd ones (Pruthi et al.,
arXiv 2002.08484, section 4.1; Feldman and Zhang, arXiv 2008.03703).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import UsageError
from headwater.core.spec import MethodSpec
from headwater.curvature.gram import FittedMetric, fit_metric
from headwater.data.rows import Row
from headwater.methods.bound import Bound
from headwater.methods.method import Find, Meaning, Method, MethodEntry, parse_settings
from headwater.methods.targets import RowScorer, Target, same_for_all
from headwater.models.reader import Reader

ITSELF = Meaning("higher = the row influences itself more; the query plays no part", signed=False)


@dataclass(frozen=True)
class SelfInfluenceOptions:
    """method: the method that scores a row on itself; method_set: its options as `name=value;name=value`.

    exact: compute scores from whole gradients instead of vectors, if the method can. fit_rows: if the method has a
    metric, it is fitted on at most so many rows of the pool.
    """

    method: str = "graddot"
    method_set: str = ""
    exact: bool = False
    fit_rows: int = 2048


def self_influence(options: SelfInfluenceOptions, find: Find) -> Method:
    """The method with these options; `find` returns a method by name, with settings under which it gives vectors.

    Raises:
        UsageError: the named method gives no vectors, or `exact` is set and it has no exact scores.
    """
    settings = parse_settings(options.method_set, where="self-influence.method_set")
    inner = find(options.method, settings)
    form = inner.require_vectors(where="self-influence.method")
    if options.exact and not form.exact:
        what = f"{options.method} has no scores but those of its vectors"
        raise UsageError(what, where="self-influence.exact", remedy="leave it out")
    return Method(
        MethodSpec("self-influence", asdict(options)),
        scoring=partial(_scorer, inner, options.exact),
        fit_rows=options.fit_rows if form.metrics is not None else 0,
        meaning=ITSELF,
    )


def _scorer(inner: Method, exact: bool, reader: Reader, targets: Sequence[Target], sample: Sequence[Row]) -> RowScorer:
    bound = Bound.of(inner, reader)
    metrics = _fitted(bound, sample)
    notes: dict[str, Any] = {"method": inner.spec.to_json(), "coverage": str(bound.encoder.coverage)}
    if metrics:
        notes["metric fitted on rows"] = len(sample)

    def score(rows: Sequence[Row]) -> Float[np.ndarray, "rows queries"]:
        rows = [replace(row, hotwords=()) for row in rows]
        own = _exact(bound, rows) if exact else _estimated(bound, metrics, rows)
        return same_for_all(own.numpy(), targets)

    return RowScorer(targets, score, notes)


def _fitted(bound: Bound, sample: Sequence[Row]) -> dict[str, FittedMetric]:
    """Each column's metric, fitted on the sample's vectors."""
    if bound.form.metrics is None:
        return {}
    vectors = bound.encode(sample, "train").vectors
    return {name: fit_metric(m, [vectors[name]], where=name) for name, m in bound.form.metrics(bound.encoder).items()}


def _exact(bound: Bound, rows: Sequence[Row]) -> Float[Tensor, " rows"]:
    """Uncompressed scores, one row at a time, because of a block's products only the diagonal is needed."""
    return torch.cat([bound.exact_scores([row], [row])[0] for row in rows])


def _estimated(bound: Bound, metrics: Mapping[str, FittedMetric], rows: Sequence[Row]) -> Float[Tensor, " rows"]:
    """Σ_columns weight · ⟨row's vector, its vector as a query⟩, each under the column's metric."""
    read = bound.encode(rows, "train")
    as_queries = read.vectors if bound.form.alike else bound.encode(rows, "query").vectors
    total = torch.zeros(len(rows))
    for column in bound.encoder.columns:
        left, right = read.vectors[column.name], as_queries[column.name]
        if column.name in metrics:
            metric = metrics[column.name]
            left = left * metric.row_scale(left, read.losses)[:, None]
            right = metric.probes(right)
        total += column.weight * torch.einsum("nd,nd->n", left, right)
    return total


def entry(find: Find) -> MethodEntry[SelfInfluenceOptions]:
    """The entry of the catalog; `find` as in `self_influence`."""
    return MethodEntry(
        name="self-influence",
        summary="A row's influence on itself, by any method that gives vectors: what is memorised, odd or mislabelled.",
        reads="what the method named reads: for graddot, gradients of all selected parameters",
        cost="the method's: for graddot about 3 forward passes",
        source="Pruthi et al., arXiv 2002.08484; Feldman and Zhang, arXiv 2008.03703",
        presets={"default": SelfInfluenceOptions(), "exact": SelfInfluenceOptions(exact=True)},
        make=partial(self_influence, find=find),
    )
