"""Divide work into blocks: computing a block gives a receipt, and receipts are committed in the order of the blocks.

    run(cut(rows, 4096), work)      work.compute(block) → receipt,  work.commit([receipt, ...])

A block may be computed on any machine, and more than once: computing it only writes files that nothing refers to yet.
Its receipt is committed once, in order, by one process, which makes the files part of the result. A run that is killed
loses what was not committed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)
Item_contra = TypeVar("Item_contra", contravariant=True)

OnProgress = Callable[[int, "int | None", int], None]
"""Called with rows done, rows in all (None when the number is not known in advance), and tokens read so far."""


@dataclass(frozen=True)
class Block(Generic[Item_co]):
    """Consecutive items of a stream: the block's number, the number of items before it, and the items."""

    number: int
    start: int
    items: Sequence[Item_co]


@dataclass(frozen=True)
class Receipt:
    """The result of computing a block. It is JSON-ready, so that it may come from another process or machine.

    Attributes:
        block: the block's number.
        start: how many rows come before the block.
        rows: how many rows the block has.
        tokens: how many tokens a model read.
        written: where the results are, in a form that the `Work` which wrote them understands.
    """

    block: int
    start: int
    rows: int
    tokens: int
    written: Mapping[str, Any]


@runtime_checkable
class Work(Protocol[Item_contra]):
    """One kind of work in blocks."""

    def compute(self, block: Block[Item_contra]) -> Receipt:
        """Compute a block and write its results to files that nothing refers to yet."""
        ...

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Make the results of consecutive blocks, in their order, part of the result."""
        ...


def cut(items: Iterable[Item], size: int) -> Iterator[Block[Item]]:
    """Divide a stream into blocks of `size` items, numbered from 0; the last may be shorter."""
    stream = iter(items)
    chunks = iter(lambda: list(itertools.islice(stream, size)), [])
    for number, chunk in enumerate(chunks):
        yield Block(number, number * size, chunk)


def run(blocks: Iterable[Block[Item]], work: Work[Item], on_commit: Callable[[Receipt], None] | None = None) -> None:
    """Compute and commit the blocks one after another in this process; `on_commit` is called after each commit."""
    for block in blocks:
        receipt = work.compute(block)
        work.commit([receipt])
        if on_commit is not None:
            on_commit(receipt)
