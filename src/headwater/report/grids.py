"""Token × token grids as small tables: the strongest tokens of both sides in reading order, with symmetric colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headwater.core.errors import DataError
from headwater.core.trace import TokenGrid
from headwater.report.colours import signed_class
from headwater.report.tables import signed_text
from headwater.report.texts import shortened
from headwater.report.tokens import drawn_together, require_finite

MOST_ROWS, MOST_COLUMNS = 48, 32
"""Most tokens of the row, and of the query, that a grid shows."""
LONGEST_TOKEN = 40
"""Most characters of a token in a heading."""


@dataclass(frozen=True)
class GridCell:
    """One number of a grid: CSS class, short text, and a tooltip with the exact value."""

    css: str
    text: str
    title: str


@dataclass(frozen=True)
class GridView:
    """A grid for the template; `left_out` is a sentence about the tokens that are not shown, empty if all are."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[GridCell, ...]], ...]
    left_out: str


def view_grid(grid: TokenGrid, *, where: str) -> GridView:
    """Cut the grid to its strongest tokens: those with the largest |value|, and at least one visible shade.

    Raises:
        DataError: `values` is not row tokens × query tokens.
        NumericError: a value is NaN or infinite.
    """
    place, shape = f"{where}, token grid", {len(line) for line in grid.values}
    if len(grid.values) != len(grid.row_tokens) or shape - {len(grid.query_tokens)}:
        tokens = f"{len(grid.row_tokens)} × {len(grid.query_tokens)} tokens"
        raise DataError(f"{len(grid.values)} × {sorted(shape)} values for {tokens}", where=place)
    for value in (v for line in grid.values for v in line):
        require_finite(value, where=place)
    grid = _joined(grid)
    scale = max((abs(value) for line in grid.values for value in line), default=0.0)
    rows = _strongest(grid.values, MOST_ROWS, scale)
    columns = _strongest(list(zip(*grid.values, strict=True)), MOST_COLUMNS, scale)
    left_out = ""
    if len(rows) < len(grid.row_tokens) or len(columns) < len(grid.query_tokens):
        left_out = (
            f"Shows the {len(rows)} strongest of {len(grid.row_tokens)} row tokens and the {len(columns)} "
            f"strongest of {len(grid.query_tokens)} query tokens."
        )
    lines = ((_name(grid.row_tokens[i]), tuple(_cell(grid.values[i][j], scale) for j in columns)) for i in rows)
    return GridView(tuple(_name(grid.query_tokens[j]) for j in columns), tuple(lines), left_out)


def _joined(grid: TokenGrid) -> TokenGrid:
    """The grid with tokens that can only be drawn together as one; their values are summed."""
    down, across = drawn_together(grid.row_tokens), drawn_together(grid.query_tokens)
    narrow = [[math.fsum(line[start:stop]) for start, stop in across] for line in grid.values]
    values = tuple(tuple(map(math.fsum, zip(*narrow[start:stop], strict=True))) for start, stop in down)
    rows, columns = (
        tuple("".join(tokens[start:stop]) for start, stop in runs)
        for tokens, runs in ((grid.row_tokens, down), (grid.query_tokens, across))
    )
    return TokenGrid(rows, columns, values)


def _strongest(lines: Sequence[Sequence[float]], count: int, scale: float) -> list[int]:
    """Positions of the `count` lines with the largest |value|, in reading order; lines without a shade are left out."""
    peaks = [max((abs(value) for value in line), default=0.0) for line in lines]
    visible = [i for i, peak in enumerate(peaks) if signed_class(peak, scale) != "z"]
    return sorted(sorted(visible, key=lambda i: -peaks[i])[:count])


def _cell(value: float, scale: float) -> GridCell:
    css = signed_class(value, scale)
    text = "·" if css == "z" else ("+" if value > 0 else "−") + css[1:]
    return GridCell(css, text, signed_text(value, digits=6))


def _name(token: str) -> str:
    """A token as a heading, with visible white space; the empty token is ∅."""
    return shortened(token, LONGEST_TOKEN).replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣") or "∅"
