"""The engine of one process: reading ahead, computing and writing overlap, so that the model does not wait for a disk.

    a thread reads and tokenises ─(≤ ahead blocks)─▶ this thread computes ─(≤ ahead blocks)─▶ a thread writes

Blocks are committed by the thread that called `run`, between two computations.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from headwater.engines.blocks import Block, InterruptedInBlock, OnCommit, Receipt, Work, commit, whole

Item = TypeVar("Item")

AHEAD = 2
"""So many blocks are read ahead, and so many wait to be written; more would only take memory."""

_POLL_SECONDS = 0.1
_END = object()


@dataclass(frozen=True)
class Local:
    """Compute blocks in this process.

    Attributes:
        ahead: how many blocks are read ahead, and how many may wait to be written; 0 does one thing after another.
    """

    ahead: int = AHEAD

    @property
    def elsewhere(self) -> bool:
        """Blocks are computed in this process."""
        return False

    def run(self, blocks: Iterable[Block[Item]], work: Work[Item], on_commit: OnCommit | None = None) -> None:
        """Compute and commit all blocks; see `Engine`. Ctrl-C keeps what the block at hand has."""
        try:
            self._run(blocks, work, on_commit)
        except InterruptedInBlock as stop:  # all blocks before it are committed
            stop.keep()
            raise

    def _run(self, blocks: Iterable[Block[Item]], work: Work[Item], on_commit: OnCommit | None) -> None:
        if self.ahead < 1:
            for block in blocks:
                commit(work, whole(work, block), on_commit)
            return
        with ahead_of(map(work.prepare, blocks), self.ahead) as prepared, ThreadPoolExecutor(1) as writer:
            waiting: deque[Future[Receipt]] = deque()

            def commit_first() -> None:
                try:
                    commit(work, waiting.popleft().result(), on_commit)
                except BaseException:
                    waiting.clear()  # without this block, none behind it may be committed
                    raise

            try:
                for one in prepared:
                    waiting.append(writer.submit(work.write, work.compute(one)))
                    while waiting and (waiting[0].done() or len(waiting) > self.ahead):
                        commit_first()
            finally:  # also after an error: what was computed before it counts
                try:
                    while waiting:
                        commit_first()
                finally:
                    writer.shutdown(cancel_futures=True)


@contextlib.contextmanager
def ahead_of(items: Iterable[Item], most: int) -> Iterator[Iterator[Item]]:
    """Draw items in a thread of their own, at most `most` of them in advance; its errors are raised here."""
    drawn: queue.Queue[Any] = queue.Queue(most)
    stop = threading.Event()

    def put(what: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                drawn.put(what, timeout=_POLL_SECONDS)
                return

    def draw() -> None:
        try:
            for item in items:
                put((item, None))
                if stop.is_set():
                    return
        except BaseException as error:
            put((None, error))
        else:
            put((_END, None))

    def arriving() -> Iterator[Item]:
        while True:
            item, error = drawn.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item

    thread = threading.Thread(target=draw, name="headwater-reading", daemon=True)
    thread.start()
    try:
        yield arriving()
    finally:
        stop.set()
        thread.join()
