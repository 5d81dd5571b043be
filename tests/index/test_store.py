"""What the store promises: rows come back as they went in, commits are atomic, nothing of others is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.core.errors import StoreError
from headwater.core.spec import Column, Coverage, MethodSpec
from headwater.data.readings import RowReading
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.index.info import describe
from headwater.index.manifest import Manifest, Plan, loads
from headwater.index.rows import RESERVED, from_record, infer_schema, stored_name, to_table, user_name
from headwater.index.store import Index, create_index, open_index
from oracles.hand_rows import append, as_tokens, hand_index, hand_row

COLUMNS = (Column("vector", 4), Column("wide", 2, "float32"))


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "method": MethodSpec("rise", {"dim": 4}),
        "columns": COLUMNS,
        "coverage": Coverage(1, 4),
        "model": {"name": "m", "adapter": None, "fingerprint": {"weights": "w"}},
        "tokenization": {"template": {"name": "plain"}},
        "plan": Plan(4, 64),
        "data": ("rows.jsonl",),
    }
    return Manifest(**{**fields, **changes})


def vectors(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {c.name: random.standard_normal((count, c.dim)).astype(c.dtype) for c in COLUMNS}


def rows(count: int, start: int = 0) -> list[TokenRow]:
    return [hand_row(f"r{i}", f"d{i}", {"n": i}, tokens=i, text=f"text {i}") for i in range(start, start + count)]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = hand_index(tmp_path / "a.lance", manifest(), rows(5))
    append(made, rows(5), vectors(5))
    append(made, rows(4, 5), vectors(4, 1))
    return made


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5)
)
values = (
    scalars | st.integers(2**63, 2**70) | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=3), scalars)
)
names = st.sampled_from(
    [*sorted(RESERVED), "loss_", "loss__", "vector", "a.b", "", "_", "year", "`x`", "Id"]
) | st.text(max_size=4)


def clean_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@settings(deadline=None)
@given(st.lists(st.dictionaries(names, values, max_size=4), min_size=1, max_size=4), st.integers(1, 4))
def test_metadata_comes_back_whatever_it_is(found: list[dict[str, Any]], first: int) -> None:
    found = [m for m in found if clean_text(m)]
    stored = [hand_row(f"r{i}", "d", m, prompt="p", response="r") for i, m in enumerate(found)]
    schema = infer_schema([row.row for row in stored[:first]], COLUMNS)
    losses, readings = np.full(len(stored), 0.5, np.float32), [RowReading()] * len(stored)
    table = to_table(stored, losses, vectors(len(stored)), schema, readings=readings)
    for i, record in enumerate(table.select([n for n in schema.names if n not in vectors(1)]).to_pylist()):
        row = from_record(record, ordinal=i, place="", vectors=("vector", "wide"))
        expected = {name: value for name, value in found[i].items() if value is not None}
        assert row.metadata == expected
        assert (row.id, row.prompt, row.response, row.text) == (f"r{i}", "p", "r", None)


@settings(deadline=None)
@given(names)
def test_stored_names_are_never_ours_and_can_be_undone(name: str) -> None:
    column = stored_name(name, ("vector",))
    assert column not in RESERVED
    assert column != "vector"
    assert user_name(column, ("vector",)) == name


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metadata=st.dictionaries(names, scalars, max_size=3))
def test_lance_takes_every_name_we_make_a_column_of(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]
) -> None:
    if not clean_text(metadata):
        return
    row = hand_row("r", "d", metadata, text="t")
    made = hand_index(tmp_path_factory.mktemp("names") / "a.lance", manifest(), [row])
    append(made, [row], vectors(1))
    assert made.fetch(["r"])[0].metadata == {name: value for name, value in metadata.items() if value is not None}


def test_chat_rows_and_hotwords_come_back(index: Index) -> None:
    turns = ({"role": "user", "content": "hi ✓"}, {"role": "assistant", "content": "ho"})
    row = Row("chat", 0, prompt="hi ✓", response="ho", messages=turns, hotwords=("ho",))
    append(index, [as_tokens(row)], vectors(1))
    (back,) = index.fetch(["chat"])
    assert (back.messages, back.hotwords, back.prompt, back.response) == (turns, ("ho",), "hi ✓", "ho")


def test_rows_are_found_by_position_address_and_id(index: Index) -> None:
    index.dataset.delete("id = 'r1'")
    table = index.dataset.to_table(columns=["id"])
    addresses = index.dataset.scanner(columns=["id"], with_row_address=True).to_table().column("_rowaddr").to_pylist()
    assert index.ids() == [f"r{i}" for i in (0, 2, 3, 4, 5, 6, 7, 8)] == table.column("id").to_pylist()
    assert index.take([6, 0, 1], ["id"]).column("id").to_pylist() == ["r7", "r0", "r2"]
    asked = [addresses[5], addresses[0], addresses[5]]
    assert index.at(asked, ["n"]).column("n").to_pylist() == [6, 0, 6]
    assert [row.id for row in index.rows(asked)] == ["r6", "r0", "r6"]
    assert [row.text for row in index.fetch(["r8", "r0"])] == ["text 8", "text 0"]
    with pytest.raises(StoreError, match="no row with id 'r1'"):
        index.fetch(["r0", "r1"])
    with pytest.raises(StoreError, match="no row with _rowaddr 1"):
        index.at([1], ["id"])
    assert index.rows([]) == []


def test_a_local_name_with_a_colon_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    index = hand_index("run:1.lance", manifest(), rows(3))
    append(index, rows(3), vectors(3))
    assert open_index("run:1.lance").count == 3
    assert describe(index)["vector_indices"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["run:1.lance"]


def test_ids_with_quotes_are_only_text(tmp_path: Path) -> None:
    made = create_index(tmp_path / "a.lance", manifest())
    odd = "it's') OR ('1'='1"
    append(made, [hand_row(odd), hand_row("other")], vectors(2))
    assert [row.id for row in made.fetch([odd])] == [odd]


def test_an_append_is_one_commit_and_readers_stay_where_they_are(index: Index) -> None:
    reader, before = open_index(index.path), index.dataset.version
    append(index, rows(3, 9), vectors(3))
    assert index.dataset.version == before + 1
    assert (reader.count, index.count) == (9, 12)
    reader.refresh()
    assert reader.count == 12


def test_vectors_are_stored_bit_for_bit_and_open_without_headwater(index: Index) -> None:
    dataset = lance.dataset(index.path)
    assert dataset.schema.field("vector").type == pa.list_(pa.float16(), 4)
    stored = np.stack(dataset.to_table(["wide"]).column("wide").to_numpy(zero_copy_only=False))
    assert np.array_equal(stored, np.concatenate([vectors(5)["wide"], vectors(4, 1)["wide"]]))
    assert json.loads(dataset.schema.metadata[b"headwater"])["method"]["name"] == "rise"


def test_what_is_there_is_never_touched(tmp_path: Path, index: Index) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    lance.write_dataset(pa.table({"x": [1]}), str(tmp_path / "other.lance"))
    for path in (folder, folder / "thesis.txt", tmp_path / "other.lance", Path(index.path)):
        with pytest.raises(StoreError, match=r"--resume or choose another name"):
            create_index(path, manifest())
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.lance", "mine", "other.lance"]


def test_what_is_not_an_index_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    lance.write_dataset(pa.table({"x": [1]}), str(tmp_path / "other.lance"))
    for name, what in (("none", "no index here"), ("empty", "not an index"), ("other.lance", "not a headwater index")):
        with pytest.raises(StoreError, match=what):
            open_index(tmp_path / name)


def test_a_second_writer_is_refused_while_a_reader_is_not(index: Index) -> None:
    other = open_index(index.path)
    with index.writing():
        with pytest.raises(StoreError, match="another process is writing"):
            append(other, rows(1, 20), vectors(1))
        assert other.count == 9
    append(other, rows(1, 20), vectors(1))
    append(index, rows(1, 21), vectors(1))
    assert index.count == 11


def test_a_condition_that_makes_no_sense_is_quoted_back(index: Index) -> None:
    with pytest.raises(StoreError, match="yeer > 3"):
        list(index.batches(["id"], where="yeer > 3"))


def test_manifest_survives_and_an_edit_is_named(index: Index) -> None:
    first = manifest()
    assert loads(first.dumps(), where="x") == first
    raw = json.loads(first.dumps())
    raw["method"]["options"]["dim"] = 5
    raw["columns"][0]["weight"] = 2.0
    with pytest.raises(StoreError, match=r"manifest's method, columns was changed"):
        loads(json.dumps(raw), where="x")
    with pytest.raises(StoreError, match=r"format version 7.*upgrade headwater"):
        loads(json.dumps(raw | {"format_version": 7, "columns": "as the future has them"}), where="x")
    for broken in ("", "[]", "{}", json.dumps({"format_version": 1, "seals": {}})):
        with pytest.raises(StoreError, match="manifest cannot be read"):
            loads(broken, where="x")


def test_info_is_json_and_adds_up(index: Index) -> None:
    facts = describe(open_index(index.path))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["rows"] == 9
    assert 16 <= facts["bytes_per_row"]["vectors"] < 60
    assert facts["bytes_on_disk"] > facts["bytes"] > 9 * index.rows_bytes
    assert "--resume" in facts["warning"]


def test_a_place_where_no_index_can_be_made_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        hand_index(tmp_path / "file" / "x.lance", manifest())
    remedy = "(choose a folder that can be written to)"
    assert str(caught.value) == f"{tmp_path}/file/x.lance: no index can be made here: File exists {remedy}"
