"""Several encoders read the same batch, and their columns lie side by side in one index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from headwater.core.spec import Column, Coverage, Role
from headwater.data.batches import TokenBatch
from headwater.features.encoder import Encoded, Encoder, TokenScores


@dataclass(frozen=True)
class JoinedEncoder:
    """An `Encoder` with all columns of its parts, whose names differ; losses and coverage are those of the first part.

    Attributes:
        parts: the encoders.
        changes: column name to the attributes of the column that differ from the part's.
    """

    parts: Sequence[Encoder]
    changes: Mapping[str, Mapping[str, float]]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of all parts."""
        columns = (column for part in self.parts for column in part.columns)
        return tuple(replace(column, **self.changes.get(column.name, {})) for column in columns)  # type: ignore[arg-type]

    @property
    def coverage(self) -> Coverage:
        """The first part's."""
        return self.parts[0].coverage

    def encode(self, batch: TokenBatch, role: Role) -> Encoded:
        """Every part's vectors; the first part's losses."""
        found = [part.encode(batch, role) for part in self.parts]
        return Encoded({name: v for one in found for name, v in one.vectors.items()}, found[0].losses)

    def token_scores(
        self, batch: TokenBatch, role: Role, probes: Mapping[str, Float[Tensor, "probes _dim"]]
    ) -> tuple[TokenScores, ...]:
        """Every part's token scores in its own columns; only parts that have probes are asked."""
        asked = [({c.name for c in part.columns} & probes.keys(), part) for part in self.parts]
        found = [part.token_scores(batch, role, {n: probes[n] for n in names}) for names, part in asked if names]
        return tuple(
            TokenScores({name: v for one in of_row for name, v in one.values.items()}, of_row[0].losses)
            for of_row in zip(*found, strict=True)
        )
