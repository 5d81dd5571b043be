"""Say how far a long piece of work is, to whoever listens; nobody has to.

    with listening(show):           the command line does this
        ...
        tell("searching", 300, 1000)    deep inside, whoever does the work

What the listener raises ends the work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Listener = Callable[[str, int, "int | None", str], None]
"""Takes the name of the step, the amount done, the amount in all (None: unknown), and what is counted: `rows`."""

_LISTENER: ContextVar[Listener | None] = ContextVar("headwater_progress", default=None)


def tell(step: str, done: int, total: int | None = None, unit: str = "rows") -> None:
    """Report that `done` of `total` of a step are done."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(step, done, total, unit)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Pass every report of this thread to `listener` while the block runs."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)
