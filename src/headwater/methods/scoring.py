"""Score rows on targets with any method, without an index.

If the method has its own way to score, that is used. Otherwise the rows' vectors are computed, multiplied and dropped:

    score(row, target row) = Σ_columns weight · ⟨row's vector, target row's vector⟩

These are the scores of a search over an index, except that an index rounds the vectors it stores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import DataError, UsageError
from headwater.core.scores import Scores
from headwater.data.rows import Row
from headwater.methods.bound import Bound
from headwater.methods.method import Method
from headwater.methods.preparing import preparation, prepared
from headwater.methods.targets import (
    Part,
    PartScorer,
    Scorer,
    Target,
    evenly_spaced,
    mean_over_parts,
    split_folds,
)
from headwater.models.load import require_plain
from headwater.models.reader import Reader


def prepare(method: Method, reader: Reader | None, targets: Sequence[Target], sample: Sequence[Row] = ()) -> Scorer:
    """Make the scorer of a method for these targets.

    Args:
        method: the method.
        reader: the model and how it reads rows; None only for methods that read no model.
        targets: the targets that rows are scored on.
        sample: rows of the pool; the method is fitted on `fit_rows` of them.

    Raises:
        UsageError: there is no reader and the method reads a model, or the method's metric must be fitted on an index.
        DataError: there is no sample and the method is fitted on rows.
    """
    name = method.spec.name
    require_model(method, reader)
    if method.fit_rows and not sample:
        raise DataError(f"'{name}' is fitted on rows of the pool and was given none", where="sample")
    given = cast(Reader, reader)
    if method.scoring is not None:
        if reader is not None:
            require_plain(reader.loaded, f"the method '{name}'")
        return method.scoring(given, targets, evenly_spaced(sample, method.fit_rows) if method.fit_rows else [])
    if preparation(method) is not None:
        with tempfile.TemporaryDirectory(prefix="headwater-fitted-") as folder:
            bound = _bound(prepared(method, given, lambda: sample, Path(folder) / "fitted"), given)
            return _scorer(bound, _probes(bound, targets))  # what was fitted is in memory once the targets are read
    return score_probes(method, given, read_probes(method, given, targets))


def require_model(method: Method, given: object) -> None:
    """Raise `UsageError` if no model (or reader) is given and the method reads one."""
    if given is None and method.reads_model:
        what = f"'{method.spec.name}' reads a model and was given none"
        raise UsageError(what, remedy="name one with --model")


def attribute(
    method: Method, reader: Reader | None, rows: Sequence[Row], targets: Sequence[Target], sample: Sequence[Row] = ()
) -> Scores:
    """Every row's score on every target, in memory; the method's `meaning` says what a score means.

    To score every row on every query, give `each(queries)` as the targets. Without a `sample`, the method is fitted on
    `rows`. Raises the errors of `prepare`.
    """
    scorer = prepare(method, reader, targets, sample or rows)
    values = mean_over_parts(scorer(rows), scorer.parts)
    return Scores(tuple(row.id for row in rows), tuple(t.name for t in targets), values, method.spec.name)


@dataclass(frozen=True)
class Probes:
    """The vectors of targets: everything that scoring rows needs of them, without their text.

    Attributes:
        vectors: column name to float32 `[parts, dim]`, weighted so that a score is the sum of inner products.
        parts: the part that each vector stands for.
    """

    vectors: Mapping[str, Float[Tensor, "parts _dim"]]
    parts: tuple[Part, ...]


def read_probes(method: Method, reader: Reader, targets: Sequence[Target], folds: int | None = None) -> Probes:
    """Read the targets' vectors: one for each row, or the means over each of `folds` folds of a target's rows."""
    return _probes(_bound(method, reader), targets, folds)


def _probes(bound: Bound, targets: Sequence[Target], folds: int | None = None) -> Probes:
    weights = {column.name: column.weight for column in bound.encoder.columns}
    found: dict[str, list[Tensor]] = {name: [] for name, weight in weights.items() if weight}
    parts: list[Part] = []
    for target in targets:
        vectors = bound.encode(target.rows, "query", device=bound.reader.loaded.device).vectors
        places = split_folds(range(len(target.rows)), folds or len(target.rows))
        parts += [Part(target.name, len(fold)) for fold in places]
        for name, means in found.items():
            means.append(torch.stack([weights[name] * vectors[name][list(fold)].mean(0) for fold in places]))
    return Probes({name: torch.cat(means) for name, means in found.items()}, tuple(parts))


def score_probes(method: Method, reader: Reader, probes: Probes) -> PartScorer:
    """The scorer of rows on these vectors, which may come from another machine."""
    return _scorer(_bound(method, reader), probes)


def _scorer(bound: Bound, probes: Probes) -> PartScorer:
    def score(rows: Sequence[Row]) -> Float[np.ndarray, "rows parts"]:
        vectors = bound.encode(rows, "train", device=bound.reader.loaded.device).vectors
        total = sum(vectors[name] @ probe.to(vectors[name]).mT for name, probe in probes.vectors.items())
        values: np.ndarray = torch.as_tensor(total).cpu().numpy()
        return values

    return PartScorer(probes.parts, score, {"coverage": str(bound.encoder.coverage)})


def _bound(method: Method, reader: Reader) -> Bound:
    if (fitted := method.require_vectors().of_index) is not None:
        what = f"'{method.spec.name}' fits {fitted} on all rows' vectors, so it needs an index"
        raise UsageError(what, remedy="headwater index build, then headwater value --index")
    return Bound.of(method, reader)
