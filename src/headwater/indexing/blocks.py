"""Write rows into an index block by block: what builds, additions and quantisations have in common.

tokens ─compute─▶ vectors ─▶ a table ─▶ fragments (receipt) ─commit─▶ a version of the index
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headwater.core.errors import HeadwaterError
from headwater.core.fingerprints import require_equal
from headwater.data.tokens import TokenRow
from headwater.engines.blocks import Block, OnProgress, Receipt
from headwater.index.manifest import Manifest
from headwater.index.rows import to_table
from headwater.index.store import Index, commit_fragments, create_index, discard, exists, open_index, write_fragments
from headwater.index.upkeep import seal, sweep
from headwater.methods.bound import Bound

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
        return create_index(out, manifest, schema), True
    index = open_index(out)
    what = f"{out} was begun with {other}"
    require_equal(index.manifest.identity(), manifest.identity(), what=what, remedy=remedy)
    return index, False


@contextlib.contextmanager
def filling(index: Index, *, is_new: bool) -> Iterator[None]:
    """Hold the index for writing while rows are appended, and mark it as complete at the end.

    After an error, a new index that still holds no row is removed.
    """
    with index.writing():
        try:
            if not is_new:
                sweep(index)
            yield
            if not index.manifest.complete:
                seal(index)
        except HeadwaterError:
            if is_new:  # while the index is held for writing, nobody else can have begun to fill it
                discard(index)
            raise


@dataclass
class Progress:
    """Counts what a run over a corpus has done and reports it.

    Attributes:
        on_progress: called with rows done, rows in all and tokens read; None reports nothing.
        total: rows in all; None when unknown.
        rows, tokens: how many are done, up to the end of the last block.
    """

    on_progress: OnProgress | None
    total: int | None = None
    rows: int = 0
    tokens: int = 0

    def within(self, rows: int, tokens: int) -> None:
        """Report that this many rows and tokens of the present block have been read."""
        if self.on_progress is not None:
            self.on_progress(self.rows + rows, self.total, self.tokens + tokens)

    def past(self, rows: int, tokens: int) -> None:
        """Count this many more rows and tokens as done, without a report."""
        self.rows, self.tokens = self.rows + rows, self.tokens + tokens

    def commit(self, receipt: Receipt) -> None:
        """Count a committed block as done and report it."""
        self.past(receipt.rows, receipt.tokens)
        self.within(0, 0)


@dataclass(frozen=True)
class IndexRows:
    """`Work` that reads rows with a method and appends them to an index."""

    index: Index
    bound: Bound
    progress: Progress = field(default_factory=lambda: Progress(None))

    def compute(self, block: Block[TokenRow]) -> Receipt:
        """Read the rows with the model and write them as fragments that belong to no version yet."""
        rows, manifest = list(block.items), self.index.manifest

        def on_batch(done: int, tokens: int) -> None:
            if done < len(rows):  # the last batch is reported when the block is committed
                self.progress.within(done, tokens)

        vectors, losses = self.bound.stored(rows, manifest.columns, on_batch)
        schema, readings = self.index.dataset.schema, self.bound.readings(rows)
        table = to_table(rows, losses, vectors, schema, readings=readings, keep_text=manifest.keeps_text)
        tokens = sum(len(row.ids) for row in rows)
        return Receipt(block.number, block.start, len(rows), tokens, {"fragments": write_fragments(self.index, table)})

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Append the blocks to the index as one version."""
        commit_receipts(self.index, receipts)


def commit_receipts(index: Index, receipts: Sequence[Receipt]) -> None:
    """Append the fragments of consecutive blocks to the index, in the order of the blocks, as one version."""
    fragments: list[dict[str, Any]] = [f for receipt in receipts for f in receipt.written["fragments"]]
    commit_fragments(index, fragments)
