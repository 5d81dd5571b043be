"""Rows through a model and a method: what builds, additions, checks and queries all do after the rows are known.

Batches are planned inside one list of rows, so a block's vectors depend on the block alone and a resumed build
reproduces them bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from headwater.core.errors import DataError, NumericError, UsageError
from headwater.core.spec import Column, Role
from headwater.data.batches import TokenBatch, plan_batches
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization, TokenRow
from headwater.features.encoder import Encoded, Encoder, ExactEncoder, GridEncoder, TokenScores
from headwater.index.rows import IndexRow, text_fields
from headwater.index.store import Index, append_block
from headwater.methods.method import Method
from headwater.models.load import LoadedModel
from headwater.search import codes

TOKENS_PER_BATCH = 8192
"""Padded tokens in one forward pass, unless said otherwise."""

Vectors = dict[str, NDArray[np.generic]]
"""Column name to `[rows, width]` in the column's storage type, and a code's `[rows]` scales."""


@dataclass(frozen=True)
class EncodedRows:
    """Rows read by a method, in the order they were given.

    Attributes:
        tokens: the tokenised rows.
        vectors: column name to float32 `[rows, dim]`, on the CPU.
        losses: float32 `[rows]`, nats, mean over target tokens.
    """

    tokens: tuple[TokenRow, ...]
    vectors: Mapping[str, Float[Tensor, "rows _dim"]]
    losses: Float[Tensor, " rows"]


Told = Callable[[int, int], None]
"""Called as rows are read, with how many and how many tokens they have."""


@dataclass(frozen=True)
class Reader:
    """All it takes to turn rows into vectors: a model, a method bound to it, a tokenisation and a batch size."""

    loaded: LoadedModel
    method: Method
    encoder: Encoder
    tokenization: Tokenization
    tokens_per_batch: int = TOKENS_PER_BATCH

    @classmethod
    def bind(
        cls, loaded: LoadedModel, method: Method, tokenization: Tokenization, tokens_per_batch: int = TOKENS_PER_BATCH
    ) -> Reader:
        """The reader of rows for this model and method."""
        return cls(loaded, method, method.bind(loaded), tokenization, tokens_per_batch)

    def encode(self, rows: Iterable[Row], role: Role) -> EncodedRows:
        """Vectors of rows in memory; a query's `hotwords` narrow its targets.

        Raises:
            DataError: no rows, or a row the method can find no target in.
            NumericError: a vector is not finite.
        """
        tokens = self.tokenize(rows, role)
        vectors = {c.name: torch.empty(len(tokens), c.dim) for c in self.encoder.columns}
        losses = torch.empty(len(tokens))
        for places, _, encoded in self._encoded(tokens, role):
            losses[places] = encoded.losses.cpu()
            for name, vector in encoded.vectors.items():
                vectors[name][places] = vector.float().cpu()
        return EncodedRows(tuple(tokens), vectors, losses)

    def token_scores(
        self, rows: Iterable[Row], role: Role, probes: Mapping[str, Float[Tensor, "probes _dim"]]
    ) -> list[tuple[TokenRow, TokenScores]]:
        """Each token's contribution to its row's score with each probe, in the order of the rows."""
        tokens = self.tokenize(rows, role)
        found: dict[int, tuple[TokenRow, TokenScores]] = {}
        for batch in self.batches(tokens, role):
            scored = self.encoder.token_scores(batch.to(self.loaded.device), role, probes)
            found.update((row.row.ordinal, (row, scores)) for row, scores in zip(batch.rows, scored, strict=True))
        return [found[i] for i in range(len(tokens))]

    def exact_scores(self, rows: Iterable[Row], queries: Iterable[Row]) -> Float[Tensor, "rows queries"]:
        """What the vectors' inner products only estimate, computed; on the CPU. Queries' factors are held in memory.

        Raises:
            UsageError: the method's vectors estimate nothing else.
        """
        if not isinstance(self.encoder, ExactEncoder):
            name = self.method.spec.name
            raise UsageError(f"{name} has no scores but those of its vectors", where="--exact", remedy="leave it out")
        batches = self.batches(self.tokenize(rows, "train"), "train")
        asked = self.batches(self.tokenize(queries, "query"), "query")
        scores = self.encoder.exact_scores(batches, asked).cpu()
        i, j = ([row.row.ordinal for batch in side for row in batch.rows] for side in (batches, asked))
        ordered = torch.empty_like(scores)
        ordered[torch.tensor(i)[:, None], torch.tensor(j)] = scores
        return ordered

    def token_grid(
        self, row: Row, query: Row
    ) -> tuple[TokenRow, TokenRow, Float[Tensor, "row_tokens query_tokens"]] | None:
        """Influence of each token of a row on each of a query, and both as tokens; None if the method has none."""
        if not isinstance(self.encoder, GridEncoder):
            return None
        (left,) = self.batches(self.tokenize([row], "train"), "train")
        (right,) = self.batches(self.tokenize([query], "query"), "query")
        return left.rows[0], right.rows[0], self.encoder.token_grid(left, right).cpu()

    def tokenize(self, rows: Iterable[Row], role: Role) -> list[TokenRow]:
        """Tokenised rows, numbered in the order given."""
        numbered = [replace(row, ordinal=i) for i, row in enumerate(rows)]
        if not numbered:
            raise DataError("there are no rows to read")
        return self.tokenization.encode(numbered, hotwords=role == "query")

    def stored(
        self, rows: Sequence[TokenRow], columns: Sequence[Column], told: Told | None = None
    ) -> tuple[Vectors, NDArray[np.float32]]:
        """Index rows' vectors as `columns` store them, and their losses (nats), in the order of the rows.

        `told` is called after each batch but the last.

        Raises:
            DataError: the method's windows leave a row no target.
            NumericError: a vector is not finite, or overflows its storage type.
        """
        vectors: Vectors = {}
        losses = np.empty(len(rows), dtype=np.float32)
        done = tokens = 0
        for places, batch_rows, encoded in self._encoded(rows, "train"):
            losses[places] = encoded.losses.float().cpu().numpy()
            for column in columns:
                for name, stored in _stored(encoded.vectors[column.name], column, batch_rows).items():
                    whole = vectors.setdefault(name, np.empty((len(rows), *stored.shape[1:]), stored.dtype))
                    whole[places] = stored
            done, tokens = done + len(places), tokens + sum(len(row.ids) for row in batch_rows)
            if told is not None and done < len(rows):
                told(done, tokens)
        return vectors, losses

    def append(self, index: Index, rows: Sequence[TokenRow], told: Told | None = None) -> None:
        """Read the rows with the model and commit them as one block; `told` is called as `stored` does."""
        manifest = index.manifest
        vectors, losses = self.stored(rows, manifest.columns, told)
        append_block(index, index_rows(rows, losses, keep_text=manifest.keeps_text), vectors)

    def batches(self, rows: Sequence[TokenRow], role: Role) -> list[TokenBatch]:
        """The rows' windows in batches; `ordinal` says which row is which."""
        return plan_batches(rows, self.method.windows[role], tokens_per_batch=self.tokens_per_batch)

    def _encoded(
        self, rows: Sequence[TokenRow], role: Role
    ) -> Iterator[tuple[list[int], tuple[TokenRow, ...], Encoded]]:
        """Batch by batch: the rows' places among `rows`, the rows, and what the method reads of them."""
        position = {row.row.ordinal: i for i, row in enumerate(rows)}
        for batch in self.batches(rows, role):
            encoded = self.encoder.encode(batch.to(self.loaded.device), role)
            yield [position[row.row.ordinal] for row in batch.rows], batch.rows, encoded


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
