"""Say what is wrong with the words of a command, as every other error does: place, value, remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import typer

_REASONS = (
    (r"valid integer", "not a whole number", "give a whole number"),
    (r"valid number", "not a number", "give a number"),
    (r"greater than or equal to (\S+)", "too small", r"\1 or more"),
    (r"less than or equal to (\S+)", "too large", r"\1 or less"),
)
"""What the parser says of a value, what is wrong with it, and what would be right."""


def usage_text(error: typer.TyperException, given: Sequence[str]) -> str:
    """The line about a usage error; `given` are the words after `headwater`."""
    context: Any = getattr(error, "ctx", None)
    said = " ".join(error.format_message().split()).rstrip(".")
    see = f"see '{context.command_path if context else 'headwater'} --help'"
    parameter = getattr(error, "param", None)
    if parameter is None or said.startswith("Missing"):
        return f"{said} ({see})"
    name, value = _option(parameter, given), _value(parameter, given, context)
    for pattern, what, remedy in _REASONS:
        if found := re.search(pattern, said):
            return f"{name}: {value} is {what} ({found.expand(remedy)}; {see})"
    return f"{name}: {value}: {said.rpartition(': ')[2]} ({see})"


def _option(parameter: Any, given: Sequence[str]) -> str:
    """The option as it was typed, else its first name."""
    typed = [name for name in parameter.opts if any(word.partition("=")[0] == name for word in given)]
    return str((typed or parameter.opts)[0])


def _value(parameter: Any, given: Sequence[str], context: Any) -> str:
    """The value that was given, on the command line or in a file of settings."""
    for place, word in enumerate(given):
        name, sign, value = word.partition("=")
        if name in parameter.opts:
            typed = value if sign else given[place + 1] if place + 1 < len(given) else ""
            return f"'{typed}'"
    kept = (getattr(context, "default_map", None) or {}).get(parameter.name)
    return "this value" if kept is None else f"'{kept}'"
