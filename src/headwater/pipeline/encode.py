"""Rows of tokens through an encoder: what a build, an addition and a check do between tokenising and storing.

Batches are planned inside one block of consecutive rows, so a block's vectors depend on the block alone and a resumed
build reproduces them bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from headwater.core.errors import NumericError
from headwater.core.spec import Column
from headwater.data.batches import plan_batches
from headwater.data.tokens import Tokenization, TokenRow
from headwater.features.encoder import Encoder
from headwater.index.rows import IndexRow, text_fields
from headwater.index.store import Index, append_block
from headwater.methods.method import Method
from headwater.models.load import LoadedModel
from headwater.search import codes

Vectors = dict[str, NDArray[np.generic]]
"""Column name to `[rows, width]` in the column's storage type, and a code's `[rows]` scales."""


@dataclass(frozen=True)
class Reader:
    """A model, a method bound to it and a tokenisation: all it takes to turn rows into vectors."""

    loaded: LoadedModel
    method: Method
    encoder: Encoder
    tokenization: Tokenization

    @classmethod
    def bind(cls, loaded: LoadedModel, method: Method, tokenization: Tokenization) -> Reader:
        """The reader of rows for this model and method."""
        return cls(loaded, method, method.bind(loaded), tokenization)

    def encode(
        self, rows: Sequence[TokenRow], columns: Sequence[Column], *, tokens_per_batch: int
    ) -> tuple[Vectors, NDArray[np.float32]]:
        """Vectors as `columns` store them, and losses (nats, mean over target tokens), in the order of the rows.

        Raises:
            DataError: the method's windows leave a row no target.
            NumericError: a vector is not finite, or overflows its storage type.
        """
        position = {row.row.ordinal: i for i, row in enumerate(rows)}
        vectors: Vectors = {}
        losses = np.empty(len(rows), dtype=np.float32)
        for batch in plan_batches(rows, self.method.windows["train"], tokens_per_batch=tokens_per_batch):
            encoded = self.encoder.encode(batch.to(self.loaded.device), "train")
            at = [position[row.row.ordinal] for row in batch.rows]
            losses[at] = encoded.losses.float().cpu().numpy()
            for column in columns:
                for name, stored in _stored(encoded.vectors[column.name], column, batch.rows).items():
                    whole = vectors.setdefault(name, np.empty((len(rows), *stored.shape[1:]), stored.dtype))
                    whole[at] = stored
        return vectors, losses

    def append(self, index: Index, rows: Sequence[TokenRow]) -> None:
        """Read the rows with the model and commit them as one block."""
        manifest = index.manifest
        vectors, losses = self.encode(rows, manifest.columns, tokens_per_batch=manifest.plan.tokens_per_batch)
        append_block(index, index_rows(rows, losses, keep_text=manifest.keeps_text), vectors)


def index_rows(rows: Sequence[TokenRow], losses: NDArray[np.float32], *, keep_text: bool) -> list[IndexRow]:
    """What is stored of the rows beside their vectors."""
    return [
        IndexRow(
            id=row.row.id,
            digest=row.digest,
            fields=text_fields(row.row) if keep_text else {},
            metadata=row.row.metadata,
            tokens=len(row.ids),
            loss=float(loss),
        )
        for row, loss in zip(rows, losses, strict=True)
    ]


def _stored(values: Float[Tensor, "rows dim"], column: Column, rows: Sequence[TokenRow]) -> Vectors:
    """The values as the column stores them, refused where they are not finite."""
    stored = codes.encode(values, column)
    told = stored[column.scale or column.name].reshape(len(rows), -1)
    bad = np.flatnonzero(~np.isfinite(told).all(axis=1))
    if bad.size:
        row, largest = rows[int(bad[0])], float(values[int(bad[0])].abs().max())
        fault = f"reaches {largest:.4g}, too large for {column.dtype}"
        raise NumericError(
            f"the vector of row '{row.row.id}' {fault if np.isfinite(largest) else 'has values that are not finite'}",
            where=f"{row.row.place or row.row.id}, column {column.name}",
            remedy="load the model in float32, or choose an option of the method that normalises",
        )
    return stored
