"""A small table of results: what the page and Markdown documents print under a title."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headwater.core.errors import DataError


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    r"""A Markdown table, columns padded so that the source is readable too, numbers flush right.

    Pipes, backslashes, line breaks and `<` are escaped, so no cell can leave its place or become HTML; other Markdown
    (`**bold**`, code) is left to the caller.

    >>> print(markdown_table(["method", "P@10"], [["rise", 0.87], ["bm25", None]]))
    | method | P@10 |
    | :----- | ---: |
    | rise   | 0.87 |
    | bm25   |    – |
    """
    require_rectangle(columns, rows, where="markdown table")
    right = numeric_columns(columns, rows)
    body = [[_escape(cell_text(cell)) for cell in row] for row in [list(columns), *rows]]
    widths = [max(3, *(len(line[place]) for line in body)) for place in range(len(columns))]
    rule = ["-" * (w - 1) + ":" if flush else ":" + "-" * (w - 1) for w, flush in zip(widths, right, strict=True)]
    padded = [
        [c.rjust(w) if flush else c.ljust(w) for c, w, flush in zip(line, widths, right, strict=True)] for line in body
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def _escape(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return "<br>".join(text.splitlines())


Cell = str | int | float | None
"""Text, a number, or None for "not measured"."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns; `note` says below the table what a reader must know to trust it.

    Raises:
        DataError: a row has more or fewer cells than there are columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        require_rectangle(self.columns, self.rows, where=f"table '{self.title}'")


def require_rectangle(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, where: str) -> None:
    """Raise `DataError` naming the first row that does not have one cell a column."""
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise DataError(
                f"row {number} has {len(row)} cells for {len(columns)} columns", where=where, remedy="None marks a gap"
            )


def numeric_columns(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[bool]:
    """For each column, whether it holds numbers (and gaps) only: those are set flush right."""
    return [
        any(row[place] is not None for row in rows) and not any(isinstance(row[place], str) for row in rows)
        for place in range(len(columns))
    ]


def cell_text(cell: Cell) -> str:
    """Text of a cell: floats to four significant digits, integers with thousands separated, a gap as a dash."""
    if cell is None:
        return "–"
    if isinstance(cell, str | bool):
        return str(cell)
    return number_text(cell) if isinstance(cell, float) else f"{cell:,}".replace("-", "−")


def number_text(value: float, *, digits: int = 4) -> str:
    """A number to `digits` significant digits, with a true minus sign."""
    return f"{value + 0.0:.{digits}g}".replace("-", "−")


def signed_text(value: float, *, digits: int = 4, padded: bool = False) -> str:
    """As `number_text`, with a plus for positive values; `padded` keeps trailing zeros so that columns line up."""
    text = f"{value + 0.0:{'+' if value else ''}{'#' if padded else ''}.{digits}g}"
    return text.removesuffix(".").replace("-", "−")
