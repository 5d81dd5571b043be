"""Quantise an index: write a second index with the same rows, whose vectors are codes of a few bytes, without a model.

The codes go into a new index, because an index that held both the vectors and their codes would be larger, not smaller.
Deleting the old index is left to the user. Like a build, the new index is written block by block and can be resumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from headwater.core.errors import DataError, UsageError
from headwater.core.spec import Column
from headwater.engines.blocks import Block, OnProgress, Receipt, run
from headwater.index.info import unfinished
from headwater.index.rows import vector_fields
from headwater.index.store import Index, write_fragments
from headwater.indexing.blocks import Progress, begin, commit_receipts, filling, rows_per_block
from headwater.search.codes import coded, encode, stored_vectors

_READ_BYTES = 32 * 2**20
"""About so many bytes of float32 rows are encoded at once."""


def quantise_index(
    index: Index, out: str | Path, *, code: str, resume: bool = False, on_progress: OnProgress | None = None
) -> Index:
    """Write the rows of `index` to a new index at `out` whose vectors are codes, and return the new index.

    Args:
        index: a finished index whose vectors are stored as plain numbers.
        out: a path or object-store URI where nothing is yet.
        code: `int8`, `sign` (1 KiB a row and column) or `sign:BITS`.
        resume: continue an interrupted run, or start one if there is none.
        on_progress: called after each block.

    Raises:
        UsageError: the code is unknown, or the index holds codes already.
        StoreError: something is at `out` already, or the disk is full.
        MismatchError: on resume, the index at `out` was not made from this one.
        DataError: the index is unfinished, or on resume it has changed since the run began.
    """
    old, already = index.manifest.columns, [c.name for c in index.manifest.columns if c.scale is not None]
    if already:
        what = f"'{already[0]}' is a code already"
        raise UsageError(what, where=index.path, remedy="quantise the index it was made from")
    if (warning := unfinished(index)) is not None:
        raise DataError(f"cannot be quantised yet: {warning}")
    columns, created = coded(old, code), datetime.now(UTC).isoformat(timespec="seconds")
    manifest = dataclasses.replace(index.manifest, columns=columns, status="building", tally=None, created=created)
    schema = _coded(index.dataset.schema.empty_table(), old, columns).schema
    other, remedy = "another index or code", "give the index and the code it was begun with, or choose another name"
    target, is_new = begin(str(out), manifest, schema, resume=resume, other=other, remedy=remedy)
    with filling(target, is_new=is_new):
        _fill(index, target, on_progress)
    return target


def _fill(index: Index, target: Index, on_progress: OnProgress | None) -> None:
    """Append the rows that the target does not have yet, after checking that it holds the first rows of the index."""
    committed, source = target.digests(), index.digests()
    if committed != source[: len(committed)] or (target.manifest.complete and len(committed) < len(source)):
        what = f"{target.path} is not the beginning of {index.path}, which has changed since"
        raise DataError(what, remedy="choose another name")
    progress = Progress(on_progress, len(source), rows=len(committed))
    blocks = _blocks(_tables(index, target, len(committed)), rows_per_block(target.rows_bytes))
    run(blocks, Codes(target), progress.commit)


@dataclass(frozen=True)
class Codes:
    """`Work` that writes tables of coded rows; a block's items are tables."""

    target: Index

    def compute(self, block: Block[pa.Table]) -> Receipt:
        """Write the tables as fragments that belong to no version yet."""
        table = pa.concat_tables(block.items)
        return Receipt(block.number, block.start, table.num_rows, 0, {"fragments": write_fragments(self.target, table)})

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Append the blocks to the index as one version."""
        commit_receipts(self.target, receipts)


def _tables(index: Index, target: Index, skip: int) -> Iterator[pa.Table]:
    """Tables with the target's columns, without the first `skip` rows; one table is in memory at a time."""
    widest = max(column.dim for column in index.manifest.columns)
    for batch in index.batches(index.dataset.schema.names, rows=max(_READ_BYTES // (4 * widest), 16)):
        left = min(skip, batch.num_rows)
        skip -= left
        if left < batch.num_rows:
            rows = pa.Table.from_batches([batch.slice(left)])
            yield _coded(rows.drop_columns(["_rowaddr"]), index.manifest.columns, target.manifest.columns)


def _coded(table: pa.Table, old: Sequence[Column], new: Sequence[Column]) -> pa.Table:
    """The table with its vector columns replaced by codes and their scales, in the order of an index's columns."""
    place = table.schema.names.index(old[0].name)
    fields = {entry.name: entry for entry in vector_fields(new)}
    made = table.drop_columns([column.name for column in old])
    for before, after in zip(old, new, strict=True):
        for name, values in encode(stored_vectors(table, before), after).items():
            flat = pa.array(values.reshape(-1))
            kind = fields[name].type
            cells = pa.FixedSizeListArray.from_arrays(flat, type=kind) if pa.types.is_fixed_size_list(kind) else flat
            made = made.add_column(place, fields[name], cells)
            place += 1
    return made


def _blocks(tables: Iterable[pa.Table], rows: int) -> Iterator[Block[pa.Table]]:
    """Collect tables into blocks of at least `rows` rows; the last may be shorter."""
    held: list[pa.Table] = []
    number = 0
    for table in tables:
        held.append(table)
        if sum(part.num_rows for part in held) >= rows:
            yield Block(number, number * rows, held)
            held, number = [], number + 1
    if held:
        yield Block(number, number * rows, held)
