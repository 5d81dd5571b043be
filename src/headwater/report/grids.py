"""Token × token grids as small tables: the strongest tokens of both sides, in reading order, symmetric colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headwater.core.errors import DataError
from headwater.core.trace import TokenGrid
from headwater.report.colours import signed_class
from headwater.report.tables import signed_text
from headwater.report.tokens import require_finite

MOST_ROWS, MOST_COLUMNS = 48, 32
"""Tokens of the row and of the query that a grid shows at most."""


@dataclass(frozen=True)
class GridCell:
    """One drawn number: CSS class, short text, tooltip with the exact value."""

    css: str
    text: str
    title: str


@dataclass(frozen=True)
class GridView:
    """A drawable grid; `left_out` says in words what the limits hid, empty if nothing."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[GridCell, ...]], ...]
    left_out: str


def view_grid(grid: TokenGrid, *, where: str) -> GridView:
    """The grid cut to its strongest tokens (largest |value| in their line); tokens without any visible shade go too.

    Raises:
        DataError: `values` is not row tokens × query tokens.
        NumericError: a value is NaN or infinite.
    """
    shape = {len(line) for line in grid.values}
    if len(grid.values) != len(grid.row_tokens) or shape - {len(grid.query_tokens)}:
        raise DataError(
            f"{len(grid.values)} × {sorted(shape)} values for {len(grid.row_tokens)} × {len(grid.query_tokens)} tokens",
            where=f"{where}, token grid",
        )
    for value in (v for line in grid.values for v in line):
        require_finite(value, where=f"{where}, token grid")
    scale = max((abs(value) for line in grid.values for value in line), default=0.0)
    rows = _strongest(grid.values, MOST_ROWS, scale)
    columns = _strongest(list(zip(*grid.values, strict=True)), MOST_COLUMNS, scale)
    hidden = len(rows) < len(grid.row_tokens) or len(columns) < len(grid.query_tokens)
    return GridView(
        columns=tuple(_name(grid.query_tokens[j]) for j in columns),
        rows=tuple((_name(grid.row_tokens[i]), tuple(_cell(grid.values[i][j], scale) for j in columns)) for i in rows),
        left_out=f"Shows the {len(rows)} strongest of {len(grid.row_tokens)} row tokens and the {len(columns)} "
        f"strongest of {len(grid.query_tokens)} query tokens."
        if hidden
        else "",
    )


def _strongest(lines: Sequence[Sequence[float]], count: int, scale: float) -> list[int]:
    """Positions of the `count` lines with the largest |value|, in their own order, without those that stay neutral."""
    peaks = [max((abs(value) for value in line), default=0.0) for line in lines]
    visible = [i for i, peak in enumerate(peaks) if signed_class(peak, scale) != "z"]
    return sorted(sorted(visible, key=lambda i: -peaks[i])[:count])


def _cell(value: float, scale: float) -> GridCell:
    css = signed_class(value, scale)
    text = "·" if css == "z" else ("+" if value > 0 else "−") + css[1:]
    return GridCell(css, text, signed_text(value, digits=6))


def _name(token: str) -> str:
    """A token as a heading: white space visible, the empty token marked."""
    return token.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣") or "∅"
