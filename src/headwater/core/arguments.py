"""What people give as arguments, read or refused in one line: numbers of bytes, and names with values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwater.core.errors import UsageError


def parse_bytes(given: str | int | None, *, where: str) -> int | None:
    """`1.5GiB`, `800M`, `2 GB` or a number of bytes, as bytes; KB, MB, GB and TB are powers of 1000. None stays None.

    Raises:
        UsageError: it is none of these, or not positive.
    """
    if given is None:
        return None
    text = str(given).strip()
    number = text.rstrip("BbIiKkMmGgTt ")
    unit = text[len(number) :].strip().lower().removesuffix("b")
    powers = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
    try:
        base = 1000 if text.lower().endswith("b") and unit in powers and unit else 1024
        size = int(float(number) * base ** powers[unit.removesuffix("i")])
    except (KeyError, ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise UsageError(f"'{given}' is no number of bytes", where=where, remedy="for example 1.5GiB or 800MB")
    return size


def named(given: Any, *, where: str, example: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name, as a dictionary; None is an empty one.

    Raises:
        UsageError: it is something else, such as a list of texts `name=value`.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        what = f"{given!r} is a {type(given).__name__}, not a dictionary"
        raise UsageError(what, where=where, remedy=f"for example {where}={dict(example)!r}")
    return {str(name): value for name, value in given.items()}
