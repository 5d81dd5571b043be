"""Index rows as a method reads them, batch by batch: what is there when the reading is interrupted is not lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from headwater.core.errors import NumericError
from headwater.core.spec import Column
from headwater.data.tokens import TokenRow
from headwater.features.encoder import Encoded
from headwater.search import codes

Stored = dict[str, NDArray[np.generic]]
"""Column name to `[rows, width]` in the column's storage type, and a code's `[rows]` scales."""


@dataclass
class Gathered:
    """Rows, and what has been read of them so far.

    Attributes:
        rows: the rows; each has an ordinal of its own.
        losses: float32 `[rows]`, nats, mean over target tokens.
        done: bool `[rows]`, True for rows that have been read; the losses and vectors of others are undefined.
        vectors: what has been read, with a place for each row.
    """

    rows: Sequence[TokenRow]
    losses: NDArray[np.float32]
    done: Bool[np.ndarray, " rows"]
    vectors: Stored = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[TokenRow]) -> Gathered:
        """Rows of which nothing has been read."""
        return cls(rows, np.empty(len(rows), np.float32), np.zeros(len(rows), bool))

    def put(
        self, places: Sequence[int], losses: NDArray[np.float32], vectors: Mapping[str, NDArray[np.generic]]
    ) -> None:
        """Set the losses `[places]` and stored vectors `[places, width]` of the rows at these places."""
        self.losses[places] = losses
        for name, stored in vectors.items():
            if name not in self.vectors:
                self.vectors[name] = np.empty((len(self.rows), *stored.shape[1:]), stored.dtype)
            self.vectors[name][places] = stored
        self.done[places] = True  # last: Ctrl-C may come between any two lines

    def read(self, places: Sequence[int], encoded: Encoded, columns: Sequence[Column]) -> None:
        """Set the rows at these places from their losses and vectors as they were read.

        Raises:
            NumericError: a vector is not finite, or overflows its storage type.
        """
        rows = [self.rows[place] for place in places]
        vectors: Stored = {}
        for column in columns:
            vectors |= _stored(encoded.vectors[column.name], column, rows)
        self.put(places, encoded.losses.float().cpu().numpy(), vectors)

    def part(self) -> Gathered:
        """The rows that have been read, in their order."""
        chosen = np.flatnonzero(self.done).tolist()
        rows, vectors = [self.rows[i] for i in chosen], {name: cells[chosen] for name, cells in self.vectors.items()}
        return Gathered(rows, self.losses[chosen], self.done[chosen], vectors)


def _stored(values: Float[Tensor, "rows dim"], column: Column, rows: Sequence[TokenRow]) -> Stored:
    """The values as the column stores them; raises `NumericError` if they are not finite."""
    stored = codes.encode(values, column)
    checked = stored[column.scale or column.name].reshape(len(rows), -1)
    bad = np.flatnonzero(~np.isfinite(checked).all(axis=1))
    if bad.size:
        row, largest = rows[int(bad[0])], float(values[int(bad[0])].abs().max())
        overflow = f"reaches {largest:.4g}, too large for {column.dtype}"
        fault = overflow if np.isfinite(largest) else "has values that are not finite"
        where = f"{row.row.place or row.row.id}, column {column.name}"
        remedy = "load the model in float32, or choose an option of the method that normalises"
        raise NumericError(f"the vector of row '{row.row.id}' {fault}", where=where, remedy=remedy)
    return stored
