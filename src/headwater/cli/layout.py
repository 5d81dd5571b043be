"""Lay out tables and facts as plain text of a given width, without breaking a word.

A table whose columns do not fit side by side is printed as several, each with the first column. Only a word that is
longer than a whole line is broken.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

_GAP = "  "
_NO_BREAK = "\N{NO-BREAK SPACE}"
_LONGEST_WORD = 24
"""A longer word (an id, a path) does not set a column's least width, if the table would not fit with it."""


def table_text(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, width: int) -> str:
    """A table: its title, its headings, a rule, and its rows; numbers stand at the right."""
    cells = [[_whole_intervals(" ".join(cell_text(value).split())) for value in row] for row in rows]
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    wanted = [max(cell_len(text) for text in (name, *(row[i] for row in cells))) for i, name in enumerate(columns)]
    least = [max(map(_longest_word, (name, *(row[i] for row in cells)))) for i, name in enumerate(columns)]
    parts = []
    for shown in _groups(least, width):
        widths = _shared([least[i] for i in shown], [wanted[i] for i in shown], width)
        alone = [(widths[n], right[i]) for n, i in enumerate(shown)]
        lines = [_line([columns[i] for i in shown], alone), "  ".join("─" * size for size in widths)]
        lines += [_line([row[i] for i in shown], alone) for row in cells]
        parts.append("\n".join(lines))
    return (f"{title}\n" if title else "") + "\n\n".join(parts).replace(_NO_BREAK, " ")


def facts_text(pairs: Mapping[str, Any], *, width: int, indent: str = "") -> str:
    """A line for each name and value; a mapping's entries, or a table for a list of mappings, stand below its name."""
    plain = [name for name, value in pairs.items() if not _nested(value)]
    column = max((cell_len(str(name)) for name in plain), default=0)
    lines = []
    for name, value in pairs.items():
        if not _nested(value):
            first = f"{indent}{name}{' ' * (column - cell_len(str(name)))}{_GAP}"
            lines += _wrapped(cell_text(value), width, first, " " * cell_len(first))
        elif isinstance(value, Mapping):
            lines += [f"{indent}{name}", facts_text(value, width=width, indent=f"{indent}  ")]
        else:
            names = list(dict.fromkeys(key for one in value for key in one))
            inner = table_text("", names, [[one.get(key) for key in names] for one in value], width=width - 2)
            lines += [f"{indent}{name}", textwrap.indent(inner, f"{indent}  ")]
    return "\n".join(line.rstrip() for line in lines)


def paragraph_text(name: str, lines: Sequence[str], *, width: int) -> str:
    """A name, and below it some lines, indented."""
    return "\n".join([name, *(part for line in lines if line for part in _wrapped(line, width, "  ", "    "))])


def cell_text(value: Any) -> str:
    """A value as text: numbers with three digits, lists with commas, mappings as `name value`."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–"
        return f"{value:.3f}" if value == 0 or 0.1 <= abs(value) < 1e6 else f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell_text(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell_text, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _nested(value: Any) -> bool:
    """Whether a value takes lines of its own."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(one, Mapping) for one in value)
    return isinstance(value, Mapping) and bool(value)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _whole_intervals(text: str) -> str:
    """The text with intervals such as `[0.1, 0.2]` that stay on one line."""
    return re.sub(r"\[(\S+), (\S+)\]", rf"[\1,{_NO_BREAK}\2]", text)


def _longest_word(text: str) -> int:
    return max((cell_len(word) for word in text.split(" ")), default=0)


def _groups(least: Sequence[int], width: int) -> list[list[int]]:
    """The columns of each table: as many as fit, every table with the first column."""
    for longest in (width, _LONGEST_WORD):  # long words break only where nothing fits with them whole
        sizes = [min(size, longest) for size in least]
        groups: list[list[int]] = [[]]
        for i in range(len(sizes)):
            taken = groups[-1]
            if len(taken) > 1 and sum(sizes[j] + len(_GAP) for j in taken) + sizes[i] > width:
                groups.append([0])
            groups[-1].append(i)
        if all(sum(sizes[j] + len(_GAP) for j in group) - len(_GAP) <= width for group in groups):
            return groups
    return groups


def _shared(least: Sequence[int], wanted: Sequence[int], width: int) -> list[int]:
    """The columns' widths: what each wants, or else its least and an equal part of what is left over."""
    room = width - len(_GAP) * (len(least) - 1)
    sizes = [min(size, room) for size in least]
    while sum(sizes) > room:  # only where a word is longer than its part of the line
        sizes[sizes.index(max(sizes))] -= 1
    while sum(sizes) < room and any(a < b for a, b in zip(sizes, wanted, strict=True)):
        hungry = [i for i, size in enumerate(sizes) if size < wanted[i]]
        sizes[min(hungry, key=lambda i: sizes[i])] += 1
    return sizes


def _line(texts: Sequence[str], columns: Sequence[tuple[int, bool]]) -> str:
    """One row of a table, on as many lines as its longest cell takes."""
    wrapped = [_wrapped(text, size, "", "") for text, (size, _) in zip(texts, columns, strict=True)]
    lines = []
    for i in range(max(map(len, wrapped))):
        parts = [
            _padded(cell[i] if i < len(cell) else "", size, at_right)
            for cell, (size, at_right) in zip(wrapped, columns, strict=True)
        ]
        lines.append(_GAP.join(parts).rstrip())
    return "\n".join(lines)


def _padded(text: str, size: int, at_right: bool) -> str:
    space = " " * max(size - cell_len(text), 0)
    return space + text if at_right else text + space


def _wrapped(text: str, width: int, first: str, then: str) -> list[str]:
    """The words of a text on lines of at most `width` cells; only a word that is longer than a line is broken."""
    lines, line, empty = [], first, True
    for word in text.split(" "):
        piece, room = word, max(width - cell_len(then), 1)
        if not empty and cell_len(line) + 1 + cell_len(piece) > width:
            lines.append(line)
            line, empty = then, True
        while cell_len(line) + cell_len(piece) > width and (empty and cell_len(piece) > room):
            cut = _fitting(piece, max(width - cell_len(line), 1))
            lines.append(line + piece[:cut])
            piece, line = piece[cut:], then
        line = f"{line}{piece}" if empty else f"{line} {piece}"
        empty = False
    return [*lines, line]


def _fitting(text: str, room: int) -> int:
    """How many characters of a text fit into `room` cells, at least one."""
    taken = 0
    for i, character in enumerate(text):
        taken += cell_len(character)
        if taken > room:
            return max(i, 1)
    return len(text)
