"""Work without a model for tests of engines: it squares numbers, and on chosen blocks it is slow, fails or dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headwater.core.errors import NumericError, StoreError
from headwater.engines.blocks import Block, Place, Receipt, WorkRecipe


@dataclass(frozen=True)
class Squares:
    """Each block's squares go into a file of its own in `folder`; committed ones are in `committed`, in order.

    Attributes:
        folder: where files go.
        pause: seconds that a block takes.
        slow, fails, full, dies, dies_once: numbers of blocks that take ten times as long, raise an error, find a full
            disk, or kill the process that computes them, always or the first time.
        committed: what has been committed.
        orders: the numbers of the blocks committed together.
    """

    folder: Path
    pause: float = 0.0
    slow: tuple[int, ...] = ()
    fails: tuple[int, ...] = ()
    full: tuple[int, ...] = ()
    dies: tuple[int, ...] = ()
    dies_once: tuple[int, ...] = ()
    committed: list[int] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)

    def prepare(self, block: Block[int]) -> Block[int]:
        return block

    def compute(self, prepared: Block[int]) -> tuple[Block[int], list[int]]:
        number = prepared.number
        time.sleep(self.pause * (10 if number in self.slow else 1))
        mark = self.folder / f"died-{number}"
        if number in self.dies or (number in self.dies_once and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self.fails:
            raise NumericError(f"the block {number} is not finite", where="here", remedy="do otherwise")
        return prepared, [item * item for item in prepared.items]

    def write(self, computed: tuple[Block[int], list[int]]) -> Receipt:
        block, squares = computed
        if block.number in self.full:
            raise StoreError("the disk is full", where=str(self.folder), remedy="make room")
        file = self.folder / f"{block.number}-{os.getpid()}-{time.monotonic_ns()}.txt"
        file.write_text(" ".join(map(str, squares)), encoding="utf-8")
        return Receipt(block.number, block.start, len(squares), sum(squares), {"file": file.name, "pid": os.getpid()})

    def commit(self, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            text = (self.folder / receipt.written["file"]).read_text(encoding="utf-8")
            self.committed.extend(map(int, text.split()))
            self.orders.append(receipt.block)

    def recipe(self) -> WorkRecipe:
        chosen = {name: list(getattr(self, name)) for name in ("slow", "fails", "full", "dies", "dies_once")}
        arguments = {"folder": str(self.folder), "pause": self.pause, **chosen}
        return WorkRecipe("oracles.counted_work:squares", arguments, {})


def squares(place: Place, *, folder: str, pause: float, **chosen: list[int]) -> Squares:
    return Squares(Path(folder), pause, **{name: tuple(numbers) for name, numbers in chosen.items()})
