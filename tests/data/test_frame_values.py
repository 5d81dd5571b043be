"""Values as data frames write them: floats for ids, arrays for lists, NaN for what is missing."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from headwater.core.errors import DataError
from headwater.data.corpus import open_corpus

NAN = float("nan")


def test_whole_floats_are_ids_and_others_are_not() -> None:
    frame = pd.DataFrame({"id": [1, 2, None], "text": ["a", "b", "c"]})
    assert str(frame["id"].dtype) == "float64"
    ids = [row.id for row in open_corpus(frame)]
    assert ids[:2] == ["1", "2"]
    assert ids[2]
    for value in (1.5, 1e300, float("inf")):
        with pytest.raises(DataError, match="is of type float"):
            list(open_corpus([{"id": value, "text": "a"}]))


def test_arrays_of_messages_are_lists(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Tide?"}, {"role": "assistant", "content": "High."}]
    pd.DataFrame({"messages": [chat, chat], "tags": [["x"], ["y", "z"]]}).to_parquet(tmp_path / "rows.parquet")
    records = pd.read_parquet(tmp_path / "rows.parquet").to_dict("records")
    assert isinstance(records[0]["messages"], np.ndarray)
    rows = list(open_corpus(records[:1]))
    assert rows[0].messages == tuple(chat)
    assert rows[0].metadata == {"tags": ["x"]}


def test_missing_values_are_empty_however_deep() -> None:
    record = {
        "text": "a",
        "x": NAN,
        "y": [1.0, NAN],
        "z": {"d": Decimal("NaN")},
        "n": np.float64(NAN),
        "i": np.int64(3),
    }
    (row,) = open_corpus([{**record, "t": pd.NaT, "p": pd.NA}])
    expected = {"x": None, "y": [1.0, None], "z": {"d": None}, "n": None, "i": 3, "t": None, "p": None}
    assert row.metadata == expected


def test_dates_and_times_of_one_column_of_a_frame_keep_their_hours() -> None:
    berlin = datetime.fromisoformat("2024-03-30T10:00:00+01:00")
    for times in ([date(2024, 1, 1), datetime(2024, 1, 1, 9), None], [datetime(2024, 1, 1, 9), berlin, None]):
        frame = pd.DataFrame({"text": ["a", "b", "c"], "at": pd.Series(times, dtype=object)})
        assert [row.metadata["at"] for row in open_corpus(frame)] == times
