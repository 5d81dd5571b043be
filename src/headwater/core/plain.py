"""Values as JSON has them: what JSON has no form for becomes text that says it exactly."""

from __future__ import annotations

import base64
import json
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

_MISSING = ("NaTType", "NAType")
"""The types of pandas' missing values."""


def as_python(value: Any) -> Any:
    """The value with NumPy's arrays and numbers as Python's, and pandas' missing values as None, however deep."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, np.generic | np.ndarray) and not isinstance(value, np.datetime64 | np.timedelta64):
        return as_python(value.tolist())
    if isinstance(value, dict):
        return {name: as_python(item) for name, item in value.items()} if any(map(_strange, value.values())) else value
    if isinstance(value, list):
        return [as_python(item) for item in value] if any(map(_strange, value)) else value
    return None if type(value).__name__ in _MISSING else value


def without_nan(value: Any) -> Any:
    """The value with None for NaN, however deep."""
    if isinstance(value, float | Decimal):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    return [without_nan(item) for item in value] if isinstance(value, list) else value


def _strange(value: Any) -> bool:
    """Whether `as_python` has to look at it."""
    return not (value is None or isinstance(value, str | bool | int | float))


def whole_number(value: Any) -> Any:
    """A whole number that a data frame has made a float (`1.0`), as an integer again; other values as they are."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 else value


def json_ready(value: Any) -> Any:
    """The `default` of `json.dumps`: a value that JSON has no form for, in one that it has.

    Dates and times become ISO 8601 text (`2024-01-31T09:30:00+00:00`), spans of time too (`PT90.5S`), bytes base64,
    NumPy's numbers and arrays Python's, and everything else its own text.
    """
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"PT{Decimal(value.days * 86400 + value.seconds) + Decimal(value.microseconds) / 10**6}S"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)


def plain_json(value: Any) -> Any:
    """The value as JSON has it: no NaN, dates as text, tuples as lists."""
    return without_nan(json.loads(json.dumps(value, default=json_ready)))
