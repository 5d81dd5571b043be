"""Laws of the local engine: steps overlap, in bounded numbers, and the result is that of one step after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.core.errors import NumericError
from headwater.engines.blocks import Block, Receipt, cut
from headwater.engines.local import Local
from oracles.counted_work import Squares
from oracles.fake_method import fake_build, fake_method, records


def test_overlapped_steps_commit_what_serial_steps_commit(tmp_path: Path) -> None:
    told: dict[int, list[Receipt]] = {0: [], 1: [], 3: []}
    for ahead, seen in told.items():
        work = Squares(tmp_path)
        Local(ahead).run(cut(range(50), 7), work, seen.append)
        assert work.committed == [i * i for i in range(50)]
        assert work.orders == [receipt.block for receipt in seen] == list(range(8))


def test_builds_are_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = {"method": fake_method(pause=0.001), "block_rows": 4}
    serial, overlapped = (
        fake_build(tmp_path / f"{ahead}.lance", records(50), engine=Local(ahead), **how) for ahead in (0, 2)
    )
    assert serial.dataset.to_table() == overlapped.dataset.to_table()
    assert serial.manifest.tally == overlapped.manifest.tally


def test_reading_computing_and_writing_overlap(tmp_path: Path) -> None:
    """Each step takes as long as the two others; one after another they take three times as long."""
    step = 0.02

    class Slow(Squares):
        def prepare(self, block: Block[int]) -> Block[int]:
            time.sleep(step)
            return block

        def write(self, computed: tuple[Block[int], list[int]]) -> Receipt:
            time.sleep(step)
            return super().write(computed)

    seconds = {}
    for ahead in (0, 2):
        began = time.perf_counter()
        Local(ahead).run(cut(range(20), 1), Slow(tmp_path, pause=step))
        seconds[ahead] = time.perf_counter() - began
    assert seconds[2] < 0.7 * seconds[0]


def test_blocks_are_read_ahead_in_bounded_numbers(tmp_path: Path) -> None:
    work, most = Squares(tmp_path, pause=0.005), 0

    def watched() -> Iterator[Block[int]]:
        nonlocal most
        for block in cut(range(60), 2):
            most = max(most, block.number - len(work.orders))
            yield block

    Local(2).run(watched(), work)
    assert 2 <= most <= 8


def test_an_error_of_any_step_leaves_what_came_before_it(tmp_path: Path) -> None:
    def breaking() -> Iterator[Block[int]]:
        yield from cut(range(12), 3)
        raise ArithmeticError("the data ends badly")

    work = Squares(tmp_path)
    with pytest.raises(ArithmeticError):
        Local(2).run(breaking(), work)
    assert work.orders == [0, 1, 2, 3]
    work = Squares(tmp_path, fails=(5,))
    with pytest.raises(NumericError, match="block 5"):
        Local(2).run(cut(range(100), 3), work)
    assert work.orders == [0, 1, 2, 3, 4]

    class Full(Squares):
        def write(self, computed: tuple[Block[int], list[int]]) -> Receipt:
            if computed[0].number == 3:
                time.sleep(0.1)  # until blocks behind it wait
                raise OSError(28, "No space left on device")
            return super().write(computed)

    work = Full(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        Local(2).run(cut(range(100), 3), work)
    assert work.orders == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name == "headwater-reading"]
