"""Rows made by hand, for indexes whose rows no model has read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headwater.data.readings import RowReading
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.index.fragments import commit_fragments, write_fragments
from headwater.index.manifest import Manifest
from headwater.index.rows import infer_schema, to_table
from headwater.index.store import Index, create_index


def hand_row(
    row_id: str, digest: str = "d", metadata: Mapping[str, Any] | None = None, *, tokens: int = 0, **text: Any
):
    """A row of so many tokens, whatever they are; `text` are the other fields of a `Row`."""
    return as_tokens(Row(row_id, 0, metadata=metadata or {}, **text), digest, tokens=tokens)


def as_tokens(row: Row, digest: str = "d", *, tokens: int = 0) -> TokenRow:
    """A row as if it had been tokenised."""
    ids = np.zeros(tokens, dtype=np.int64)
    return TokenRow(row, "", ids, np.ones(tokens, dtype=np.bool_), np.zeros((tokens, 2), dtype=np.int64), 0, digest)


def hand_index(path: str | Path, manifest: Manifest, rows: Sequence[TokenRow] = ()) -> Index:
    """An empty index with the columns that these rows need."""
    return create_index(path, manifest, infer_schema([row.row for row in rows], manifest.columns))


def append(index: Index, rows: Sequence[TokenRow], vectors: Mapping[str, np.ndarray], *, loss: float = 0.5) -> None:
    """Append the rows with their vectors (`[rows, width]` in the storage type) as one commit."""
    losses, readings = np.full(len(rows), loss, dtype=np.float32), [RowReading()] * len(rows)
    table = to_table(rows, losses, vectors, index.dataset.schema, readings=readings)
    commit_fragments(index, write_fragments(index, table))
