"""Give an index columns for metadata that its first rows did not have.

A new column is empty for the rows that are there, and no file is rewritten. Whole numbers that meet fractions become
numbers: Lance does not change a column's type, so the values are copied into a column of another name, which then takes
the place of the first. After a kill the next addition goes on where the copying was, and until then the rows'
checksums hold, because both names count as one (`headwater.index.rows.checksums`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pyarrow as pa

from headwater.data.rows import Row
from headwater.index.failures import storing
from headwater.index.rows import COPY, READING_FIELDS, infer_schema
from headwater.index.store import Index

_EXACT = 2**53
"""Whole numbers beyond it would change as numbers, so a column that holds one is not widened."""


def make_room(index: Index, rows: Iterable[Row]) -> None:
    """Add the columns that these rows need and the index does not have, and widen those that are too narrow for them.

    No row changes, and none is added. What no column can hold stays in `extra`.
    """
    manifest = index.manifest
    wanted = infer_schema(rows, manifest.columns, keep_text=manifest.keeps_text)
    with index.writing():
        _finish(index)
        there = {field.name: field.type for field in index.dataset.schema}
        new = [field for field in wanted if field.name not in there and field.name not in READING_FIELDS]
        if new:
            with storing(index.path):
                index.dataset.add_columns(new)
            index.refresh()
        for field in wanted:
            narrow = there.get(field.name) == pa.int64() and field.type == pa.float64()
            if narrow and not index.count_where(f"abs(`{field.name}`) > {_EXACT}"):
                _widen(index, field.name)


def _widen(index: Index, name: str) -> None:
    """Turn a column of whole numbers into one of numbers."""
    widened = tuple(dict.fromkeys((*index.manifest.widened, name)))
    index.set_manifest(dataclasses.replace(index.manifest, widened=widened))  # first: it changes no checksum
    with storing(index.path):
        index.dataset.add_columns({f"{name}{COPY}": f"CAST(`{name}` AS DOUBLE)"})
        index.dataset.drop_columns([name])
    index.refresh()
    _finish(index)


def _finish(index: Index) -> None:
    """Finish, or undo, a widening that a kill interrupted."""
    names = set(index.dataset.schema.names)
    for copied in sorted(name for name in names if name.endswith(COPY)):
        name = copied.removesuffix(COPY)
        with storing(index.path):
            if name in names:
                index.dataset.drop_columns([copied])
            else:
                index.dataset.alter_columns({"path": copied, "name": name})
        index.refresh()
