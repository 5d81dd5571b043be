"""The cells of CSV files: text, of which whole columns are read as numbers, truth values, dates or times.

A column is read as one of these if all its non-empty cells among the file's first 1,000 rows are written so:

| kind | written |
|---|---|
| whole number | `-12`; no zeros or plus sign in front, so `007` is text |
| number | `0.5`, `1e-05`, `3`: as Python writes it, or all with the same number of decimals, such as `1.50` |
| truth value | `true`, `false`, in any case of letters |
| date | `2024-01-31` |
| time | `2024-01-31T09:30:00` or with a space for the T; with or without fractions and a zone (`Z`, `+02:00`) |
| dates and times | a date is then the beginning of its day |

Its empty cells are missing values. A later cell that is written in another way stays text. Columns that a role is read
from, such as `prompt` or `id`, are always text. A row that `select` writes has its cells as they were.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from functools import partial
from itertools import islice
from typing import Any

SAMPLED = 1000
"""How many rows decide what a column holds."""

Read = Callable[[str], Any]
"""Takes a cell and returns its value; raises `ValueError` if the cell is not written in this way."""

_WHOLE = re.compile(r"-?[1-9]\d*|0")
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d*)\.(\d+)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)?")


class TextRecord(dict[str, str]):
    """A record whose cells are all text; `readers` says how the cells of some columns are read."""

    readers: Mapping[str, Read]


def readers_of(records: Iterable[Mapping[str, str]]) -> dict[str, Read]:
    """What reads the cells of each column, by the first `SAMPLED` records; a column that nothing reads is left out."""
    left: dict[str, list[Read]] = {}
    for record in islice(records, SAMPLED):
        for name, cell in record.items():
            if cell:
                left[name] = [read for read in left.get(name) or _kinds(name in left, cell) if _reads(read, cell)]
    return {name: _decimal if isinstance(reads[0], partial) else reads[0] for name, reads in left.items() if reads}


def text_record(cells: Mapping[str, str], readers: Mapping[str, Read]) -> TextRecord:
    """A record of a file whose columns have these readers."""
    made = TextRecord(cells)
    made.readers = readers
    return made


def typed(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record with its cells read; a record that did not come from cells is returned as it is."""
    if not isinstance(record, TextRecord):
        return record
    return {name: _value(cell, record.readers.get(name)) for name, cell in record.items()}


def _value(cell: str, read: Read | None) -> Any:
    if read is None:
        return cell
    if not cell:
        return None
    try:
        return read(cell)
    except ValueError:
        return cell


def _kinds(ruled_out: bool, cell: str) -> list[Read]:
    """What may read a column that begins with this cell; nothing, if an earlier cell has ruled all out."""
    if ruled_out:
        return []
    decimal = _DECIMAL.fullmatch(cell)
    same_length = [partial(_fixed, len(decimal[1]))] if decimal else []
    return [_whole, _number, *same_length, _truth, _date, _time]


def _reads(read: Read, cell: str) -> bool:
    try:
        read(cell)
    except ValueError:
        return False
    return True


def _whole(cell: str) -> int:
    if not _WHOLE.fullmatch(cell) or not -(2**63) <= int(cell) < 2**63:
        raise ValueError(cell)
    return int(cell)


def _number(cell: str) -> float:
    if _WHOLE.fullmatch(cell) and abs(int(cell)) <= 2**53:
        return float(cell)
    if repr(value := float(cell)) != cell or not math.isfinite(value):
        raise ValueError(cell)
    return value


def _fixed(decimals: int, cell: str) -> float:
    found = _DECIMAL.fullmatch(cell)
    if not found or len(found[1]) != decimals:
        raise ValueError(cell)
    return float(cell)


def _decimal(cell: str) -> float:
    return float(cell) if _DECIMAL.fullmatch(cell) else _number(cell)


def _truth(cell: str) -> bool:
    if cell.lower() not in ("true", "false"):
        raise ValueError(cell)
    return cell.lower() == "true"


def _date(cell: str) -> date:
    if not _DATE.fullmatch(cell):
        raise ValueError(cell)
    return date.fromisoformat(cell)


def _time(cell: str) -> datetime:
    if not (_TIME.fullmatch(cell) or _DATE.fullmatch(cell)):
        raise ValueError(cell)
    return datetime.fromisoformat(cell)
