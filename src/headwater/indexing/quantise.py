"""A built index as codes: the same rows, their vectors in a few bytes, no model needed.

The coded index is a new one beside the old: a version of the old with codes as well would be larger, not smaller, and
deleting the old is the user's to do. It is written block by block like a build, and goes on after a kill like one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa

from headwater.core.errors import DataError, HeadwaterError, UsageError
from headwater.core.fingerprints import require_equal
from headwater.core.spec import Column
from headwater.engines.blocks import Block, OnProgress, Receipt, run
from headwater.index.info import unfinished
from headwater.index.manifest import Manifest
from headwater.index.rows import vector_fields
from headwater.index.store import Index, create_index, discard, exists, open_index, write_fragments
from headwater.index.upkeep import seal, sweep
from headwater.indexing.blocks import Progress, commit_receipts, rows_per_block
from headwater.search.codes import coded, encode, stored_vectors

_READ_BYTES = 32 * 2**20
"""Bytes of float32 rows that are encoded at once."""


def quantise_index(
    index: Index, out: str | Path, *, code: str, resume: bool = False, on_progress: OnProgress | None = None
) -> Index:
    """Write the rows of `index` to a new index at `out` whose vectors are codes, and return that.

    Args:
        index: a finished index of plain numbers.
        out: a path or object-store URI where nothing is yet.
        code: `int8`, `sign` (1 KiB a row and column) or `sign:BITS`.
        resume: go on with an interrupted run; starts one when there is none.
        on_progress: called after each block.

    Raises:
        UsageError: an unknown code, or the index is coded already.
        StoreError: something is at `out` already, or the disk is full.
        MismatchError: on resume, the index at `out` was not made from this one.
        DataError: the index is unfinished, or on resume has changed since.
    """
    already = [column.name for column in index.manifest.columns if column.scale is not None]
    if already:
        raise UsageError(
            f"'{already[0]}' is a code already", where=index.path, remedy="quantise the index it was made from"
        )
    if (warning := unfinished(index)) is not None:
        raise DataError(f"cannot be quantised yet: {warning}")
    manifest = _manifest(index.manifest, coded(index.manifest.columns, code))
    target, ours = _begin(str(out), manifest, index, resume=resume)
    with target.writing():
        try:
            sweep(target)
            _fill(index, target, on_progress)
            if not target.manifest.complete:
                seal(target)
        except HeadwaterError:
            if ours:
                discard(target)
            raise
    return target


def _manifest(of: Manifest, columns: tuple[Column, ...]) -> Manifest:
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return dataclasses.replace(of, columns=columns, status="building", tally=None, created=created)


def _begin(out: str, manifest: Manifest, source: Index, *, resume: bool) -> tuple[Index, bool]:
    if not (resume and exists(out)):
        empty = source.dataset.schema.empty_table()
        return create_index(out, manifest, _coded(empty, source.manifest.columns, manifest.columns).schema), True
    target = open_index(out)
    remedy = "give the index and the code it was begun with, or choose another name"
    require_equal(
        target.manifest.identity(),
        manifest.identity(),
        what=f"{out} was begun with another index or code",
        remedy=remedy,
    )
    return target, False


def _fill(index: Index, target: Index, on_progress: OnProgress | None) -> None:
    """Append the rows that are not there yet, after checking that those there are the first."""
    committed, source = target.digests(), index.digests()
    if committed != source[: len(committed)] or (target.manifest.complete and len(committed) < len(source)):
        raise DataError(
            f"{target.path} is not the beginning of {index.path}, which has changed since", remedy="choose another name"
        )
    progress = Progress(on_progress, len(source), rows=len(committed))
    run(
        _blocks(_tables(index, target, len(committed)), rows_per_block(target.rows_bytes)),
        Codes(target),
        progress.commit,
    )


@dataclass(frozen=True)
class Codes:
    """`Work` that writes tables of coded rows; a block's items are the tables it is made of."""

    target: Index

    def compute(self, block: Block[pa.Table]) -> Receipt:
        """Write the tables as fragments that no version has yet."""
        table = pa.concat_tables(block.items)
        return Receipt(block.number, block.start, table.num_rows, 0, {"fragments": write_fragments(self.target, table)})

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Append the blocks to the index as one version."""
        commit_receipts(self.target, receipts)


def _tables(index: Index, target: Index, skip: int) -> Iterator[pa.Table]:
    """Tables of the target's columns, `skip` rows left out at the start; memory is one table's at a time."""
    widest = max(column.dim for column in index.manifest.columns)
    for batch in index.batches(index.dataset.schema.names, rows=max(_READ_BYTES // (4 * widest), 16)):
        left = min(skip, batch.num_rows)
        skip -= left
        if left < batch.num_rows:
            rows = pa.Table.from_batches([batch.slice(left)])
            yield _coded(rows.drop_columns(["_rowaddr"]), index.manifest.columns, target.manifest.columns)


def _coded(table: pa.Table, old: Sequence[Column], new: Sequence[Column]) -> pa.Table:
    """The table with its vector columns replaced by codes and their scales, in the order an index has them."""
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
    """Tables in blocks of at least `rows` rows, the last one shorter."""
    held: list[pa.Table] = []
    number = 0
    for table in tables:
        held.append(table)
        if sum(part.num_rows for part in held) >= rows:
            yield Block(number, number * rows, held)
            held, number = [], number + 1
    if held:
        yield Block(number, number * rows, held)
