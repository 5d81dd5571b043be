"""Divide work into blocks: computing a block gives a receipt, and receipts are committed in the order of the blocks.

    engine.run(cut(rows, 4096), work)       prepare ─▶ compute ─▶ write ─▶ receipt ═ in order ═▶ commit

A block may be computed on any machine, and more than once: computing it only writes files that nothing refers to yet.
Its receipt is committed once, in order, by one process, which makes the files part of the result. A run that is killed
loses what was not committed. An `Engine` decides where and when blocks are computed; every engine gives the same bits.
"""

from __future__ import annotations

import importlib
import importlib.metadata
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

    def __str__(self) -> str:
        return f"block {self.number} (rows {self.start + 1:,} to {self.start + len(self.items):,})"


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


@dataclass(frozen=True)
class Place:
    """What a process may use that makes work from a recipe.

    Attributes:
        accelerators: how many accelerators; with several, a model is spread over them.
        threads: how many threads a computation on the CPU takes; None leaves that to PyTorch.
    """

    accelerators: int = 0
    threads: int | None = None


@dataclass(frozen=True)
class WorkRecipe:
    """How another process makes the same work: the name of a function, and its JSON-ready arguments.

    Attributes:
        maker: `module:function`. The function takes a `Place` and the arguments, and returns the work.
        arguments: by name.
        fingerprint: what must be equal in both processes, such as the library's version; by name.
    """

    maker: str
    arguments: Mapping[str, Any]
    fingerprint: Mapping[str, str]

    def make(self, place: Place) -> Work[Any]:
        """Make the work in this process."""
        module, _, function = self.maker.partition(":")
        made: Work[Any] = getattr(importlib.import_module(module), function)(place, **self.arguments)
        return made


@runtime_checkable
class Work(Protocol[Item_contra]):
    """One kind of work in blocks. Its steps are called in this order, each for one block at a time.

    An engine may call them from different threads or processes, so that one block is written while the next one is
    computed and the one after that is prepared.
    """

    def prepare(self, block: Block[Item_contra]) -> Any:
        """Do what needs no model, such as tokenising."""
        ...

    def compute(self, prepared: Any) -> Any:
        """Compute the results of a prepared block, in memory; may raise `InterruptedInBlock`."""
        ...

    def write(self, computed: Any) -> Receipt:
        """Write the results of a block to files that nothing refers to yet."""
        ...

    def commit(self, receipts: Sequence[Receipt]) -> None:
        """Make the results of consecutive blocks, in their order, part of the result."""
        ...

    def recipe(self) -> WorkRecipe:
        """How another process makes this work; raises `UsageError` if none can."""
        ...


class InterruptedInBlock(KeyboardInterrupt):
    """Ctrl-C while a block was computed, of which something is there already.

    Attributes:
        keep: makes what is there part of the result; to be called when every block before this one has been committed.
    """

    def __init__(self, keep: Callable[[], None]) -> None:
        super().__init__()
        self.keep = keep


OnCommit = Callable[[Receipt], None]
"""Called after each block's commit with its receipt, in the order of the blocks."""


@runtime_checkable
class Engine(Protocol):
    """Where and when blocks are computed; other processes make the work from its recipe."""

    @property
    def elsewhere(self) -> bool:
        """Whether blocks are computed in other processes."""
        ...

    def run(self, blocks: Iterable[Block[Item]], work: Work[Item], on_commit: OnCommit | None = None) -> None:
        """Compute all blocks and commit each of them, in their order.

        A block that cannot be computed ends the run with its error, after all blocks before it have been committed.
        """
        ...


def cut(items: Iterable[Item], size: int) -> Iterator[Block[Item]]:
    """Divide a stream into blocks of `size` items, numbered from 0; the last may be shorter."""
    stream = iter(items)
    chunks = iter(lambda: list(itertools.islice(stream, size)), [])
    for number, chunk in enumerate(chunks):
        yield Block(number, number * size, chunk)


def versions() -> dict[str, str]:
    """What all processes that share one piece of work must have in common."""
    return {"headwater": importlib.metadata.version("headwater")}


def whole(work: Work[Item], block: Block[Item]) -> Receipt:
    """Prepare, compute and write one block."""
    return work.write(work.compute(work.prepare(block)))


def commit(work: Work[Any], receipt: Receipt, on_commit: OnCommit | None) -> None:
    """Commit one block and say so."""
    work.commit([receipt])
    if on_commit is not None:
        on_commit(receipt)
