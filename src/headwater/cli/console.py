"""What a command says: results on stdout (text or JSON), progress and messages on stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

errors = Console(stderr=True, highlight=False)

Advance = Callable[[int, int | None, str], None]
"""Called with (done, total or None, a few words)."""


def say(message: str) -> None:
    """One plain line on stderr."""
    errors.print(Text(message), soft_wrap=True)


def emit_json(value: Any) -> None:
    """One JSON document on stdout; NaN and infinities become null, as JSON has no word for them."""
    sys.stdout.write(json.dumps(_finite(value), ensure_ascii=False, indent=2, default=str) + "\n")


def emit_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout; cells are printed literally."""
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    Console(highlight=False).print(table)


def emit_pairs(pairs: Mapping[str, Any]) -> None:
    """Names and values, a line each, on stdout."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        sys.stdout.write(f"{name:<{width}}  {_cell(value)}\n")


def emit_paragraph(name: str, lines: Sequence[str]) -> None:
    """A name and, indented below it, what there is to say of it, on stdout."""
    width = shutil.get_terminal_size().columns
    wrapped = [textwrap.fill(line, width, initial_indent="  ", subsequent_indent="    ") for line in lines if line]
    sys.stdout.write("\n".join([name, *wrapped]) + "\n")


@contextlib.contextmanager
def progress(words: str, *, quiet: bool = False) -> Iterator[Advance]:
    """A progress bar on stderr while the block runs; silent when `quiet` or when stderr is no terminal."""
    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=errors,
        disable=quiet or not errors.is_terminal,
        transient=True,
    )
    with shown:
        task = shown.add_task(words, total=None, note="")
        yield lambda done, total, note: shown.update(task, completed=done, total=total, note=note)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _finite(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value
