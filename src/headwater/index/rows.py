"""How rows are stored: the Arrow schema of an index, and the conversion of rows to Arrow tables and back.

Columns in order: `id`, `digest`, the text fields, the user's metadata, `extra`, `tokens`, how the row was read
(`RowReading`), `loss`, the vector columns, `checksum`. Metadata columns take their types from the first block of rows
( Of an object with other keys than its column's, the column shows the keys it
has, and `extra` keeps the whole. A metadata name that clashes with one of headwater's columns gets a trailing
underscore.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.core.fingerprints import canonical
from headwater.core.plain import json_ready
from headwater.core.spec import LEVEL_BITS, Column
from headwater.data.columns import fits, nearest, storable
from headwater.data.found_columns import REJECTED, FoundColumns
from headwater.data.readings import RowReading
from headwater.data.records import as_given
from headwater.data.rows import Row
from headwater.data.shapes import read_row
from headwater.data.tokens import TokenRow
from headwater.index.conditions import with_dots, without_dots

CHECKSUM_BYTES = 8
_NOT_SUMMED = ("checksum", "_rowid", "_rowaddr")

WORSE = "rejected_answer"
"""The column with the rejected answer of a preference pair that is one row."""

TEXT_FIELDS = ("text", "prompt", "response", "messages", "hotwords", WORSE)
"""The fields that hold a row's text; `messages`, `hotwords` and `rejected_answer` are stored as JSON text."""

READING_FIELDS = tuple(field.name for field in fields(RowReading))
"""The columns that say how a row was read; older indexes do not have them."""

RESERVED = frozenset(
    {*TEXT_FIELDS, *READING_FIELDS, "id", "digest", "extra", "tokens", "loss", "checksum"}
    | {"_rowid", "_rowaddr", "_rowoffset", "_distance", "_score"}
)
"""Column names that headwater or Lance use."""

COPY = "~widened"
"""Ends the name of the column that a widening copies values into, until it takes the place of the first."""

_ELEMENTS = {
    **{"float16": pa.float16(), "float32": pa.float32(), "int8": pa.int8(), "factors": pa.float16()},
    **dict.fromkeys(LEVEL_BITS, pa.uint8()),
}


def checksums(
    table: pa.Table | pa.RecordBatch, vectors: Sequence[str], key: bytes, *, widened: Sequence[str] = ()
) -> list[bytes]:
    """The checksum of each row of a table that has all the index's columns; `vectors` names the vector columns.

    `widened` names the columns that held whole numbers before they held numbers: 2.0 counts as 2 there, as it was
    written.
    """
    names = set(table.schema.names)
    plain = [name for name in table.schema.names if name not in vectors and name not in _NOT_SUMMED]
    plain = [name for name in plain if name.removesuffix(COPY) == name or name.removesuffix(COPY) not in names]
    blobs = [vector_array(table.column(name)).view(np.uint8) for name in vectors]
    sums = []
    for i, row in enumerate(table.select(plain).to_pylist()):
        h = hashlib.blake2b(key=key, digest_size=CHECKSUM_BYTES)
        cells = {name.removesuffix(COPY): value for name, value in row.items() if value is not None}
        cells |= {name: int(cells[name]) for name in widened if name in cells and float(cells[name]).is_integer()}
        h.update(canonical(cells).encode())
        for blob in blobs:
            h.update(blob[i])
        sums.append(h.digest())
    return sums


def vector_array(column: pa.ChunkedArray | pa.Array) -> NDArray[np.generic]:
    """A vector column as an array `[rows, dim]` of its storage type, without a copy if the column is one chunk."""
    chunk = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(chunk, pa.ChunkedArray):
        chunk = pa.concat_arrays(chunk.chunks)
    flat: NDArray[np.generic] = chunk.flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(len(chunk), -1) if len(chunk) else flat.reshape(0, chunk.type.list_size)


def text_fields(row: Row) -> dict[str, str]:
    """A row's text fields as the index stores them, by column name."""
    texts = row.fields()
    if row.messages is not None:
        texts["messages"] = _in_order([dict(message) for message in row.messages])
    if row.hotwords:
        texts["hotwords"] = canonical(list(row.hotwords))
    if row.rejected is not None:
        texts[WORSE] = _in_order(as_given(row.rejected))
    return texts


def stored_name(name: str, vectors: Sequence[str] = ()) -> str:
    """The column that holds a metadata field: `loss` becomes `loss_`, `loss_` becomes `loss__`; dots are replaced."""
    name = without_dots(name)
    bare = name.rstrip("_") or name
    return f"{name}_" if bare in RESERVED or bare in vectors or name in RESERVED else name


def user_name(column: str, vectors: Sequence[str] = ()) -> str:
    """The inverse of `stored_name`."""
    cut, name = with_dots(column[:-1]), with_dots(column)
    return cut if column.endswith("_") and cut and stored_name(cut, vectors) == column else name


def vector_fields(columns: Sequence[Column]) -> list[pa.Field]:
    """The Arrow fields of vector columns: a fixed-size list for each, followed by the scales if it holds codes."""
    made = []
    for column in columns:
        kind = pa.list_(_ELEMENTS[column.dtype], column.width)
        made.append(pa.field(column.name, kind, nullable=False))
        if column.scale is not None:
            made.append(pa.field(column.scale, pa.float32(), nullable=False))
    return made


def infer_schema(
    rows: Iterable[Row] | FoundColumns,
    columns: Sequence[Column],
    *,
    keep_text: bool = True,
    declared: Sequence[pa.Schema] = (),
) -> pa.Schema:
    """The schema of an index; its text and metadata columns are those of `rows`, or what was found in them.

    Schemas that their source declares say the types of columns that are empty, or narrower, in these rows.
    """
    found = rows if isinstance(rows, FoundColumns) else FoundColumns.of(rows)
    ours = vector_fields(columns)
    vectors = [field.name for field in ours]
    present = {WORSE if name == REJECTED else name for name in found.texts}
    texts = [pa.field(name, pa.string()) for name in TEXT_FIELDS if keep_text and name in present]
    named = {stored_name(name, vectors): kind for name, kind in _types(found, declared).items()}
    metadata = [pa.field(name, kind) for name, kind in named.items() if storable(name) and not name.endswith(COPY)]
    return pa.schema(
        [
            *(pa.field("id", pa.string(), nullable=False), pa.field("digest", pa.string(), nullable=False)),
            *texts,
            *metadata,
            *(pa.field("extra", pa.string()), pa.field("tokens", pa.int32())),
            *(pa.field(name, pa.int32()) for name in READING_FIELDS),
            pa.field("loss", pa.float32()),
            *ours,
            pa.field("checksum", pa.binary(8)),
        ]
    )


def to_table(
    rows: Sequence[TokenRow],
    losses: NDArray[np.float32],
    vectors: Mapping[str, np.ndarray],
    schema: pa.Schema,
    *,
    readings: Sequence[RowReading],
    keep_text: bool = True,
) -> pa.Table:
    """A table of rows with their losses and vectors (`[rows, width]`; scales `[rows]`); `checksum` is still empty."""
    names = set(schema.names)
    cells = []
    for row, loss, reading in zip(rows, losses, readings, strict=True):
        ours = {"id": row.row.id, "digest": row.digest, "tokens": len(row.ids), "loss": float(loss), **asdict(reading)}
        texts = text_fields(row.row) if keep_text else {}
        cells.append({**ours, **_cells(texts, row.row.metadata, schema, names, tuple(vectors))})
    arrays = []
    for entry in schema:
        if entry.name in vectors:
            flat = pa.array(np.ascontiguousarray(vectors[entry.name]).reshape(-1))
            listed = pa.types.is_fixed_size_list(entry.type)
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=entry.type) if listed else flat)
        else:
            arrays.append(pa.array([cell.get(entry.name) for cell in cells], type=entry.type))
    return pa.table(arrays, schema=schema)


def metadata_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """The rows' ids, texts and metadata, and `extra`, without anything that a model or tokenizer reads off them."""
    names = set(schema.names)
    cells = [{"id": row.id, **_cells(text_fields(row), row.metadata, schema, names, ())} for row in rows]
    kept = [field for field in schema if field.name in ("id", "extra") or field.name not in RESERVED - {*TEXT_FIELDS}]
    return pa.table([pa.array([cell.get(f.name) for cell in cells], type=f.type) for f in kept], schema=pa.schema(kept))


def columnless(rows: Sequence[Row], schema: pa.Schema, vectors: Sequence[str]) -> list[str]:
    """The names of all metadata values, a name for each, of which no column of the schema shows anything."""
    kinds = {field.name: field.type for field in schema}
    named = ((stored_name(name, vectors), value) for row in rows for name, value in row.metadata.items())
    return [n for n, value in named if value is not None and (n not in kinds or nearest(value, kinds[n]) is None)]


def from_record(record: Mapping[str, Any], *, ordinal: int, place: str, vectors: Sequence[str] = ()) -> Row:
    """The row that a stored record (its non-vector columns) was made from."""
    cells = {**record, **json.loads(record.get("extra") or "{}")}
    texts = {name: cells[name] for name in ("text", "prompt", "response") if cells.get(name) is not None}
    messages, hotwords = cells.get("messages"), cells.get("hotwords")
    metadata = {
        user_name(name, vectors): value
        for name, value in cells.items()
        if name not in RESERVED and name not in vectors and value is not None
    }
    row = Row(
        id=cells["id"],
        ordinal=ordinal,
        **texts,
        messages=tuple(json.loads(messages)) if messages else None,
        metadata=metadata,
        hotwords=tuple(json.loads(hotwords)) if hotwords else (),
        place=place,
    )
    worse = cells.get(WORSE)
    return replace(row, rejected=read_row(json.loads(worse), {}, place, 0)) if worse else row


def _types(found: FoundColumns, declared: Sequence[pa.Schema]) -> dict[str, pa.DataType]:
    """The Arrow type of each metadata field that a column can hold."""
    kinds = {name: deepcopy(kind) for name, kind in found.kinds.items()} if declared else found.kinds
    for schema in declared:
        for entry in schema:
            if entry.name in kinds:
                kinds[entry.name].add_type(entry.type)
    return {name: kind.type for name, kind in kinds.items() if kind.type is not None}


def _cells(
    texts: Mapping[str, str], metadata: Mapping[str, Any], schema: pa.Schema, names: set[str], vectors: Sequence[str]
) -> dict[str, Any]:
    """A row's text and metadata by column name; values that no column can hold go into `extra`."""
    cells: dict[str, Any] = {}
    wanted = {**texts, **{stored_name(name, vectors): value for name, value in metadata.items()}}
    extra = {}
    for name, value in wanted.items():
        if value is None:
            continue
        kind = schema.field(name).type if name in names else None
        if kind is not None:
            cells[name] = nearest(value, kind)
        if kind is None or not fits(value, kind):
            extra[name] = value
    cells["extra"] = _in_order(extra) if extra else None
    return cells


def _in_order(value: Any) -> str:
    """JSON with its keys in their order, because a template may write a chat's calls or tools as JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=json_ready)
