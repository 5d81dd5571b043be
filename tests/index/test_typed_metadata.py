"""Metadata has typed columns that conditions filter; what no column holds is kept, and said."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.core.errors import DataError, StoreError
from headwater.data.corpus import open_corpus
from headwater.engines.local import Local
from headwater.index.checks import check_index
from headwater.index.rows import infer_schema
from headwater.index.store import Index, create_index, open_index
from headwater.index.upkeep import kept_aside, unseen_rows
from headwater.indexing import blocks
from headwater.indexing.build import build, make_manifest
from headwater.indexing.maintain import add
from headwater.valuing.survey import survey
from oracles.fake_method import fake_bound, fake_session

COUNT = 10
COLUMNS: dict[str, list[Any]] = {
    "date": [datetime(2023 + i % 2, 1, 1 + i) for i in range(COUNT)],
    "seen": [datetime(2023 + i % 2, 1, 1 + i, tzinfo=UTC) for i in range(COUNT)],
    "nano": [pd.Timestamp(1_700_000_000_000_000_001 + i) for i in range(COUNT)],
    "day": [date(2024, 1, 1 + i) for i in range(COUNT)],
    "score": [i / 10 for i in range(COUNT)],
    "tags": [["x"] if i % 2 else ["y", "z"] for i in range(COUNT)],
    "about": [{"a": i, "b": None if i else "q"} for i in range(COUNT)],
    "price": [Decimal("1.50") * i for i in range(COUNT)],
    "clean": [i % 3 == 0 for i in range(COUNT)],
    "took": [timedelta(seconds=i) for i in range(COUNT)],
    "raw": [bytes([i, 255]) for i in range(COUNT)],
    "late": [None] * 8 + [1, 2],
}
SCHEMA = pa.schema({"late": pa.int32(), "price": pa.decimal128(9, 2), "nano": pa.timestamp("ns")})
CONDITIONS = {
    "date > timestamp '2024-01-01'": [1, 3, 5, 7, 9],
    "seen >= timestamp '2024-01-04T00:00:00Z'": [3, 5, 7, 9],
    "day = date '2024-01-02'": [1],
    "score > 0.5": [6, 7, 8, 9],
    "array_has(tags, 'x')": [1, 3, 5, 7, 9],
    "about.a = 2": [2],
    "price > 12": [9],
    "CAST(price AS DOUBLE) > 1.4 AND clean": [3, 6, 9],
    "late = 2": [9],
    "late IS NULL AND array_length(tags) = 2": [0, 2, 4, 6],
}


def table() -> pa.Table:
    columns = {
        name: pa.array(values, SCHEMA.field(name).type if name in SCHEMA.names else None)
        for name, values in COLUMNS.items()
    }
    return pa.table({"id": [f"r{i}" for i in range(COUNT)], "text": [f"row {i}" for i in range(COUNT)], **columns})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(blocks, "_FEWEST_ROWS", 4)
    monkeypatch.setattr(blocks, "_MOST_ROWS", 4)
    pq.write_table(table(), tmp_path / "rows.parquet")
    return build(tmp_path / "a.lance", open_corpus(tmp_path / "rows.parquet"), fake_bound())


def test_every_type_can_be_filtered_and_comes_back(index: Index) -> None:
    for condition, expected in CONDITIONS.items():
        found = [name for batch in index.batches(["id"], where=condition) for name in batch.column("id").to_pylist()]
        assert found == [f"r{i}" for i in expected], condition
    rows = index.fetch([f"r{i}" for i in range(COUNT)])
    for i, row in enumerate(rows):
        assert row.metadata == {name: values[i] for name, values in COLUMNS.items() if values[i] is not None}
    assert kept_aside(index) == {}
    assert check_index(index.path) == []


def test_a_column_whose_first_block_is_empty_has_its_declared_type(index: Index) -> None:
    assert index.dataset.schema.field("late").type == pa.int64()
    assert index.dataset.to_table(["late"]).column("late").to_pylist() == COLUMNS["late"]


def test_values_keep_the_types_of_a_pool(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "rows.parquet")
    found = survey(open_corpus(tmp_path / "rows.parquet"), sample=0, keep=tmp_path / "kept.jsonl")
    kinds = {name: str(kind) for name, kind in found.metadata.items()}
    assert kinds["date"] == "timestamp[us]"
    assert kinds["nano"] == "timestamp[ns]"
    assert kinds["about"] == "struct<a: int64, b: string>"
    lines = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert lines[1]["metadata"]["seen"] == "2024-01-02T00:00:00+00:00"
    assert lines[1]["metadata"]["tags"] == ["x"]


def test_an_addition_that_changes_a_columns_type_is_counted_and_loses_nothing(index: Index) -> None:
    more = [
        {"id": "m0", "text": "new 0", "score": "high", "about": {"a": 99, "c": 1}},
        {"id": "m1", "text": "new 1", "score": "low", "other": 3, "day": date(2030, 1, 1)},
        {"id": "m2", "text": "new 2", "score": 1},
    ]
    done = add(fake_session(index), open_corpus(more))
    assert dict(done.aside) == {"score": 2}
    assert kept_aside(open_index(index.path)) == {"score": 2}
    assert open_index(index.path).count_where("other = 3") == 1, "a name that is new gets a column"
    assert unseen_rows(open_index(index.path), "score > 0.5") == {"score": 2}
    assert unseen_rows(open_index(index.path), "about.a > 5") == {}, "the column shows the keys it has"
    opened = open_index(index.path)
    for row in more:
        (found,) = opened.fetch([row["id"]])
        assert found.metadata == {name: value for name, value in row.items() if name not in ("id", "text")}
    assert opened.dataset.to_table(["id"], filter="about.a = 99").column("id").to_pylist() == ["m0"]
    assert check_index(index.path) == []


def test_an_index_of_before_still_opens_grows_and_says_what_it_cannot_see(tmp_path: Path) -> None:
    """Its columns are text, truth values and numbers alone; times are in `extra`, as text."""
    pq.write_table(table(), tmp_path / "rows.parquet")
    corpus = open_corpus(tmp_path / "rows.parquet")
    manifest = make_manifest(corpus, fake_bound())
    schema = infer_schema(list(corpus), manifest.columns)
    plain = [field for field in schema if field.name not in {*COLUMNS} - {"score", "clean"}]
    made = create_index(tmp_path / "old.lance", manifest, pa.schema(plain))
    index = build(tmp_path / "old.lance", corpus, fake_bound(), resume=True)
    assert index.dataset.schema.names == made.dataset.schema.names
    assert index.fetch(["r1"])[0].metadata["date"] == "2024-01-02T00:00:00"
    assert unseen_rows(index, "date > timestamp '2024-01-01'") == {"date": COUNT}


def test_a_build_over_several_files_goes_on_and_sees_that_one_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_FEWEST_ROWS", 4)
    monkeypatch.setattr(blocks, "_MOST_ROWS", 4)
    for part in range(3):
        rows = table().slice(part * 4, 4)
        pq.write_table(rows, tmp_path / f"part-{part}.parquet")
    pattern = str(tmp_path / "part-*.parquet")
    clean = build(tmp_path / "clean.lance", open_corpus(pattern), fake_bound())

    def stop(done: int, total: int | None, tokens: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "a.lance", open_corpus(pattern), fake_bound(), on_progress=stop, engine=Local(ahead=0))
    assert open_index(tmp_path / "a.lance").count == 8
    kept = (tmp_path / "part-0.parquet").read_bytes()
    pq.write_table(table().slice(1, 4), tmp_path / "part-0.parquet")
    with pytest.raises(DataError, match=r"part-0\.parquet:1: .* the data has changed"):
        build(tmp_path / "a.lance", open_corpus(pattern), fake_bound(), resume=True)
    (tmp_path / "part-0.parquet").write_bytes(kept)
    index = build(tmp_path / "a.lance", open_corpus(pattern), fake_bound(), resume=True)
    assert index.dataset.to_table() == clean.dataset.to_table()


def test_times_of_several_zones_and_decimals_of_several_lengths_are_one_column(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(
        "id,text,at\nr0,a,2024-03-30T10:00:00+01:00\nr1,b,2024-03-31T10:00:00+02:00\n"
        "r2,c,2024-03-31T09:00:00\nr3,d,2024-04-01\n"
    )
    index = build(tmp_path / "csv.lance", open_corpus(tmp_path / "rows.csv"), fake_bound())
    assert kept_aside(index) == {}
    after = "at > timestamp '2024-03-31T08:30:00Z'"
    assert index.dataset.to_table(["id"], filter=after).column("id").to_pylist() == ["r2", "r3"]
    assert index.count_where("at = timestamp '2024-03-30T09:00:00Z'") == 1
    prices = [Decimal("1.10"), Decimal("22.5"), Decimal("3.25"), None]
    rows = [{"id": f"r{i}", "text": f"t{i}", "price": price} for i, price in enumerate(prices)]
    index = build(tmp_path / "prices.lance", open_corpus(rows), fake_bound())
    assert index.dataset.to_table(["price"]).column("price").to_pylist() == prices
    assert index.dataset.to_table(["extra"]).column("extra").null_count == 4


@pytest.mark.parametrize("name", ["day", "date", "seen"])
def test_a_text_compared_with_a_date_says_how_to_write_it(index: Index, name: str) -> None:
    with pytest.raises(StoreError, match="cannot be used") as caught:
        index.count_where(f"{name} > '2024-01-03'")
    said = re.search(r"\(write (.*) in place of (.*)\)", str(caught.value))
    assert said is not None
    assert index.count_where(f"{name} > '2024-01-03'".replace(said[2], said[1])) > 0, "the remedy works"
