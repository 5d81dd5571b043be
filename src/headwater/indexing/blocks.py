"""Rows into an index, block by block: what builds, additions and quantisations have in common.

tokens ─compute─▶ vectors ─▶ a table ─▶ fragments (receipt) ─commit─▶ a version of the index
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.data.tokens import TokenRow
from headwater.engines.blocks import Block, OnProgress, Receipt
from headwater.index.rows import to_table
from headwater.index.store import Index, commit_fragments, write_fragments
from headwater.methods.bound import Bound

_BLOCK_BYTES = 64 * 2**20
_FEWEST_ROWS, _MOST_ROWS = 256, 8192


def rows_per_block(row_bytes: int) -> int:
    """Rows committed together: about 64 MiB of vectors, a power of two between 256 and 8192."""
    fitting = max(_BLOCK_BYTES // max(row_bytes, 1), 1)
    return min(max(1 << (fitting.bit_length() - 1), _FEWEST_ROWS), _MOST_ROWS)


@dataclass
class Progress:
    """How far a run over a corpus has come, and whom to tell.

    Attributes:
        call: called with rows done, rows in all and tokens read; None: nobody is told.
        total: rows in all, None when unknown.
        rows, tokens: done so far.
    """

    call: OnProgress | None
    total: int | None = None
    rows: int = 0
    tokens: int = 0

    def within(self, rows: int, tokens: int) -> None:
        """So many rows and tokens of the present block are read."""
        if self.call is not None:
            self.call(self.rows + rows, self.total, self.tokens + tokens)

    def past(self, rows: int, tokens: int) -> None:
        """So many more rows and tokens are done."""
        self.rows, self.tokens = self.rows + rows, self.tokens + tokens

    def commit(self, receipt: Receipt) -> None:
        """A block is committed."""
        self.past(receipt.rows, receipt.tokens)
        self.within(0, 0)


@dataclass(frozen=True)
class IndexRows:
    """`Work` that reads rows with a method and appends them to an index."""

    index: Index
    bound: Bound
    progress: Progress = field(default_factory=lambda: Progress(None))

    def compute(self, block: Block[TokenRow]) -> Receipt:
        """Read the rows with the model and write them as fragments that no version has yet."""
        rows, manifest = list(block.items), self.index.manifest

        def on_batch(done: int, tokens: int) -> None:
            if done < len(rows):  # the last batch counts when the block is committed
                self.progress.within(done, tokens)

        vectors, losses = self.bound.stored(rows, manifest.columns, on_batch)
        table = to_table(rows, losses, vectors, self.index.dataset.schema, keep_text=manifest.keeps_text)
        tokens = sum(len(row.ids) for row in rows)
        return Receipt(block.number, block.start, len(rows), tokens, {"fragments": write_fragments(self.index, table)})

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Append the blocks to the index as one version."""
        commit_receipts(self.index, receipts)


def commit_receipts(index: Index, receipts: Sequence[Receipt]) -> None:
    """Append the fragments of consecutive blocks, in their order, as one version."""
    fragments: list[dict[str, Any]] = [f for receipt in receipts for f in receipt.written["fragments"]]
    commit_fragments(index, fragments)
