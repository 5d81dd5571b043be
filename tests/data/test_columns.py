"""Columns take the type that holds their values, hold nothing they would change, and come back through JSON."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.plain import json_ready
from headwater.data.columns import ColumnType, fits, nearest, restored

BEFORE = datetime.fromisoformat("2024-03-30T10:00:00+01:00")
AFTER = datetime.fromisoformat("2024-03-31T10:00:00+02:00")
NANO = pd.Timestamp(1_700_000_000_000_000_001)
CASES: dict[str, tuple[list[Any], pa.DataType | None]] = {
    "text": (["a", None, "b"], pa.string()),
    "whole numbers": ([1, 2], pa.int64()),
    "numbers": ([1, 2.5], pa.float64()),
    "truth": ([True, False], pa.bool_()),
    "times": ([datetime(2024, 1, 1), datetime(1, 1, 1)], pa.timestamp("us")),
    "utc": ([datetime(2024, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
    "zone": ([datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))], pa.timestamp("us", "Europe/Berlin")),
    "offset": ([datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-5, minutes=-30)))], pa.timestamp("us", "-05:30")),
    "two zones": ([BEFORE, AFTER], pa.timestamp("us", "UTC")),
    "nanoseconds": ([NANO], pa.timestamp("ns")),
    "dates": ([date(2024, 1, 1)], pa.date32()),
    "time of day": ([time(1, 2, 3)], pa.time64("us")),
    "span": ([timedelta(days=-1, microseconds=1)], pa.duration("us")),
    "decimals": ([Decimal("1.50"), Decimal("-2.25")], pa.decimal128(38, 2)),
    "decimals of several lengths": ([Decimal(d) for d in ("1.10", "22.5", "-3.255", "7E+2")], pa.decimal128(38, 3)),
    "bytes": ([b"\xff"], pa.binary()),
    "lists": ([["a"], [], None], pa.list_(pa.string())),
    "lists of numbers": ([[1, None], [2.5]], pa.list_(pa.float64())),
    "objects": ([{"a": 1, "b": "x"}, {"b": None, "a": 2}], pa.struct({"a": pa.int64(), "b": pa.string()})),
    "nested": ([[{"at": [date(2024, 1, 1)]}]], pa.list_(pa.struct({"at": pa.list_(pa.date32())}))),
    "lists of mixtures": ([["a", 1]], None),
    "empty lists": ([[], []], None),
    "nothing": ([None], None),
    "a dictionary": ([{str(i): i for i in range(65)}], None),
    "a name with a dot": ([{"a.b": 1}], None),
    "something else": ([object()], None),
}


def column(values: list[Any]) -> ColumnType:
    found = ColumnType()
    for value in values:
        found.add(value)
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_column_takes_the_type_of_its_values_and_gives_them_back(case: str) -> None:
    values, kind = CASES[case]
    found = column(values)
    assert found.type == kind
    assert found.exact_type == kind
    if kind is not None:
        assert all(value is None or fits(value, kind) for value in values)
        assert pa.array(values, kind).to_pylist() == values
        told = json.loads(json.dumps(values, default=json_ready))
        back = [restored(value, kind) for value in told]
        assert back == values
        assert pa.array(back, kind).to_pylist() == values


INEXACT: dict[str, tuple[list[Any], pa.DataType, list[Any]]] = {
    "objects with other keys": (
        [{"a": 1}, {"b": "x"}],
        pa.struct({"a": pa.int64(), "b": pa.string()}),
        [{"a": 1, "b": None}, {"a": None, "b": "x"}],
    ),
    "most are numbers": ([1, "n/a", 2.5], pa.float64(), [1, None, 2.5]),
    "most are text": ([1, "a", "b"], pa.string(), [None, "a", "b"]),
    "times with a zone and without": (
        [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1), datetime(2024, 1, 2)],
        pa.timestamp("us", "UTC"),
        [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)],
    ),
    "dates and times": (
        [date(2024, 1, 1), datetime(2024, 1, 1, 9)],
        pa.timestamp("us"),
        [datetime(2024, 1, 1), datetime(2024, 1, 1, 9)],
    ),
    "lists of dates and times": (
        [[date(2024, 1, 1), None], [AFTER]],
        pa.list_(pa.timestamp("us", "+02:00")),
        [[datetime(2024, 1, 1, tzinfo=UTC), None], [AFTER]],
    ),
    "a key of two types": (
        [{"a": 1, "b": 1}, {"a": "x", "b": 2}],
        pa.struct({"a": pa.int64(), "b": pa.int64()}),
        [{"a": 1, "b": 1}, {"a": None, "b": 2}],
    ),
    "a key without values": ([{"a": 1, "b": None}], pa.struct({"a": pa.int64()}), [{"a": 1}]),
    "decimals of too many digits": (
        [Decimal(10**20), Decimal("1e-30"), Decimal("0.5")],
        pa.decimal128(38, 17),
        [Decimal(10**20), None, Decimal("0.5")],
    ),
    "beyond int64": ([1, 2**63], pa.int64(), [1, None]),
    "whole numbers that a float would round": ([0.5, 2**53 + 1], pa.float64(), [0.5, None]),
    "the same, the other way": ([2**53 + 1, 0.5], pa.float64(), [None, 0.5]),
    "beyond the reach of nanoseconds": ([NANO, datetime(1, 1, 1)], pa.timestamp("ns"), [NANO, None]),
}


@pytest.mark.parametrize("case", INEXACT)
def test_what_a_column_would_change_is_known(case: str) -> None:
    values, kind, shown = INEXACT[case]
    found = column(values)
    assert found.type == kind
    assert found.exact_type is None
    assert [nearest(value, kind) for value in values] == shown
    assert not all(fits(value, kind) for value in values)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.decimals(allow_nan=False, allow_infinity=False, places=2)
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
)


@settings(deadline=None, max_examples=300)
@given(st.lists(anything, max_size=4))
def test_an_exact_type_holds_every_value_and_any_type_takes_what_it_shows(values: list[Any]) -> None:
    found = column(values)
    if found.exact_type is not None:
        assert pa.array(values, found.exact_type).to_pylist() == values
    if found.type is not None:
        shown = pa.array([None if v is None else nearest(v, found.type) for v in values], found.type).to_pylist()
        assert all(a == b for a, b in zip(shown, values, strict=True) if b is not None and fits(b, found.type))


def test_declared_types_become_ours() -> None:
    found = ColumnType()
    for declared in (pa.dictionary(pa.int8(), pa.large_string()), pa.string_view()):
        found.add_type(declared)
    assert found.type == pa.string()
    narrow = column([1])
    narrow.add_type(pa.float32())
    assert narrow.type == pa.float64()
    listed = ColumnType()
    listed.add_type(pa.large_list(pa.struct({"at": pa.timestamp("s", "UTC"), "n": pa.uint8()})))
    assert listed.type == pa.list_(pa.struct({"at": pa.timestamp("us", "UTC"), "n": pa.int64()}))
    assert ColumnType().type is None


def test_a_time_with_a_zone_is_shown_in_a_column_without_one() -> None:
    assert nearest(AFTER, pa.timestamp("us")) == datetime(2024, 3, 31, 8)
    assert nearest(datetime(2024, 1, 1), pa.date32()) is None, "a column of dates would lose the hour"
