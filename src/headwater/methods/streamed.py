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

from headwater.core.errors import NumericError
from headwater.core.spec import Role
from headwater.data.batches import plan_batches
from headwater.data.rows import Row
from headwater.features.encoder import Encoder
from headwater.methods.method import Method
from headwater.methods.streaming import Bench, Part, StreamingMethod, Target, require_bench


def streamed(method: Method) -> StreamingMethod:
    """The index method as one that needs no index; a target's rows are its queries, one part each."""

    def prepare(bench: Bench | None, targets: Sequence[Target]) -> VectorScorer:
        at = require_bench(bench, method.spec.name)
        reader = _Reader(at, method, method.bind(at.loaded))
        rows = [row for target in targets for row in target.rows]
        weights = {column.name: column.weight for column in reader.encoder.columns}
        vectors = reader.read(rows, "query")
        probes = {name: weight * vectors[name] for name, weight in weights.items() if weight}
        parts = tuple(Part(target.name) for target in targets for _ in target.rows)
        return VectorScorer(reader, probes, parts)

    return StreamingMethod(method.spec, prepare)


@dataclass(frozen=True)
class _Reader:
    """Rows to vectors, in the rows' order."""

    bench: Bench
    method: Method
    encoder: Encoder

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
