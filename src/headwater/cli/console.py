"""The output of commands: results on stdout (text or JSON), messages on stderr."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from headwater.cli.layout import facts_text, paragraph_text, table_text
from headwater.cli.schemas import schema_name
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
        super().__init__(logging.INFO)
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
    logger.setLevel(logging.INFO)


def out(text: object) -> None:
    """Print text on stdout."""
    sys.stdout.write(harmless(str(text)) + "\n")


def emit(command: str, facts: Mapping[str, Any], as_json: bool, text: str | None = None) -> None:
    """Print a command's result on stdout: as JSON, else as the `text`, else as a line for each fact."""
    if as_json:
        emit_json(command, facts)
    elif text is None:
        emit_pairs(facts)
    else:
        out(text)


def emit_json(command: str, facts: Any) -> None:
    """Print a command's result as one JSON document, whose field `schema` names its form.

    NaN and infinities, which JSON does not have, become null.
    """
    document = {"schema": schema_name(command), **_finite(facts)}
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2, default=json_ready) + "\n")


_BY_DATA = ("ceilings",)
"""Facts whose keys are data (names of targets), not names of fields."""


def as_fields(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with names of fields for keys, however deep: `forget loss before` becomes `forget_loss_before`."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        inner = value
        if name in _BY_DATA:
            inner = {key: as_fields(one) for key, one in value.items()}
        elif isinstance(value, Mapping):
            inner = as_fields(value)
        found["_".join(re.findall(r"\w+", str(name).lower()))] = inner
    return found


def emit_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on stdout that is no wider than the terminal, or 80 columns elsewhere; words stay whole."""
    out(table_text(title, columns, rows, width=_width()))


def emit_pairs(pairs: Mapping[str, Any]) -> None:
    """Print names and values on stdout, a line each; what a nested value holds is indented below its name."""
    out(facts_text(pairs, width=_width()))


def emit_paragraph(name: str, lines: Sequence[str]) -> None:
    """Print a name and, indented below it, some lines on stdout."""
    out(paragraph_text(name, lines, width=_width()))


def _width() -> int:
    """The columns of the terminal; 80, or COLUMNS, where stdout is none."""
    return Console().width


def _finite(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _finite(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value
