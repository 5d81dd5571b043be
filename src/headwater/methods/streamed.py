"""Any index method without an index: vectors are made, multiplied with the targets' and dropped.

    score(row, target row) = Σ_columns weight · ⟨row's vector, target row's vector⟩

The numbers are those of a search over an index, but for the rounding of what an index stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import NumericError, UsageError
from headwater.core.spec import Role
from headwater.data.batches import plan_batches
from headwater.data.rows import Row
from headwater.features.encoder import Encoder
from headwater.methods.method import Method
from headwater.methods.streaming import Bench, Part, StreamingMethod, Target, deal, require_bench


@dataclass(frozen=True)
class Probes:
    """Targets as vectors: all that is needed of them to score rows, and no text.

    Attributes:
        vectors: column name to float32 `[parts, dim]`, weighted so that a score is the sum of inner products.
        parts: what each stands for.
    """

    vectors: Mapping[str, Float[Tensor, "parts _dim"]]
    parts: tuple[Part, ...]


def streamed(method: Method) -> StreamingMethod:
    """The index method as one that needs no index; a target's rows are its queries, one part each."""

    def prepare(bench: Bench | None, targets: Sequence[Target]) -> VectorScorer:
        at = require_bench(bench, method.spec.name)
        return score_probes(method, at, read_probes(method, at, targets))

    return StreamingMethod(method.spec, prepare)


def read_probes(method: Method, bench: Bench, targets: Sequence[Target], folds: int | None = None) -> Probes:
    """The targets' vectors, one a row, or the means of `folds` parts each target's rows are dealt into."""
    reader = _Reader.of(bench, method)
    weights = {column.name: column.weight for column in reader.encoder.columns}
    found: dict[str, list[Tensor]] = {name: [] for name, weight in weights.items() if weight}
    parts: list[Part] = []
    for target in targets:
        vectors = reader.read(target.rows, "query")
        places = deal(range(len(target.rows)), folds or len(target.rows))
        parts += [Part(target.name, len(fold)) for fold in places]
        for name, means in found.items():
            means.append(torch.stack([weights[name] * vectors[name][list(fold)].mean(0) for fold in places]))
    return Probes({name: torch.cat(means) for name, means in found.items()}, tuple(parts))


def score_probes(method: Method, bench: Bench, probes: Probes) -> VectorScorer:
    """The scorer of rows against vectors that may have been made elsewhere."""
    return VectorScorer(_Reader.of(bench, method), probes.vectors, probes.parts)


@dataclass(frozen=True)
class _Reader:
    """Rows to vectors, in the rows' order."""

    bench: Bench
    method: Method
    encoder: Encoder

    @classmethod
    def of(cls, bench: Bench, method: Method) -> _Reader:
        """The method on the bench's model; raises `UsageError` for one whose metric is fitted on an index."""
        encoder = method.bind(bench.loaded)
        if method.metrics(encoder):
            what = f"'{method.spec.name}' fits its metric on all rows' vectors, so it needs an index"
            raise UsageError(what, remedy="headwater index build, then headwater value --index")
        return cls(bench, method, encoder)

    def read(self, rows: Sequence[Row], role: Role) -> dict[str, Tensor]:
        """Column name to `[rows, dim]`, float32 on the model's device."""
        found: dict[str, Tensor] = {}
        budget = self.bench.tokens_per_batch
        tokens = self.bench.token_rows(rows, hotwords=role == "query")
        for batch in plan_batches(tokens, self.method.windows[role], tokens_per_batch=budget):
            places = [row.row.ordinal for row in batch.rows]
            encoded = self.encoder.encode(batch.to(self.bench.loaded.device), role)
            for name, vectors in encoded.vectors.items():
                empty = torch.empty(len(rows), vectors.shape[1], device=vectors.device)
                found.setdefault(name, empty)[places] = vectors.float()
        return found


@dataclass(frozen=True)
class VectorScorer:
    """Rows against the targets' weighted vectors."""

    reader: _Reader
    probes: Mapping[str, Float[Tensor, "parts _dim"]]
    parts: tuple[Part, ...]

    @property
    def notes(self) -> Mapping[str, Any]:
        """The coverage."""
        return {"coverage": str(self.reader.encoder.coverage)}

    def __call__(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows parts"]:
        """Inner products; raises `NumericError` naming a row whose vector is not finite."""
        vectors = self.reader.read(rows, "train")
        total = sum(vectors[name] @ probe.to(vectors[name]).mT for name, probe in self.probes.items())
        values: np.ndarray = torch.as_tensor(total).cpu().numpy()
        require_finite(values, rows)
        return values


def require_finite(values: Float[np.ndarray, "rows parts"], rows: Sequence[Row]) -> None:
    """Raise `NumericError` naming the first row with a score that is not finite."""
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        row = rows[int(bad[0])]
        remedy = "load the model in float32, or leave the row out"
        raise NumericError("the row's score is not finite", where=row.where, remedy=remedy)
