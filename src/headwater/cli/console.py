"""The output of commands: results on stdout (text or JSON), messages on stderr."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headwater.core.plain import json_ready

errors = Console(stderr=True, highlight=False)


def harmless(text: str) -> str:
    """Text as it may go to a terminal: control characters and those that turn the direction of writing show as `·`."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs") else "·" for c in text)


def say(message: str) -> None:
    """Print one plain line on stderr."""
    errors.print(Text(harmless(message)), soft_wrap=True)


class _Notes(logging.Handler):
    """Prints what the library logs (which tokenizer it chose, what it leaves out), each line once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._said:
            self._said.add(message)
            say(f"note: {message}")


def show_notes() -> None:
    """From now on, print the library's notes on stderr."""
    logger = logging.getLogger("headwater")
    logger.handlers, logger.propagate = [_Notes()], False


def out(text: object) -> None:
    """Print text on stdout."""
    sys.stdout.write(harmless(str(text)) + "\n")


def emit(facts: Mapping[str, Any], as_json: bool, text: str | None = None) -> None:
    """Print a result on stdout: as JSON, else as the `text`, else as a line for each fact."""
    if as_json:
        emit_json(facts)
    elif text is None:
        emit_pairs(facts)
    else:
        out(text)


def emit_json(value: Any) -> None:
    """Print one JSON document on stdout; NaN and infinities, which JSON does not have, become null."""
    sys.stdout.write(json.dumps(_finite(value), ensure_ascii=False, indent=2, default=json_ready) + "\n")


def emit_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on stdout; cells are printed literally."""
    table = Table(title=harmless(title), title_justify="left", title_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        table.add_column(harmless(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(harmless(_cell(value))) for value in row))
    Console(highlight=False).print(table)


def emit_pairs(pairs: Mapping[str, Any]) -> None:
    """Print names and values on stdout, a line each."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        out(f"{name:<{width}}  {_cell(value)}")


def emit_paragraph(name: str, lines: Sequence[str]) -> None:
    """Print a name and, indented below it, some lines on stdout."""
    width = shutil.get_terminal_size().columns
    wrapped = [textwrap.fill(line, width, initial_indent="  ", subsequent_indent="    ") for line in lines if line]
    out("\n".join([name, *wrapped]))


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.1 else f"{value:.3g}"


def _finite(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _finite(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value
