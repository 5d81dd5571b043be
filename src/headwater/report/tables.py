"""A small table of results, for pages and for Markdown documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headwater.core.errors import DataError


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    r"""A Markdown table; columns are padded so that the source is readable too, and numbers are flush right.

    Pipes, backslashes, line breaks and `<` are escaped, so that no cell can break the table or become HTML. Other
    Markdown in a cell (`**bold**`, code) stays as it is.

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
    """Rows of cells under named columns; `note` is shown below the table and says what the numbers depend on.

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
            what = f"row {number} has {len(row)} cells for {len(columns)} columns"
            raise DataError(what, where=where, remedy="give None for an empty cell")


def numeric_columns(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[bool]:
    """For each column, whether all its cells are numbers or empty; such columns are set flush right."""
    return [
        any(row[place] is not None for row in rows) and not any(isinstance(row[place], str) for row in rows)
        for place in range(len(columns))
    ]


def cell_text(cell: Cell) -> str:
    """Text of a cell: floats with four significant digits, integers with thousands separators, None as a dash."""
    if cell is None:
        return "–"
    if isinstance(cell, str | bool):
        return str(cell)
    return number_text(cell) if isinstance(cell, float) else f"{cell:,}".replace("-", "−")


def number_text(value: float, *, digits: int = 4, padded: bool = False) -> str:
    """A number with `digits` significant digits, trailing zeros if `padded`, and a minus sign instead of a hyphen."""
    return f"{value + 0.0:{'#' if padded else ''}.{digits}g}".removesuffix(".").replace("-", "−")


def signed_text(value: float, *, digits: int = 4, padded: bool = False) -> str:
    """As `number_text`, with a plus sign for positive values; `padded` keeps trailing zeros to align columns."""
    text = f"{value + 0.0:{'+' if value else ''}{'#' if padded else ''}.{digits}g}"
    return text.removesuffix(".").replace("-", "−")
