"""Write rows into an index block by block: what builds, additions and quantisations have in common.

rows ─prepare─▶ tokens ─compute─▶ vectors ─write─▶ a table, as fragments (receipt) ─commit─▶ a version of the index
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headwater.core.errors import HeadwaterError, MismatchError, StoreError
from headwater.core.fingerprints import require_equal
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.engines.blocks import Block, InterruptedInBlock, OnProgress, Receipt, WorkRecipe, versions
from headwater.index.fragments import write_fragments
from headwater.index.manifest import Manifest
from headwater.index.rows import to_table
from headwater.index.store import Index, create_index, discard, exists, locator, open_index
from headwater.index.upkeep import seal, sweep
from headwater.indexing.open_block import OpenBlock, commit_whole, keep_open
from headwater.methods.bound import Bound
from headwater.methods.gathered import Gathered
from headwater.models.elsewhere import described_loading

_BLOCK_BYTES = 64 * 2**20
_FEWEST_ROWS, _MOST_ROWS = 256, 8192


def rows_per_block(row_bytes: int) -> int:
    """How many rows to commit together: about 64 MiB of vectors, a power of two between 256 and 8192."""
    fitting = max(_BLOCK_BYTES // max(row_bytes, 1), 1)
    return min(max(1 << (fitting.bit_length() - 1), _FEWEST_ROWS), _MOST_ROWS)


def begin(
    out: str, manifest: Manifest, schema: pa.Schema, *, resume: bool, other: str, remedy: str
) -> tuple[Index, bool]:
    """Create the index to fill, or with `resume` open the one at `out`; returns it and whether it is new.

    Raises:
        StoreError: something is at `out` already, and `resume` is not set.
        MismatchError: the index at `out` was begun with another manifest; `other` and `remedy` complete the message.
    """
    if not (resume and exists(out)):
        try:
            return create_index(out, manifest, schema), True
        except StoreError:
            if not (resume and exists(out)):  # else another shard's process made it at the same time
                raise
    index = open_index(out)
    then, now = index.manifest.method, manifest.method
    if then.name != now.name:  # then all its options differ as well
        what = f"{out} was begun with the method '{then.name}', not '{now.name}'"
        raise MismatchError(what, fields=("method.name",), remedy=remedy)
    what = f"{out} was begun with {other}"
    require_equal(index.manifest.identity(), manifest.identity(), what=what, remedy=remedy)
    return index, False


@contextlib.contextmanager
def filling(index: Index, *, is_new: bool) -> Iterator[None]:
    """Hold the index for writing while rows are appended, and mark it as complete at the end.

    After an error or Ctrl-C, a new index that still holds no row is removed.
    """
    with index.writing():
        try:
            if not is_new:
                sweep(index)
            yield
            if not index.manifest.complete:
                seal(index, filled=True)
        except (HeadwaterError, KeyboardInterrupt):
            if is_new:  # while the index is held for writing, nobody else can have begun to fill it
                discard(index)
            raise


@dataclass
class Progress:
    """Counts what a run over a corpus has done and reports it; threads may call it at the same time.

    Attributes:
        on_progress: called with rows done, rows in all and tokens read; None reports nothing.
        total: rows in all; None when unknown.
        rows, tokens: how many are committed or were passed over.
    """

    on_progress: OnProgress | None
    total: int | None = None
    rows: int = 0
    tokens: int = 0
    _waiting: tuple[int, int] = (0, 0)
    _shown: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def within(self, rows: int, tokens: int) -> None:
        """Report that this many rows and tokens of the present block have been read."""
        with self._lock:
            done = self.rows + self._waiting[0] + rows
            if self.on_progress is None or done < self._shown:
                return
            self._shown = done
            read = self.tokens + self._waiting[1] + tokens
        self.on_progress(done, self.total, read)

    def past(self, rows: int, tokens: int) -> None:
        """Count this many more rows and tokens as done, without a report."""
        with self._lock:
            self.rows, self.tokens = self.rows + rows, self.tokens + tokens

    def computed(self, rows: int, tokens: int) -> None:
        """Count a block that has been computed in this process and waits to be written and committed."""
        with self._lock:
            self._waiting = (self._waiting[0] + rows, self._waiting[1] + tokens)

    def commit(self, receipt: Receipt) -> None:
        """Count a committed block as done and report it."""
        with self._lock:
            rows, tokens = self._waiting
            self._waiting = (max(rows - receipt.rows, 0), max(tokens - receipt.tokens, 0))
        self.past(receipt.rows, receipt.tokens)
        self.within(0, 0)


@dataclass(frozen=True)
class _Read:
    """A block whose rows are tokens, and what has been read of them.

    Attributes:
        block: the block.
        found: its rows, or those that were read before it was interrupted.
        instead_of: fragments of the index with rows of this block, in whose place these rows go.
    """

    block: Block[Any]
    found: Gathered
    instead_of: tuple[int, ...] = ()


@dataclass(frozen=True)
class IndexRows:
    """`Work` that reads rows with a method and appends them to an index.

    Attributes:
        index: the index.
        bound: the method and the reader.
        progress: told of each batch.
        loading: where other processes load the model: `device` and `device_map` of `load_model`.
        opened: rows that the index has of a block which an earlier run began.
    """

    index: Index
    bound: Bound
    progress: Progress = field(default_factory=lambda: Progress(None))
    loading: Mapping[str, Any] = field(default_factory=dict)
    opened: OpenBlock | None = None

    def prepare(self, block: Block[Row | TokenRow]) -> _Read:
        """Tokenise the rows that are not tokens yet."""
        rows = [item for item in block.items if isinstance(item, Row)]
        made = iter(self.bound.reader.tokenization.encode(rows))
        return _Read(block, Gathered.of([item if isinstance(item, TokenRow) else next(made) for item in block.items]))

    def compute(self, prepared: _Read) -> _Read:
        """Read the rows with the model, all but those that the index has already; Ctrl-C keeps those that were read."""
        found, columns = prepared.found, self.index.manifest.columns
        rows = found.rows

        def on_batch(done: int, tokens: int) -> None:
            if done < len(rows):  # the last batch is reported when the block is committed
                self.progress.within(done, tokens)

        begun = self.opened if self.opened is not None and self.opened.within(rows) else None
        if begun is not None:
            begun.fill(found, columns)
        instead_of = () if begun is None else begun.fragments
        try:
            self.bound.read_into(found, columns, on_batch)
        except KeyboardInterrupt:
            part = _Read(prepared.block, found.part(), instead_of)
            raise InterruptedInBlock(lambda: self.keep(part)) from None
        self.progress.computed(len(rows), sum(len(row.ids) for row in rows))
        return _Read(prepared.block, found, instead_of)

    def keep(self, part: _Read) -> None:
        """Commit some rows of a block; the next run computes the others."""
        if part.found.rows:
            keep_open(self.index, self.write(part).written["fragments"], part.instead_of)

    def write(self, computed: _Read) -> Receipt:
        """Write the rows as fragments that belong to no version yet."""
        rows, index, block, found = computed.found.rows, self.index, computed.block, computed.found
        readings, schema, keep_text = self.bound.readings(rows), index.dataset.schema, index.manifest.keeps_text
        table = to_table(rows, found.losses, found.vectors, schema, readings=readings, keep_text=keep_text)
        tokens = sum(len(row.ids) for row in rows)
        made = {**written(index, table), "instead_of": list(computed.instead_of)}
        return Receipt(block.number, block.start, len(rows), tokens, made)

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Append the blocks to the index as one version."""
        commit_receipts(self.index, receipts)

    def recipe(self) -> WorkRecipe:
        """How another process opens the index, loads its model, and does the same work."""
        model, loading = described_loading(self.bound.reader.loaded, self.loading)
        arguments = {"index": locator(self.index.path), "model": model, "loading": loading}
        return WorkRecipe("headwater.indexing.elsewhere:index_rows", arguments, versions())


def written(index: Index, table: pa.Table) -> dict[str, Any]:
    """Write a table as fragments; returns what a receipt holds of it: the fragments, and a digest of all checksums."""
    table = index.summed(table)
    return {"fragments": write_fragments(index, table), "checksum": digest_of(table.column("checksum").to_pylist())}


def digest_of(checksums: Sequence[bytes | None]) -> str:
    """A digest of the checksums of consecutive rows."""
    return hashlib.blake2b(b"".join(value or b"" for value in checksums), digest_size=8).hexdigest()


def commit_receipts(index: Index, receipts: Sequence[Receipt]) -> None:
    """Append the fragments of consecutive blocks to the index, in the order of the blocks, as one version."""
    fragments: list[dict[str, Any]] = [f for receipt in receipts for f in receipt.written["fragments"]]
    commit_whole(index, fragments, [f for receipt in receipts for f in receipt.written.get("instead_of", ())])
