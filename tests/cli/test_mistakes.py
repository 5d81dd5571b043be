"""Mistakes that newcomers make: each is refused in one line, or does what they meant; none loses data or misleads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from test_commands import QUERY, ROWS, headwater, lines

import headwater as hw
from headwater.api import demo
from headwater.core.errors import DataError, StoreError, UsageError
from headwater.data.corpus import open_corpus
from headwater.valuation.chosen import write_records
from headwater.valuing.survey import survey
from zoo import tiny_loaded


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a model."""
    folder = tmp_path_factory.mktemp("mistakes")
    loaded = tiny_loaded("llama")
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    return folder


def vectors(path: Path) -> list:
    return hw.open_index(path).dataset.to_table(columns=["id", "rise", "checksum"]).to_pylist()


def test_an_open_session_follows_its_index(place):
    hw.build(place / "s.lance", model=str(place / "model"), data=ROWS[:13])
    session = hw.open_session(place / "s.lance")
    first = hw.trace(session, [QUERY]).queries[0].hits[0].id
    hw.delete(place / "s.lance", ids=first)
    assert first not in {hit.id for hit in hw.trace(session, [QUERY], top=13).queries[0].hits}
    hw.compact(place / "s.lance")
    assert len(hw.trace(session, [QUERY], top=13).queries[0].hits) == 12


def test_a_trace_by_a_column_beside_the_score_does_not_claim_the_scores_sign(place):
    index = hw.build(place / "e.lance", model=str(place / "model"), data=ROWS[:13])
    assert "proponent" in hw.trace(index, [QUERY]).about["sign"]
    assert "alike" in hw.trace(index, [QUERY], by="embedding").about["sign"]


def test_select_refuses_another_pool_and_keeps_all_columns(place):
    pool = [{"id": str(i), **row, **({"note": "n"} if i % 2 else {})} for i, row in enumerate(ROWS[:13])]
    lines(place / "p.jsonl", pool)
    lines(place / "q.jsonl", [{**row, "response": row["response"] + " Other."} for row in pool])
    lines(place / "r.jsonl", [{**row, "response": row["response"].upper()} for row in pool])
    valued = hw.value(place / "p.jsonl", [QUERY], method="length", out=place / "p.parquet", duplicates=0.0)
    assert valued.values.table["cluster"].null_count == 13
    for other in ("q.jsonl", "r.jsonl"):
        with pytest.raises(DataError, match="not the rows that were valued"):
            hw.select(valued, top=3, candidates=place / other)
    hw.select(valued, top=13, out=place / "all.parquet")
    assert "note" in pq.read_schema(place / "all.parquet").names


def test_a_resumed_run_refuses_a_pool_of_other_case_or_metadata():
    row = {"id": "1", "prompt": "What?", "response": "That.", "by": "a"}
    one, case, by = (
        survey(open_corpus([{**row, **change}]), sample=0) for change in ({}, {"response": "THAT."}, {"by": "b"})
    )
    assert len({one.identity, case.identity, by.identity}) == 3
    assert one.digest == by.digest != case.digest
    with pytest.raises(UsageError, match="near-duplicates"):
        survey(open_corpus([row]), sample=0, duplicates=2.0)


def test_messages_survive_a_csv_file(tmp_path):
    chat = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    (row,) = open_corpus(write_records(tmp_path / "chat.csv", chat))
    assert row.response == "b"


def test_what_a_notebook_gets_wrong_is_said_in_one_line(place):
    pool = [{"id": str(i), **row} for i, row in enumerate(ROWS[:13])]
    valued = hw.value(pool, [QUERY], method="length", out=place / "memory.parquet")
    with pytest.raises(UsageError, match="rows in memory"):
        hw.select(valued, top=3)
    assert len(hw.select(valued, top=3, candidates=pool).ids) == 3
    model = str(place / "model")
    with pytest.raises(UsageError, match="dtype"):
        hw.build(place / "no.lance", model=model, data=ROWS, loading={"dtyp": "float32"})
    with pytest.raises(UsageError, match="wrap_model"):
        hw.build(place / "no.lance", model=hw.load_model(model).model, data=ROWS)
    with pytest.raises(UsageError, match="2 targets"):
        hw.export_target({"a": [QUERY], "b": [QUERY]}, place / "no.query", model=model)


def test_a_data_frame_keeps_its_named_index_and_may_have_mixed_columns():
    frame = pd.DataFrame(
        [{"prompt": "What?", "response": "That.", "by": by} for by in (1, "a", 2**70)], ["x", "y", "z"]
    )
    frame.index.name = "id"
    assert [(row.id, row.metadata["by"]) for row in open_corpus(frame)] == [("x", 1), ("y", "a"), ("z", 2**70)]
    frame.columns = ["prompt", "response", "response"]
    with pytest.raises(DataError, match="same name"):
        open_corpus(frame)


def test_an_emptied_index_verifies(place):
    hw.build(place / "empty.lance", model=str(place / "model"), data=ROWS[:13])
    hw.delete(place / "empty.lance", where="true")
    done = headwater("index", "verify", "empty.lance", "--recompute", 4, cwd=place)
    assert done.returncode == 0, done.stderr


def test_a_full_device_is_said_in_one_line(place):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "headwater", "methods"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "fault in headwater" not in done.stderr


def test_a_group_without_a_command_shows_its_help(place):
    done = headwater("index", cwd=place)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage:")
    assert len(done.stderr.splitlines()) > 10


def test_a_demo_deletes_only_what_a_demo_made(tmp_path):
    (tmp_path / "train.jsonl").write_text("mine")
    with pytest.raises(StoreError, match="holds no demo"):
        demo._fresh(tmp_path)
    demo._fresh(tmp_path / "d")
    (tmp_path / "d" / "train.jsonl").write_text("made")
    (tmp_path / "d" / "thesis.txt").write_text("mine")
    demo._fresh(tmp_path / "d")
    assert {p.name for p in (tmp_path / "d").iterdir()} == {demo.MARKER, "thesis.txt"}
    assert (tmp_path / "train.jsonl").read_text() == "mine"


def test_one_id_is_one_id(place):
    rows = [{**row, "id": str(number)} for number, row in enumerate(ROWS[:13])]
    hw.build(place / "ids.lance", model=str(place / "model"), data=rows)
    assert hw.delete(place / "ids.lance", ids="12") == 1
    assert "12" not in {row["id"] for row in vectors(place / "ids.lance")}
