"""How rows were read: what was cut off at their end, and what was read in windows or without the row's beginning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class RowReading:
    """How one row was read.

    Attributes:
        tokens_cut: tokens that were cut off at the row's end.
        windows_read: how many windows the row was read in.
        targets_unread: target tokens that were not read: cut off, or first in a window that shares no token.
        targets_without_beginning: target tokens that were read, but in a window that does not begin at the row's start.
    """

    tokens_cut: int = 0
    windows_read: int = 1
    targets_unread: int = 0
    targets_without_beginning: int = 0


@dataclass
class Readings:
    """The sums over rows: tokens as in `RowReading`, and the numbers of rows that they are in.

    Attributes:
        rows_cut: rows that were cut off at their end.
        rows_in_windows: rows that were read in several windows.
        rows_without_beginning: rows that have targets read without the row's beginning.
    """

    rows_cut: int = 0
    tokens_cut: int = 0
    targets_unread: int = 0
    rows_in_windows: int = 0
    rows_without_beginning: int = 0
    targets_without_beginning: int = 0

    def add(self, reading: RowReading) -> None:
        """Count one more row."""
        self.rows_cut += reading.tokens_cut > 0
        self.tokens_cut += reading.tokens_cut
        self.targets_unread += reading.targets_unread
        self.rows_in_windows += reading.windows_read > 1
        self.rows_without_beginning += reading.targets_without_beginning > 0
        self.targets_without_beginning += reading.targets_without_beginning

    def __sub__(self, other: Readings) -> Readings:
        """What was counted since `other`."""
        before = asdict(other)
        return Readings(**{name: count - before[name] for name, count in asdict(self).items()})

    @property
    def note(self) -> str | None:
        """One sentence that says what was not read whole; None if every row was."""
        parts = []
        if self.rows_cut:
            parts.append(f"{_rows(self.rows_cut)} cut at the end ({self.tokens_cut:,} tokens)")
        if self.rows_in_windows:
            parts.append(f"{_rows(self.rows_in_windows)} read in several windows")
        if self.rows_without_beginning:
            late = f"{self.targets_without_beginning:,} target tokens read without the row's beginning"
            parts.append(f"{late} (in {_rows(self.rows_without_beginning)})")
        if self.targets_unread:
            parts.append(f"{self.targets_unread:,} target tokens not read at all")
        return "some rows are longer than what is read at once: " + ", ".join(parts) if parts else None


def reading_of(cells: Mapping[str, int | None]) -> RowReading:
    """The reading of a stored row from its columns."""
    return RowReading(**{name: cells.get(name) or 0 for name in asdict(RowReading())})


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"
