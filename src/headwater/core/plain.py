"""Values as JSON has them: what JSON has no form for becomes text that says it exactly."""

from __future__ import annotations

import base64
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np


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
