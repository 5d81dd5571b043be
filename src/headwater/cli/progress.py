"""Progress of a command on stderr, and what an interrupted command leaves behind.

On a terminal progress is a bar. Elsewhere (a pipe, a log, a scheduler) it is a line now and then.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from headwater.cli.console import errors, say
from headwater.core.errors import HeadwaterError
from headwater.core.progress import listening

LINE_EVERY = 30.0
"""Seconds between two lines of progress where stderr is no terminal."""

NOTHING = "nothing was written; run it again"
"""What most commands keep when they are interrupted: they write their files whole at the end."""

Kept = str | Callable[[], str]
"""Words on what is kept and how to go on, or what finds them when it is needed."""

Update = Callable[[int, "int | None", str, str], None]
"""Takes the amount done, the amount in all (None: unknown), its unit, and the name of the current step, if any."""


@dataclass(frozen=True)
class Bar:
    """Progress of a command. Its methods are the `on_progress` callbacks of the API's functions."""

    update: Update

    def rows(self, done: int, total: int | None, tokens: int) -> None:
        """Show rows done."""
        self.update(done, total, "rows", "")

    def stage(self, words: str, done: int, total: int | None) -> None:
        """Show the name of the current step and the rows done."""
        self.update(done, total, "rows", words)

    def share(self, words: str, share: float) -> None:
        """Show the name of the current step and the share of the whole that is done."""
        self.update(int(100 * share), 100, "%", words)

    def told(self, words: str, done: int, total: int | None, unit: str) -> None:
        """Show a report of `headwater.core.progress`."""
        self.update(done, total, unit, words)


@contextlib.contextmanager
def progress(words: str, *, kept: Kept = NOTHING) -> Iterator[Bar]:
    """Show progress on stderr while the block runs; `kept` as in `interruptible`."""
    with interruptible(kept), _shown(words) as bar, listening(bar.told):
        yield bar


@contextlib.contextmanager
def _shown(words: str) -> Iterator[Bar]:
    """A bar on a terminal; lines elsewhere."""
    if not errors.is_terminal:
        lines = Lines(words, say)
        with lines.ticking():
            yield Bar(lines.update)
        return
    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
    )
    with shown:
        task = shown.add_task(words, total=None, note="")
        yield Bar(lambda done, total, unit, step: shown.update(task, completed=done, total=total, note=step))


class InterruptedByUserError(HeadwaterError):
    """Ctrl-C, with what is kept."""

    exit_code = 130


@contextlib.contextmanager
def interruptible(kept: Kept) -> Iterator[None]:
    """Let Ctrl-C in the block stop the command with a line that says what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedByUserError(f"interrupted; {kept if isinstance(kept, str) else kept()}") from None


def resumable(out: object) -> str:
    """What a command keeps of its output `out` that goes on with --resume, for `kept`."""
    return f"the finished blocks are kept with {out}; the same command with --resume goes on"


@dataclass
class Lines:
    """Progress as lines: done, in all, rate and time left; while `ticking`, one every `LINE_EVERY` seconds.

    Attributes:
        words: what is being done.
        write: takes a line.
        clock: seconds.
    """

    words: str
    write: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _begun: tuple[float, int] | None = field(default=None, init=False)
    _now: tuple[int, int | None, str, str] | None = field(default=None, init=False)
    _last: float = field(default=0.0, init=False)
    _started: float = field(default=0.0, init=False)
    _lock: Any = field(default_factory=threading.Lock, init=False)

    def update(self, done: int, total: int | None, unit: str, step: str) -> None:
        """Note how far the work is, and write a line if the last one is long enough ago."""
        with self._lock:
            now = self.clock()
            anew = self._now is None or (unit, step) != self._now[2:] or done < self._now[0]
            if self._begun is None or anew:
                self._begun = (now, done)
                self._last = self._last or now
            self._now = (done, total, unit, step)
            self._write_if_due(now)

    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        """Write lines although nothing is reported for a long time, while the block runs."""
        ended = threading.Event()
        self._started = self._last = self.clock()

        def tick() -> None:
            while not ended.wait(min(1.0, LINE_EVERY)):
                with self._lock:
                    self._write_if_due(self.clock())

        ticker = threading.Thread(target=tick, name="progress", daemon=True)
        ticker.start()
        try:
            yield
        finally:
            ended.set()
            ticker.join()

    def _write_if_due(self, now: float) -> None:
        if now - self._last < LINE_EVERY:
            return
        self._last = now
        self.write(self._line(now))

    def _line(self, now: float) -> str:
        if self._now is None or self._begun is None:
            return f"{self.words}: begun {duration(now - self._started)} ago"
        (done, total, unit, step), (began, before) = self._now, self._begun
        parts = [f"{done} %" if unit == "%" else f"{done:,}{f' of {total:,}' if total else ''} {unit}"]
        rate = (done - before) / (now - began) if now > began else 0.0
        if rate > 0:
            parts.append(f"{60 * rate:,.3g} % a minute" if unit == "%" else f"{rate:,.3g} a second")
        if rate > 0 and total:
            parts.append(f"about {duration((total - done) / rate)} left")
        else:
            parts.append(f"{duration(now - began)} so far")
        return f"{step or self.words}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """A duration as people say it: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
