"""Checksums: eight bytes a row that say whether anything stored of it has changed.

A row's checksum is the keyed blake2b-64 of its own cells and vector bytes; the key is the manifest's, so a row copied
from another model's or another method's index does not pass. Kept per row, not per block, checksums survive deletion
and compaction, and a fault names its row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.core.fingerprints import canonical

CHECKSUM_BYTES = 8


def checksums(table: pa.Table | pa.RecordBatch, vectors: Sequence[str], key: bytes) -> list[bytes]:
    """The checksum of each row of a table that has all the index's columns; `vectors` names the vector columns."""
    plain = [name for name in table.schema.names if name not in vectors and name not in _OUTSIDE]
    blobs = [row_bytes(table.column(name)) for name in vectors]
    sums = []
    for i, cells in enumerate(table.select(plain).to_pylist()):
        h = hashlib.blake2b(key=key, digest_size=CHECKSUM_BYTES)
        h.update(canonical({name: value for name, value in cells.items() if value is not None}).encode())
        for blob in blobs:
            h.update(blob[i])
        sums.append(h.digest())
    return sums


def row_bytes(column: pa.ChunkedArray | pa.Array) -> NDArray[np.uint8]:
    """The raw bytes of a vector column, `[rows, bytes]`."""
    return vector_array(column).view(np.uint8)


def vector_array(column: pa.ChunkedArray | pa.Array) -> NDArray[np.generic]:
    """A vector column as an array `[rows, dim]` of its storage type; no copy when it is one chunk."""
    chunk = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(chunk, pa.ChunkedArray):
        chunk = pa.concat_arrays(chunk.chunks)
    flat: NDArray[np.generic] = chunk.flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(len(chunk), -1) if len(chunk) else flat.reshape(0, chunk.type.list_size)


_OUTSIDE = ("checksum", "_rowid", "_rowaddr")
