"""Work cut into blocks: computing a block gives a receipt, and receipts are committed in the order of the blocks.

    run(cut(rows, 4096), work)      work.compute(block) → receipt,  work.commit([receipt, ...])

Computing a block may happen anywhere, and again; it leaves files that nothing refers to yet. Committing happens once,
in order, in one place, and makes them part of the result. A run that is killed loses what was not committed.
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
"""Called with rows done, rows in all (None where only reading would tell), and tokens read so far."""


@dataclass(frozen=True)
class Block(Generic[Item_co]):
    """Consecutive items of a stream: the `number`-th block, `start` items before it."""

    number: int
    start: int
    items: Sequence[Item_co]


@dataclass(frozen=True)
class Receipt:
    """What computing a block left. JSON-ready, so that it may come from another process or machine.

    Attributes:
        block: the block's number.
        start: rows before the block.
        rows: how many it has.
        tokens: how many of them a model read.
        written: where its results are, in the terms of the work that wrote them.
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
        """Compute a block and write its results where nothing refers to them yet."""
        ...

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Make the results of consecutive blocks, in their order, part of the whole."""
        ...


def cut(items: Iterable[Item], size: int, *, number: int = 0, start: int = 0) -> Iterator[Block[Item]]:
    """Consecutive items in blocks of `size`, the last one shorter; the first block is called `number`."""
    stream = iter(items)
    while block := list(itertools.islice(stream, size)):
        yield Block(number, start, block)
        number, start = number + 1, start + len(block)


def run(blocks: Iterable[Block[Item]], work: Work[Item], on_commit: Callable[[Receipt], None] | None = None) -> None:
    """Compute the blocks one after another in this process and commit each; `on_commit` is called after each."""
    for block in blocks:
        receipt = work.compute(block)
        work.commit([receipt])
        if on_commit is not None:
            on_commit(receipt)
