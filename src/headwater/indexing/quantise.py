"""Quantise an index: write a second index with the same rows, whose vectors are codes of a few bytes, without a model.

The codes go into a new index, because an index that held both the vectors and their codes would be larger, not smaller.
Deleting the old index is left to the user. Like a build, the new index is written block by block and can be resumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from headwater.core.errors import DataError, StoreError, UsageError
from headwater.core.spec import Column
from headwater.engines.blocks import Block, Engine, OnProgress, Receipt, WorkRecipe, versions
from headwater.engines.local import Local
from headwater.index.checks import check_index
from headwater.index.failures import storing
from headwater.index.info import unfinished
from headwater.index.rows import vector_fields
from headwater.index.store import Index, locator
from headwater.indexing.blocks import Progress, begin, commit_receipts, filling, rows_per_block, written
from headwater.search.codes import coded, encode, stored_vectors

_CHECKED = 64
"""How many rows are coded again when all are written."""

_READ_BYTES = 32 * 2**20
"""About so many bytes of float32 rows are encoded at once."""


def quantise_index(
    index: Index,
    out: str | Path,
    *,
    code: str,
    resume: bool = False,
    engine: Engine | None = None,
    on_progress: OnProgress | None = None,
) -> Index:
    """Write the rows of `index` to a new index at `out` whose vectors are codes, and return the new index.

    Args:
        index: a finished index whose vectors are stored as plain numbers.
        out: a path or object-store URI where nothing is yet.
        code: as in `headwater.search.codes.coded`.
        resume: continue an interrupted run, or start one if there is none.
        engine: where blocks are coded; None: in this process.
        on_progress: called after each block.

    Raises:
        UsageError: the code is unknown, or the index holds codes already.
        StoreError: something is at `out` already, or the disk is full.
        MismatchError: on resume, the index at `out` was not made from this one.
        DataError: the index is unfinished, or on resume it has changed since the run began.
    """
    old, already = index.manifest.columns, [c.name for c in index.manifest.columns if c.coded]
    if already:
        what = f"'{already[0]}' is a code already"
        raise UsageError(what, where=index.path, remedy="quantise one that was built with preset=full")
    if (warning := unfinished(index)) is not None:
        raise DataError(f"cannot be quantised yet: {warning}")
    columns, created = coded(old, code), datetime.now(UTC).isoformat(timespec="seconds")
    manifest = dataclasses.replace(index.manifest, columns=columns, status="building", tally=None, created=created)
    schema = _coded(index.dataset.schema.empty_table(), old, columns).schema
    other, remedy = "another index or code", "give the index and the code it was begun with, or choose another name"
    target, is_new = begin(str(out), manifest, schema, resume=resume, other=other, remedy=remedy)
    with filling(target, is_new=is_new):
        _fill(index, target, engine or Local(), on_progress)
    _verify(index, target)
    return target


def _fill(index: Index, target: Index, engine: Engine, on_progress: OnProgress | None) -> None:
    """Append the rows that the target does not have yet, after checking that it holds the first rows of the index."""
    committed, source = target.digests(), index.digests()
    if committed != source[: len(committed)] or (target.manifest.complete and len(committed) < len(source)):
        what = f"{target.path} is not the beginning of {index.path}, which has changed since"
        raise DataError(what, remedy="choose another name")
    progress = Progress(on_progress, len(source), rows=len(committed))
    blocks = _blocks(range(len(committed), len(source)), rows_per_block(target.rows_bytes))
    engine.run(blocks, Codes(index, target), progress.commit)


def _verify(index: Index, target: Index) -> None:
    """Read what was written: every row against its checksum, and rows here and there against codes made again.

    Raises:
        StoreError: a row is not what it should be.
    """
    remedy = f"delete {target.path} and quantise again; if it happens again, the disk is faulty"
    if faults := [fault for fault in check_index(target.path) if fault.kind != "norm"]:  # a zero vector stays one
        raise StoreError(f"what was written is not sound: {faults[0]}", where=target.path, remedy=remedy)
    old, new = index.manifest.columns, target.manifest.columns
    places = np.unique(np.linspace(0, max(index.count - 1, 0), min(_CHECKED, index.count)).astype(int)).tolist()
    names = [entry.name for entry in vector_fields(new)]
    again = _coded(index.take(places, [entry.name for entry in vector_fields(old)]), old, new)
    there = target.take(places, names)
    for before, after in zip(old, new, strict=True):
        found = (stored_vectors(table, after) for table in (again, there))
        if not torch.equal(*found):
            raise StoreError(f"codes of '{before.name}' are not those of its vectors", where=target.path, remedy=remedy)


@dataclass(frozen=True)
class Codes:
    """`Work` that writes coded rows of one index into another; a block's items are places of rows in the first one."""

    index: Index
    target: Index

    def prepare(self, block: Block[int]) -> Block[int]:
        """Nothing is prepared: whole blocks of uncoded rows would take much memory."""
        return block

    def compute(self, prepared: Block[int]) -> tuple[Block[int], pa.Table]:
        """Read and code the rows, of which one batch is in memory at a time."""
        old, new = self.index.manifest.columns, self.target.manifest.columns
        size = max(_READ_BYTES // (4 * max(column.dim for column in old)), 16)
        how = {"batch_size": size, "scan_in_order": True, "batch_readahead": 2, "fragment_readahead": 2}
        with storing(self.index.path):
            scanner = self.index.dataset.scanner(offset=prepared.items[0], limit=len(prepared.items), **how)
            coded_tables = [_coded(pa.Table.from_batches([batch]), old, new) for batch in scanner.to_batches()]
        return prepared, pa.concat_tables(coded_tables)

    def write(self, computed: tuple[Block[int], pa.Table]) -> Receipt:
        """Write the rows as fragments that belong to no version yet."""
        block, table = computed
        return Receipt(block.number, block.start, table.num_rows, 0, written(self.target, table))

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Append the blocks to the index as one version."""
        commit_receipts(self.target, receipts)

    def recipe(self) -> WorkRecipe:
        """How another process opens both indexes and does the same work."""
        paths = {"index": locator(self.index.path), "target": locator(self.target.path)}
        arguments = {**paths, "version": self.index.dataset.version}
        return WorkRecipe("headwater.indexing.elsewhere:index_codes", arguments, versions())


def _blocks(places: range, rows: int) -> Iterator[Block[int]]:
    """Blocks of `rows` consecutive places; the last may be shorter."""
    for number, start in enumerate(range(places.start, places.stop, rows)):
        yield Block(number, start, places[start - places.start :][:rows])


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
