"""Columns for metadata of any type: which Arrow type a column needs, and whether it holds a value without changing it.

| values | column |
|---|---|
| text, truth values, whole numbers, numbers | string, bool, int64, float64 |
| dates, times of day, spans of time | date32, time64, duration |
| times | timestamp, to the microsecond or nanosecond, with their zone if all have the same, else in UTC |
| dates beside times | timestamp; a date is the beginning of its day |
| decimals | decimal128, with as many decimals as the value that has most, and room for the largest |
| bytes | binary |
| lists | list, if all their items fit one type |
| objects | struct of all keys that occur, at most 64 |

A time without a zone counts as UTC where it stands beside times with one, and a time with a zone is shown in UTC where
the column has none; such values are also kept as they were written.

Whole numbers beside other numbers are stored as numbers. In any other mixture the column takes the type that most of
its values have, and the key of an object that of its first value; the others do not fit.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

MOST_FIELDS = 64
"""An object with more keys than this is rather a dictionary than a struct."""

_PLAIN: dict[type, pa.DataType] = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
_NULL = pa.null()


class ColumnType:
    """Finds the type of a column from its values, one after the other: the type that most of them have."""

    def __init__(self) -> None:
        self._plain: Counter[type] = Counter()
        self._found: dict[str, tuple[pa.DataType | None, int]] = {}
        self._exact = True
        self._sizes: set[str] = set()

    def add(self, value: Any) -> None:
        """Take in one more value; None is a missing one."""
        kind = type(value)
        if kind in _PLAIN and not (kind is int and abs(value) > 2**53):
            self._plain[kind] += 1
        elif value is not None:
            self._count(self._found, self._type_of(value), 1)

    def add_type(self, declared: pa.DataType) -> None:
        """Take in a type that the source declares, such as that of a Parquet file's column."""
        kind = _as_column(declared)
        if kind is not None:
            self._count(self._found, kind, 0)

    @property
    def type(self) -> pa.DataType | None:
        """The type; None if there are no values, or no column can hold them."""
        found = self._all()
        most = max((count for _, count in found.values()), default=0)
        chosen = next((kind for kind, count in found.values() if count == most), None)
        return None if chosen is None else _without_nulls(_with_room(chosen))

    @property
    def exact_type(self) -> pa.DataType | None:
        """The type, if a column of it holds every one of the values without changing it; else None."""
        found, kinds = self.type, [kind and _with_room(kind) for kind, _ in self._all().values()]
        fraction = {"fraction"} if float in self._plain else set()
        changed = "huge" in self._sizes or {"large", "fraction"} <= self._sizes | fraction
        return found if self._exact and kinds == [found] and not changed else None

    def _all(self) -> dict[str, tuple[pa.DataType | None, int]]:
        """Kind of value to the type that holds all of that kind, and their number."""
        found = dict(self._found)
        for kind, count in self._plain.items():
            self._count(found, _PLAIN[kind], count)
        return found

    def _count(self, found: dict[str, tuple[pa.DataType | None, int]], kind: pa.DataType | None, count: int) -> None:
        family = _family(kind)
        known, before = found.get(family, (_NULL, 0))
        found[family] = (self._merged(known, kind), before + count)

    def _type_of(self, value: Any) -> pa.DataType | None:
        if type(value) in _PLAIN:
            self._note_size(value)
            return _PLAIN[type(value)]
        if isinstance(value, list):
            return self._list_of(value)
        if isinstance(value, Mapping):
            fields = {name: self._type_of(item) for name, item in value.items()}
            return _struct(fields)
        return _NULL if value is None else _special(value)

    def _note_size(self, value: Any) -> None:
        """Note what numbers would change: whole ones beyond 2^53 among others, and those beyond 2^63 in any column."""
        if type(value) is float:
            self._sizes.add("fraction")
        elif type(value) is int and abs(value) > 2**53:
            self._sizes.add("large" if -(2**63) <= value < 2**63 else "huge")

    def _list_of(self, items: list[Any]) -> pa.DataType | None:
        item: pa.DataType | None = _NULL
        for one in items:
            item = self._merged(item, self._type_of(one))
        return None if item is None else pa.list_(item)

    def _merged(self, a: pa.DataType | None, b: pa.DataType | None) -> pa.DataType | None:
        """The type that holds values of both; None if there is none."""
        if a is None or b is None:
            return None
        if a == b or pa.types.is_null(b):
            return a
        if pa.types.is_null(a):
            return b
        if pa.types.is_list(a) and pa.types.is_list(b):
            item = self._merged(a.value_type, b.value_type)
            return None if item is None else pa.list_(item)
        if pa.types.is_struct(a) and pa.types.is_struct(b):
            left, right = ({field.name: field.type for field in kind} for kind in (a, b))
            merged = {n: self._merged(left.get(n, _NULL), right.get(n, _NULL)) for n in (left | right)}
            self._exact = self._exact and left.keys() == right.keys() and None not in merged.values()
            return _struct({n: left[n] if kind is None else kind for n, kind in merged.items()})
        return self._merged_scalars(a, b)

    def _merged_scalars(self, a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
        if {a, b} == {pa.int64(), pa.float64()}:
            return pa.float64()
        if pa.types.is_decimal(a) and pa.types.is_decimal(b):
            wider = _wider(a, b)
            self._exact = self._exact and wider.scale == max(a.scale, b.scale)
            return wider
        return self._merged_times(a, b) if _is_time(a) and _is_time(b) else None

    def _merged_times(self, a: pa.DataType, b: pa.DataType) -> pa.DataType:
        """The timestamp that holds the dates or times of two types."""
        times = [kind for kind in (a, b) if pa.types.is_timestamp(kind)]
        zones, units = {kind.tz for kind in times}, {kind.unit for kind in times}
        # a date becomes a time, a time without a zone gets one, and nanoseconds reach from 1678 to 2261 only
        self._exact = self._exact and len(times) == 2 and len(units) == 1 and None not in zones
        return pa.timestamp("ns" if "ns" in units else "us", zones.pop() if len(zones) == 1 else "UTC")


def _family(kind: pa.DataType | None) -> str:
    """Values of one family have a type in common."""
    if kind is None or _is_time(kind):
        return "other" if kind is None else "time"
    if kind in (pa.int64(), pa.float64()):
        return "number"
    nested = next((name for name in ("list", "struct", "decimal") if getattr(pa.types, f"is_{name}")(kind)), None)
    return nested or str(kind)


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or kind == pa.date32())


def _wider(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The decimals that hold both; of more than 38 digits the last decimals are left out."""
    whole = max(a.precision - a.scale, b.precision - b.scale)
    scale = min(max(a.scale, b.scale), 38 - whole)
    return pa.decimal128(max(whole + scale, 1), scale)


def fits(value: Any, kind: pa.DataType) -> bool:
    """Whether a column of type `kind` holds the value without changing it."""
    if pa.types.is_list(kind):
        return type(value) is list and all(item is None or fits(item, kind.value_type) for item in value)
    if pa.types.is_struct(kind):
        return (
            isinstance(value, Mapping)
            and value.keys() == {field.name for field in kind}
            and all(value[field.name] is None or fits(value[field.name], field.type) for field in kind)
        )
    return _fits_scalar(value, kind)


def _fits_scalar(value: Any, kind: pa.DataType) -> bool:
    if type(value) is int:
        limits = {pa.int64(): (-(2**63), 2**63 - 1), pa.float64(): (-(2**53), 2**53)}
        least, most = limits.get(kind, (1, 0))
        return least <= value <= most
    if type(value) in _PLAIN:
        return bool(_PLAIN[type(value)] == kind)
    found = _special(value)
    if found is not None and pa.types.is_timestamp(kind) and pa.types.is_timestamp(found):
        in_reach = kind.unit == found.unit or (kind.unit == "ns" and 1678 <= value.year <= 2261)
        return (kind.tz is None) == (found.tz is None) and in_reach
    if found is not None and pa.types.is_decimal(kind) and pa.types.is_decimal(found):
        return bool(found.scale <= kind.scale and found.precision - found.scale <= kind.precision - kind.scale)
    return found is not None and bool(found == kind)


def nearest(value: Any, kind: pa.DataType) -> Any:
    """What a column of type `kind` shows of a value: of an object the column's keys, of a date or time the timestamp.

    None if it shows nothing. A value that does not fit has to be kept elsewhere too.
    """
    if fits(value, kind):
        return value
    if pa.types.is_timestamp(kind):
        return _as_timestamp(value, kind)
    if pa.types.is_struct(kind) and isinstance(value, Mapping):
        return {field.name: nearest(value.get(field.name), field.type) for field in kind}
    if pa.types.is_list(kind) and type(value) is list and pa.types.is_struct(kind.value_type):
        return [nearest(item, kind.value_type) for item in value]
    if pa.types.is_list(kind) and type(value) is list and pa.types.is_timestamp(kind.value_type):
        shown = [nearest(item, kind.value_type) for item in value]
        return shown if all((a is None) == (b is None) for a, b in zip(shown, value, strict=True)) else None
    return None


def _as_timestamp(value: Any, kind: pa.DataType) -> Any:
    """A date as the beginning of its day, a time with a zone or without as the column has it; None for other values."""
    if not isinstance(value, date):
        return None
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    if kind.tz is not None and moment.utcoffset() is None:
        moment = moment.replace(tzinfo=UTC)
    elif kind.tz is None and moment.utcoffset() is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment if fits(moment, kind) else None


def restored(value: Any, kind: pa.DataType) -> Any:
    """The value that `headwater.core.plain.json_ready` wrote into JSON, for a column of type `kind`."""
    if value is None:
        return None
    if pa.types.is_list(kind):
        return [restored(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: restored(value[field.name], field.type) for field in kind}
    return _parsed(value, kind) if isinstance(value, str) and not pa.types.is_string(kind) else value


def _parsed(text: str, kind: pa.DataType) -> Any:
    for holds, parse in _PARSERS.items():
        if holds(kind):
            return parse(text)
    return _timestamp(text, kind)


_PARSERS: dict[Callable[[pa.DataType], bool], Callable[[str], Any]] = {
    pa.types.is_date: date.fromisoformat,
    pa.types.is_time: time.fromisoformat,
    pa.types.is_decimal: Decimal,
    pa.types.is_binary: base64.b64decode,
    pa.types.is_duration: lambda text: timedelta(microseconds=int(Decimal(text[2:-1]) * 10**6)),
}


def _timestamp(text: str, kind: pa.DataType) -> Any:
    if kind.unit != "ns":
        return datetime.fromisoformat(text)
    import pandas as pd

    return pd.Timestamp(text)


def _special(value: Any) -> pa.DataType | None:
    """The type of a value that is neither plain nor nested; None if there is none."""
    if isinstance(value, datetime):
        unit = "ns" if getattr(value, "nanosecond", 0) else "us"
        return pa.timestamp(unit, _zone(value))
    if isinstance(value, timedelta):
        return None if getattr(value, "nanoseconds", 0) else pa.duration("us")
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, date):
        return pa.date32()
    if isinstance(value, time):
        return pa.time64("us") if value.tzinfo is None else None
    return pa.binary() if isinstance(value, bytes) else None


def _zone(value: datetime) -> str | None:
    """The name of a time's zone, as Arrow writes it; None if it has none."""
    offset = value.utcoffset()
    if value.tzinfo is None or offset is None:
        return None
    named = getattr(value.tzinfo, "key", None) or getattr(value.tzinfo, "zone", None)
    if named or not offset:
        return str(named or "UTC")
    minutes = int(offset.total_seconds()) // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _decimal(value: Decimal) -> pa.DataType | None:
    """The decimals that hold just this value."""
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return None
    scale, whole = max(-exponent, 0), max(len(digits) + exponent, 0)
    return pa.decimal128(max(whole + scale, 1), scale) if whole + scale <= 38 else None


def _struct(fields: Mapping[Any, pa.DataType | None]) -> pa.DataType | None:
    kinds = {name: kind for name, kind in fields.items() if kind is not None and isinstance(name, str)}
    if len(kinds) < len(fields) or not all(map(storable, kinds)) or len(kinds) > MOST_FIELDS:
        return None
    return pa.struct([pa.field(name, kind) for name, kind in kinds.items()])


def _as_column(declared: pa.DataType) -> pa.DataType | None:
    """The type of our columns for values of a declared type; None if there is none."""
    if pa.types.is_dictionary(declared):
        return _as_column(declared.value_type)
    if pa.types.is_struct(declared):
        fields = {field.name: _as_column(field.type) for field in declared}
        return _struct(fields)
    if hasattr(declared, "value_type") and "list" in str(declared):
        item = _as_column(declared.value_type)
        return None if item is None else pa.list_(item)
    if pa.types.is_timestamp(declared):
        return pa.timestamp("ns" if declared.unit == "ns" else "us", declared.tz)
    if pa.types.is_decimal(declared):
        return pa.decimal128(min(declared.precision, 38), declared.scale) if 0 <= declared.scale <= 38 else None
    return next((kind for holds, kind in _DECLARED.items() if holds(declared)), None)


_DECLARED: dict[Callable[[pa.DataType], bool], pa.DataType] = {
    **dict.fromkeys((pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view), pa.string()),
    **dict.fromkeys((pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary), pa.binary()),
    pa.types.is_boolean: pa.bool_(),
    pa.types.is_integer: pa.int64(),
    pa.types.is_floating: pa.float64(),
    pa.types.is_date: pa.date32(),
    pa.types.is_time: pa.time64("us"),
    pa.types.is_duration: pa.duration("us"),
}


def _without_nulls(kind: pa.DataType) -> pa.DataType | None:
    """The type without fields of which no value is known; None if nothing is left."""
    if pa.types.is_null(kind):
        return None
    if pa.types.is_list(kind):
        item = _without_nulls(kind.value_type)
        return None if item is None else pa.list_(item)
    if pa.types.is_struct(kind):
        fields = [(field.name, _without_nulls(field.type)) for field in kind]
        kept = [pa.field(name, found) for name, found in fields if found is not None]
        return pa.struct(kept) if kept else None
    return kind


def _with_room(kind: pa.DataType) -> pa.DataType:
    """The type with room for larger decimals than those known."""
    if pa.types.is_list(kind):
        return pa.list_(_with_room(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _with_room(field.type)) for field in kind])
    return pa.decimal128(38, kind.scale) if pa.types.is_decimal(kind) else kind


def storable(name: str) -> bool:
    """Whether Lance takes this as a column's name (it refuses dots, and `*` means all columns) and SQL can quote it."""
    return bool(name) and name != "*" and not set(name) & set('.`"') and name.isprintable()
