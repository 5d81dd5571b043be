"""Commands read several files, folders and patterns, and carry typed columns through to their results."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_commands import headwater, lines

import headwater as hw
from headwater.valuation.values import read_values
from zoo import SENTENCES, tiny_loaded

WORDS = " ".join(SENTENCES).split()


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{i}",
            "text": " ".join(WORDS[i : i + 6]),
            "date": datetime(2023 + i % 2, 1, 1 + i, 10),
            "tags": ["x"] if i % 2 else ["y", "z"],
            "value": f"own {i}",
        }
        for i in range(start, start + count)
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a pool in two shards and a test split, and a target."""
    folder = tmp_path_factory.mktemp("several")
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    (folder / "hub" / "data").mkdir(parents=True)
    (folder / "hub" / "README.md").write_text("# rows\n")
    for part in range(2):
        table = pa.Table.from_pylist(rows(6, 6 * part))
        pq.write_table(table, folder / "hub" / "data" / f"train-0000{part}-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(rows(2, 20)), folder / "hub" / "data" / "test-00000-of-00001.parquet")
    lines(folder / "more.jsonl", [{"id": "m0", "text": "One more.", "date": "soon"}])
    lines(folder / "task.jsonl", [{"text": sentence} for sentence in SENTENCES])
    return folder


def done(place: Path, *words: object, code: int = 0) -> Any:
    ran = headwater(*words, cwd=place)
    assert ran.returncode == code, ran.stderr
    return ran


def test_an_index_of_a_folder_a_split_and_another_file(place: Path) -> None:
    build = ("index", "build", "a.lance", "--model", "model", "--data")
    refused = done(place, *build, "hub", code=1)
    assert "there are several splits: test, train (choose one with --split NAME" in refused.stderr
    done(place, *build, "hub/data/train-*.parquet", "--data", "more.jsonl")
    assert lance.dataset(str(place / "a.lance")).count_rows() == 13
    again = done(place, "index", "add", "a.lance", "--data", "hub", "--split", "test")
    assert "2 rows added" in again.stdout


def test_an_addition_that_changes_a_type_is_one_line(place: Path) -> None:
    done(place, "index", "build", "b.lance", "--model", "model", "--data", "hub", "--split", "train")
    added = done(place, "index", "add", "b.lance", "--data", "more.jsonl")
    (note,) = [line for line in added.stderr.splitlines() if line.startswith("note:")]
    assert "'date' of 1 rows does not fit the column, of type timestamp[us]" in note
    where = ("--where", "date > timestamp '2024-01-01' AND array_has(tags, 'x')", "--top", 20)
    asked = ("trace", "b.lance", "--prompt", "The quick", "--response", " brown fox")
    found = done(place, *asked, *where, "--out", "hits.jsonl")
    assert "the condition cannot see 1 rows, whose 'date'" in found.stderr
    hits = [json.loads(line) for line in (place / "hits.jsonl").read_text().splitlines()]
    assert sorted(hit["id"] for hit in hits) == ["r1", "r11", "r3", "r5", "r7", "r9"]
    assert {hit["id"]: hit["date"] for hit in hits}["r3"] == "2024-01-04T10:00:00"
    assert all(hit["tags"] == ["x"] for hit in hits)


def test_values_of_a_split_keep_types_and_are_selected_and_audited_again(place: Path) -> None:
    value = ("value", "--candidates", "hub", "--split", "train", "--target", "task.jsonl", "--model", "model")
    refused = done(place, *value, "--by", "nope", "--out", "v.parquet", code=1)
    assert "--by: no column 'nope' (columns: id, value, low, high, characters, cluster, date, tags)" in refused.stderr
    assert not (place / "v.parquet.run").exists(), "nothing was valued"
    done(place, *value, "--method", "rise", "--by", "tags", "--out", "v.parquet")
    table = read_values(place / "v.parquet").table
    assert table.column("date").to_pylist() == [row["date"] for row in rows(12)]
    assert table.column("tags").to_pylist() == [row["tags"] for row in rows(12)]
    done(place, "select", "v.parquet", "--top", 3, "--out", "chosen.jsonl")
    chosen = [json.loads(line) for line in (place / "chosen.jsonl").read_text().splitlines()]
    assert len(chosen) == 3
    assert all(row["date"].startswith("202") and row["value"].startswith("own") for row in chosen)
    done(place, "select", "v.parquet", "--top", 3, "--out", "again.jsonl", "--candidates", "hub", "--split", "train")
    assert (place / "again.jsonl").read_text() == (place / "chosen.jsonl").read_text()
    audit = ("value", "audit", "v.parquet", "--candidates", "hub", "--target", "task.jsonl", "--model", "model")
    assert "confirmed" in done(place, *audit, "--sample", 12).stderr


def test_a_limited_pool_under_other_names_is_audited_as_it_was_valued(place: Path) -> None:
    lines(place / "named.jsonl", [{"words": row["text"], "n": i} for i, row in enumerate(rows(14))])
    value = ("value", "--candidates", "named.jsonl", "--column", "text=words", "--limit", 12)
    done(place, *value, "--target", "task.jsonl", "--model", "model", "--method", "rise", "--out", "w.parquet")
    audit = ("value", "audit", "w.parquet", "--candidates", "named.jsonl", "--target", "task.jsonl", "--model", "model")
    assert "confirmed" in done(place, *audit, "--sample", 12).stderr


def test_a_selection_keeps_a_rows_own_value(place: Path) -> None:
    values = hw.value(rows(6), str(place / "task.jsonl"), method="length")
    chosen = hw.select(values, top=2, candidates=rows(6))
    (first, _) = chosen.records()
    assert first["value_"].startswith("own")
    assert first["value"] == chosen.values[0]
