"""Scores of rows on targets without an index, by any method.

A method with a way of its own to score is asked; the vectors of another are made, multiplied and dropped:

    score(row, target row) = Σ_columns weight · ⟨row's vector, target row's vector⟩

These are the numbers of a search over an index, but for the rounding of what an index stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import DataError, UsageError
from headwater.core.scores import Scores
from headwater.data.rows import Row
from headwater.methods.bound import Bound
from headwater.methods.method import Method
from headwater.methods.targets import Part, Scorer, Target, evenly_spaced, mean_over_parts, require_finite, split_folds
from headwater.models.reader import Reader


def prepare(method: Method, reader: Reader | None, targets: Sequence[Target], sample: Sequence[Row] = ()) -> Scorer:
    """The method made ready for these targets.

    Args:
        method: the method.
        reader: the model and how it reads; None only for methods that read no model.
        targets: what rows are scored on.
        sample: rows of the pool, of which the method looks at `fit_rows`.

    Raises:
        UsageError: no reader for a method that reads a model, or its metric must be fitted on an index.
        DataError: no sample for a method that is fitted on rows.
    """
    name = method.spec.name
    if reader is None and method.reads_model:
        raise UsageError(f"'{name}' reads a model and was given none", remedy="name one with --model")
    if method.fit_rows and not sample:
        raise DataError(f"'{name}' is fitted on rows of the pool and was given none", where="sample")
    if method.scoring is not None:
        looked_at = evenly_spaced(sample, method.fit_rows) if method.fit_rows else []
        return method.scoring(cast(Reader, reader), targets, looked_at)
    at = cast(Reader, reader)
    return score_probes(method, at, read_probes(method, at, targets))


def attribute(
    method: Method, reader: Reader | None, rows: Sequence[Row], targets: Sequence[Target], sample: Sequence[Row] = ()
) -> Scores:
    """Every row's score on every target, in memory; what a score says is the method's `meaning`.

    For every row on every query give `each(queries)` as the targets. `sample` is taken from `rows` unless given.
    """
    scorer = prepare(method, reader, targets, sample or rows)
    values = mean_over_parts(scorer(rows), scorer.parts)
    return Scores(tuple(row.id for row in rows), tuple(t.name for t in targets), values, method.spec.name)


@dataclass(frozen=True)
class Probes:
    """Targets as vectors: all that is needed of them to score rows, and no text.

    Attributes:
        vectors: column name to float32 `[parts, dim]`, weighted so that a score is the sum of inner products.
        parts: what each stands for.
    """

    vectors: Mapping[str, Float[Tensor, "parts _dim"]]
    parts: tuple[Part, ...]


def read_probes(method: Method, reader: Reader, targets: Sequence[Target], folds: int | None = None) -> Probes:
    """The targets' vectors, one a row, or the means over `folds` folds of each target's rows."""
    bound = _bound(method, reader)
    weights = {column.name: column.weight for column in bound.encoder.columns}
    found: dict[str, list[Tensor]] = {name: [] for name, weight in weights.items() if weight}
    parts: list[Part] = []
    for target in targets:
        vectors = bound.encode(target.rows, "query", device=reader.loaded.device).vectors
        places = split_folds(range(len(target.rows)), folds or len(target.rows))
        parts += [Part(target.name, len(fold)) for fold in places]
        for name, means in found.items():
            means.append(torch.stack([weights[name] * vectors[name][list(fold)].mean(0) for fold in places]))
    return Probes({name: torch.cat(means) for name, means in found.items()}, tuple(parts))


def score_probes(method: Method, reader: Reader, probes: Probes) -> VectorScorer:
    """The scorer of rows against vectors that may have been made elsewhere."""
    return VectorScorer(_bound(method, reader), probes.vectors, probes.parts)


def _bound(method: Method, reader: Reader) -> Bound:
    if method.require_vectors().metrics is not None:
        what = f"'{method.spec.name}' fits its metric on all rows' vectors, so it needs an index"
        raise UsageError(what, remedy="headwater index build, then headwater value --index")
    return Bound.of(method, reader)


@dataclass(frozen=True)
class VectorScorer:
    """A `Scorer` of rows against the targets' weighted vectors."""

    bound: Bound
    probes: Mapping[str, Float[Tensor, "parts _dim"]]
    parts: tuple[Part, ...]

    @property
    def notes(self) -> Mapping[str, Any]:
        """The coverage."""
        return {"coverage": str(self.bound.encoder.coverage)}

    def __call__(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows parts"]:
        """Inner products; raises `NumericError` naming a row whose score is not finite."""
        vectors = self.bound.encode(rows, "train", device=self.bound.reader.loaded.device).vectors
        total = sum(vectors[name] @ probe.to(vectors[name]).mT for name, probe in self.probes.items())
        values: np.ndarray = torch.as_tensor(total).cpu().numpy()
        require_finite(values, rows)
        return values
