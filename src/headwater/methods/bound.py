"""A method bound to a reader: it turns rows into vectors. Builds, additions, checks, queries and values all use it.

Batches are planned inside one list of rows, so a block's vectors depend on the block alone, and a resumed build
reproduces them bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from headwater.core.errors import DataError, UsageError
from headwater.core.spec import Column, Role
from headwater.data.batches import TokenBatch
from headwater.data.readings import RowReading
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.features.encoder import Encoder, ExactEncoder, GridEncoder, ModuleEncoder, TokenScores
from headwater.methods.gathered import Gathered, Stored
from headwater.methods.method import Method, Vectors
from headwater.models.load import require_plain
from headwater.models.reader import Reader

OnBatch = Callable[[int, int], None]
"""Called after each batch with the numbers of rows and tokens read so far."""


@dataclass(frozen=True)
class EncodedRows:
    """Rows read by a method, in the order given.

    Attributes:
        tokens: the tokenised rows.
        vectors: column name to float32 `[rows, dim]`.
        losses: float32 `[rows]`, nats, mean over target tokens, on the CPU.
    """

    tokens: tuple[TokenRow, ...]
    vectors: Mapping[str, Float[Tensor, "rows _dim"]]
    losses: Float[Tensor, " rows"]


@dataclass(frozen=True)
class ModuleParts:
    """Module name to its part of the exact scores, `[rows, queries]`."""

    parts: Mapping[str, Float[Tensor, "rows queries"]]

    def combined(self, combination: Float[Tensor, "names queries"]) -> ModuleParts:
        """The parts of linear combinations of the queries."""
        return ModuleParts({name: part @ combination.mT for name, part in self.parts.items()})

    def of(self, row: int, query: int) -> dict[str, float]:
        """One row's parts for one query, the largest size first."""
        found = {name: float(part[row, query]) for name, part in self.parts.items()}
        return dict(sorted(found.items(), key=lambda item: -abs(item[1])))


@dataclass(frozen=True)
class Bound:
    """A method bound to a reader.

    Attributes:
        method: the method.
        form: how its rows become vectors.
        encoder: reads the vectors with the reader's model.
        reader: model, tokenisation and batch size.
    """

    method: Method
    form: Vectors
    encoder: Encoder
    reader: Reader

    @classmethod
    def of(cls, method: Method, reader: Reader) -> Bound:
        """Bind a method to a reader.

        Raises:
            UsageError: the method gives no vectors, or reads gradients and the model is to be compiled.
        """
        form = method.require_vectors()
        if form.backward:
            require_plain(reader.loaded, f"the method '{method.spec.name}'")
        return cls(method, form, form.bind(reader.loaded), reader)

    def encode(self, rows: Sequence[Row], role: Role, *, device: str | torch.device = "cpu") -> EncodedRows:
        """Read rows; the vectors are on `device`. The target tokens of a query with hotwords are those of the hotwords.

        Raises:
            DataError: there are no rows, or a row has no target token.
            NumericError: a vector is not finite.
        """
        return self.encode_tokens(self.tokenize(rows, role), role, device=device)

    def encode_tokens(self, rows: Sequence[TokenRow], role: Role, *, device: str | torch.device = "cpu") -> EncodedRows:
        """The same as `encode`, for rows that are tokenised already; their ordinals may be any."""
        tokens = [replace(row, row=replace(row.row, ordinal=i)) for i, row in enumerate(rows)]
        vectors = {c.name: torch.empty(len(tokens), c.dim, device=device) for c in self.encoder.columns}
        losses = torch.empty(len(tokens))
        for batch in self.batches(tokens, role):
            encoded = self.encoder.encode(batch.to(self.reader.loaded.device), role)
            places = [row.row.ordinal for row in batch.rows]
            losses[places] = encoded.losses.cpu()
            for name, vector in encoded.vectors.items():
                vectors[name][places] = vector.to(device, torch.float32)
        return EncodedRows(tuple(tokens), vectors, losses)

    def token_scores(
        self, rows: Sequence[Row], role: Role, probes: Mapping[str, Float[Tensor, "probes _dim"]]
    ) -> list[tuple[TokenRow, TokenScores]]:
        """Each row's tokens and their contributions to the row's score with each probe, in the order of the rows."""
        tokens = self.tokenize(rows, role)
        found: dict[int, tuple[TokenRow, TokenScores]] = {}
        for batch in self.batches(tokens, role):
            scored = self.encoder.token_scores(batch.to(self.reader.loaded.device), role, probes)
            found.update((row.row.ordinal, (row, scores)) for row, scores in zip(batch.rows, scored, strict=True))
        return [found[i] for i in range(len(tokens))]

    def exact_scores(self, rows: Sequence[Row], queries: Sequence[Row]) -> Float[Tensor, "rows queries"]:
        """Compute the scores that the vectors' inner products only estimate; on the CPU.

        The factors of all queries' gradients are held in memory.

        Raises:
            UsageError: the method has no such scores.
        """
        if not self.form.exact or not isinstance(self.encoder, ExactEncoder):
            what = f"{self.method.spec.name} has no scores but those of its vectors"
            raise UsageError(what, where="--exact", remedy="leave it out")
        row_batches, query_batches, order = self._sides(rows, queries)
        return order(self.encoder.exact_scores(row_batches, query_batches))

    def module_parts(self, rows: Sequence[Row], queries: Sequence[Row]) -> ModuleParts:
        """The exact scores, divided by module.

        Raises:
            UsageError: the method has no whole gradients, whose tensors belong to modules.
        """
        if not self.form.exact or not isinstance(self.encoder, ModuleEncoder):
            what = f"{self.method.spec.name} does not read gradients module by module"
            raise UsageError(what, where="--by-module", remedy="use an index of graddot, gradcos or rapidin")
        row_batches, query_batches, order = self._sides(rows, queries)
        found = self.encoder.exact_parts(row_batches, query_batches)
        return ModuleParts({name: order(scores) for name, scores in found.items()})

    def _sides(
        self, rows: Sequence[Row], queries: Sequence[Row]
    ) -> tuple[list[TokenBatch], list[TokenBatch], Callable[[Tensor], Tensor]]:
        """Both sides in batches, and a function that puts their scores in the order given, on the CPU."""
        row_batches = self.batches(self.tokenize(rows, "train"), "train")
        query_batches = self.batches(self.tokenize(queries, "query"), "query")
        i, j = ([row.row.ordinal for batch in side for row in batch.rows] for side in (row_batches, query_batches))

        def order(scores: Tensor) -> Tensor:
            ordered = torch.empty_like(scores, device="cpu")
            ordered[torch.tensor(i)[:, None], torch.tensor(j)] = scores.cpu()
            return ordered

        return row_batches, query_batches, order

    def token_grid(
        self, row: Row, query: Row
    ) -> tuple[TokenRow, TokenRow, Float[Tensor, "row_tokens query_tokens"]] | None:
        """A row's tokens, a query's tokens, and the influence of each on each; None if the method has no grids."""
        if not self.form.grids or not isinstance(self.encoder, GridEncoder):
            return None
        (left,) = self.batches(self.tokenize([row], "train"), "train")
        (right,) = self.batches(self.tokenize([query], "query"), "query")
        return left.rows[0], right.rows[0], self.encoder.token_grid(left, right).cpu()

    def tokenize(self, rows: Sequence[Row], role: Role) -> list[TokenRow]:
        """Tokenise rows; each row's ordinal becomes its place in `rows`. Raises `DataError` if there are no rows."""
        if not rows:
            raise DataError("there are no rows to read")
        return self.reader.tokenize(rows, role)

    def batches(self, rows: Sequence[TokenRow], role: Role) -> list[TokenBatch]:
        """Divide the rows into windows and the windows into batches; the `ordinal` says which row a window is from."""
        return self.reader.plan(rows, self.form.windows[role])

    def readings(self, rows: Sequence[TokenRow]) -> list[RowReading]:
        """How index rows are read: what is cut off or read in windows."""
        window = self.reader.window(self.form.windows["train"])
        return [window.reading(row) for row in rows]

    def stored(
        self, rows: Sequence[TokenRow], columns: Sequence[Column], on_batch: OnBatch | None = None
    ) -> tuple[Stored, NDArray[np.float32]]:
        """Read index rows; returns their vectors as `columns` store them, and their losses (nats), in row order.

        Raises:
            DataError: a row has no target token in the method's windows.
            NumericError: a vector is not finite, or overflows its storage type.
        """
        found = Gathered.of(rows)
        self.read_into(found, columns, on_batch)
        return found.vectors, found.losses

    def read_into(self, found: Gathered, columns: Sequence[Column], on_batch: OnBatch | None = None) -> None:
        """Read the rows that have not been read yet, in the batches in which all of them would be read.

        Raises the same errors as `stored`. What was read before an error stays.
        """
        position = {row.row.ordinal: i for i, row in enumerate(found.rows)}
        done = tokens = 0
        for batch in self.batches(found.rows, "train"):
            places = [position[row.row.ordinal] for row in batch.rows]
            if not found.done[places].all():
                found.read(places, self.encoder.encode(batch.to(self.reader.loaded.device), "train"), columns)
            done, tokens = done + len(places), tokens + sum(len(row.ids) for row in batch.rows)
            if on_batch is not None:
                on_batch(done, tokens)
