"""What the life of an index promises: additions and deletions are exact, compaction is final, faults are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from headwater.core.errors import DataError, StoreError, UsageError
from headwater.engines.local import Local
from headwater.index import upkeep
from headwater.index.checks import check_index
from headwater.index.rows import vector_array
from headwater.index.store import Index, open_index
from headwater.index.upkeep import compact, delete_rows
from headwater.indexing import blocks
from headwater.indexing.maintain import add, delete, recompute
from oracles.fake_method import corpus_of, fake_build, fake_loaded, fake_session, records
from oracles.hand_rows import append, as_tokens

ROWS = 30


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(blocks, "_FEWEST_ROWS", 8)
    monkeypatch.setattr(blocks, "_MOST_ROWS", 8)
    return fake_build(tmp_path / "a.lance", records(ROWS))


def kinds(index: Index) -> set[str]:
    return {fault.kind for fault in check_index(index.path)}


def everything(index: Index) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(Path(index.path).rglob("*")) if file.is_file())


# growing


def test_only_new_ids_are_added_and_the_rest_is_counted(index: Index) -> None:
    more = records(20, ROWS - 5)
    more.append({**more[-1], "id": "same content, other id"})
    done = add(fake_session(index), corpus_of(more))
    assert (done.rows, done.duplicates) == (16, 5)
    assert index.ids() == [*(f"row-{i}" for i in range(ROWS + 15)), "same content, other id"]
    assert kinds(index) == set()
    assert recompute(fake_session(index), 100) == []
    again = add(fake_session(index), corpus_of(more))
    assert (again.rows, again.duplicates) == (0, 21)


def test_an_addition_reads_rows_as_a_build_does(index: Index, tmp_path: Path) -> None:
    add(fake_session(index), corpus_of(records(16, ROWS)))
    other = fake_build(tmp_path / "b.lance", records(16, ROWS))
    added = index.dataset.to_table(["vector"]).column("vector").to_pylist()[ROWS:]
    assert added == other.dataset.to_table(["vector"]).column("vector").to_pylist()


def test_an_added_row_may_not_take_the_id_of_another(index: Index) -> None:
    with pytest.raises(DataError, match="memory:1: the index has another row with the id 'row-3'"):
        add(fake_session(index), corpus_of([{"id": "row-3", "text": "quite another text"}]))


def test_an_interrupted_addition_is_said_and_goes_on(index: Index) -> None:
    def stop(done: int, total: int | None, tokens: int) -> None:
        if done == 8:  # the first block is committed
            raise InterruptedError

    with pytest.raises(InterruptedError):
        add(fake_session(index), corpus_of(records(20, ROWS)), on_progress=stop, engine=Local(ahead=0))
    assert open_index(index.path).count == ROWS + 8
    assert kinds(index) == {"unfinished"}
    assert delete(index, ids=["row-1"]) == 1  # a takedown does not wait
    assert kinds(index) == {"unfinished"}
    done = add(fake_session(index), corpus_of(records(20, ROWS)))
    assert (done.rows, done.duplicates, kinds(index)) == (12, 8, set())


# shrinking


def test_rows_go_by_id_by_condition_and_by_text(index: Index) -> None:
    assert delete(index, ids=["row-3", "row-4", "row-3"]) == 2
    assert delete(index, where="source = 'it''s'") == 10
    same_text = [{k: v for k, v in row.items() if k in ("prompt", "response")} for row in records(2, 6)]
    assert delete(index, rows=corpus_of(same_text)) == 2
    assert index.ids() == [f"row-{i}" for i in range(ROWS) if i not in (3, 4, 6, 7) and i % 3 != 2]
    assert kinds(index) == set()
    assert delete(index, where="year > 9999") == 0


def test_what_is_not_there_is_not_deleted_silently(index: Index) -> None:
    version = index.dataset.version
    with pytest.raises(StoreError, match="2 of 3 ids are not in the index, such as 'nobody'"):
        delete(index, ids=["row-1", "nobody", "nothing"])
    with pytest.raises(StoreError, match="1 of 2 texts are not in the index"):
        delete(index, rows=corpus_of([*records(1), {"text": "never seen"}]))
    with pytest.raises(StoreError, match="no_such_column"):
        delete(index, where="no_such_column = 1")
    with pytest.raises(UsageError):
        delete(index)
    with pytest.raises(UsageError):
        delete(index, ids=["row-1"], where="year = 1")
    assert open_index(index.path).dataset.version == version


def test_an_interrupted_deletion_is_said_and_goes_on(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(index: Index) -> None:
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "seal", interrupt)
        with pytest.raises(InterruptedError):
            delete(index, ids=["row-1"])
    assert kinds(index) == {"unfinished"}
    assert delete(index, ids=["row-1", "row-2"]) == 1
    assert kinds(index) == set()


def test_earlier_versions_can_be_read_until_compaction(index: Index) -> None:
    version = index.dataset.version
    delete(index, ids=["row-1"])
    assert lance.dataset(index.path, version=version).count_rows() == ROWS
    compact(index)
    assert len(index.dataset.versions()) == 1
    with pytest.raises((OSError, ValueError)):
        lance.dataset(index.path, version=version).to_table()


@pytest.mark.parametrize("row", [0, 11, ROWS - 1])
@pytest.mark.parametrize("already_compact", [False, True])
def test_after_compaction_no_byte_of_a_deleted_row_is_left(index: Index, row: int, already_compact: bool) -> None:
    """Text of few rows is stored as it is, so what is looked for can be seen before; vectors always are."""
    if already_compact:
        compact(index)
    for column, kind in (("prompt", "BTREE"), ("id", "BTREE"), ("response", "INVERTED")):
        index.dataset.create_scalar_index(column, kind)
    index.refresh()
    kept, gone = index.ids()[5], index.ids()[row]
    table = index.dataset.to_table(filter=f"id IN ('{gone}', '{kept}')")
    order = [table.column("id").to_pylist().index(name) for name in (gone, kept)]
    prompts = [table.column("prompt")[i].as_py().encode() for i in order]
    vectors = [vector_array(table.column("vector"))[i].tobytes() for i in order]
    before = everything(index)
    assert all(needle in before for needle in (*prompts, *vectors))
    delete(index, ids=[gone])
    compacted = compact(index)
    after = everything(index)
    assert prompts[0] not in after
    assert vectors[0] not in after
    assert f"answer {row * row} ".encode() not in after
    assert prompts[1] in after
    assert vectors[1] in after
    assert compacted.rows == ROWS - 1
    assert compacted.bytes_after is not None
    assert kinds(index) == set()
    assert index.count == ROWS - 1


def test_compaction_keeps_what_is_there_and_its_order(index: Index) -> None:
    delete(index, where="year % 4 = 1")
    before = index.dataset.to_table()
    compact(index)
    assert index.dataset.to_table() == before
    assert len(index.dataset.get_fragments()) == 1
    done = add(fake_session(index), corpus_of(records(ROWS)))
    assert done.rows == ROWS - before.num_rows


def test_an_index_can_lose_all_its_rows_and_grow_again(index: Index) -> None:
    assert delete(index, where="true") == ROWS
    compact(index)
    assert (index.count, kinds(index)) == (0, set())
    assert add(fake_session(index), corpus_of(records(3))).rows == 3
    assert (index.ids(), kinds(index)) == (["row-0", "row-1", "row-2"], set())


# faults


def data_files(index: Index) -> list[Path]:
    return [Path(index.path) / "data" / f.metadata.files[0].path for f in index.dataset.get_fragments()]


def lose_a_file(index: Index) -> None:
    data_files(index)[1].unlink()


def cut_a_file(index: Index) -> None:
    file = data_files(index)[1]
    file.write_bytes(file.read_bytes()[:-200])


def flip_a_vector_byte(index: Index) -> None:
    vector = vector_array(index.take([9], ["vector"]).column("vector")).tobytes()
    file = data_files(index)[1]
    raw = bytearray(file.read_bytes())
    raw[raw.index(vector) + 5] ^= 1
    file.write_bytes(raw)


def edit_a_text(index: Index) -> None:
    index.dataset.update({"prompt": "'changed'"}, where="id = 'row-9'")


def poison_a_vector(index: Index) -> None:
    table = index.take([9])
    values = vector_array(table.column("vector")).copy()
    values[0, 2] = np.nan
    put(index, table, values)


def empty_a_vector(index: Index) -> None:
    table = index.take([9])
    put(index, table, vector_array(table.column("vector")) * np.float16(0))


def put(index: Index, table: pa.Table, values: np.ndarray) -> None:
    array = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=table.schema.field("vector").type)
    table = table.set_column(table.schema.names.index("vector"), table.schema.field("vector"), array)
    index.dataset.merge_insert("id").when_matched_update_all().execute(table)


def repeat_a_row(index: Index) -> None:
    index.dataset.insert(index.take([9]))


def lose_a_row(index: Index) -> None:
    index.dataset.delete("id = 'row-9'")


def exchange_a_row(index: Index) -> None:
    (row,) = records(1, 50)
    lose_a_row(index)
    other = fake_build(Path(index.path).parent / "other.lance", [row])
    index.dataset.insert(other.dataset.to_table())


def take_rows_of_another_model(index: Index) -> None:
    lose_a_row(index)
    other = fake_build(Path(index.path).parent / "other.lance", records(1, 9), loaded=fake_loaded(weights="w1"))
    index.dataset.insert(other.dataset.to_table())


def edit_the_manifest(index: Index) -> None:
    raw = json.loads(index.dataset.schema.metadata[b"headwater"])
    raw["model"]["fingerprint"]["weights"] = "w1"
    index.dataset.update_schema_metadata({"headwater": json.dumps(raw)})


def come_from_the_future(index: Index) -> None:
    raw = json.loads(index.dataset.schema.metadata[b"headwater"])
    index.dataset.update_schema_metadata({"headwater": json.dumps(raw | {"format_version": 2})})


def drop_a_column(index: Index) -> None:
    index.dataset.drop_columns(["wide"])


def lose_the_versions(index: Index) -> None:
    shutil.rmtree(Path(index.path) / "_versions")


@pytest.mark.parametrize(
    ("damage", "kind", "named"),
    [
        (lose_a_file, "storage", ".lance"),
        (cut_a_file, "storage", ".lance"),
        (flip_a_vector_byte, "checksum", "row-9"),
        (edit_a_text, "checksum", "row-9"),
        (poison_a_vector, "finite", "row-9"),
        (empty_a_vector, "norm", "row-9"),
        (repeat_a_row, "duplicate", "row-9"),
        (lose_a_row, "tally", "30 rows were written, 29 are there"),
        (exchange_a_row, "tally", "not those that were written"),
        (take_rows_of_another_model, "checksum", "row-9"),
        (edit_the_manifest, "open", "manifest's model was changed"),
        (come_from_the_future, "open", "format version 2"),
        (drop_a_column, "schema", "'wide' should be"),
        (lose_the_versions, "open", "this folder is not an index"),
    ],
)
def test_each_fault_is_named(index: Index, damage: Callable[[Index], None], kind: str, named: str) -> None:
    assert check_index(index.path) == []
    damage(index)
    found = [str(fault) for fault in check_index(index.path) if fault.kind == kind]
    assert any(named in fault for fault in found), check_index(index.path)


def test_a_change_to_any_cell_of_a_row_is_found(index: Index) -> None:
    sound = index.dataset.version
    cells = [field for field in index.dataset.schema if field.name not in (*index.vectors, "checksum")]
    assert {"digest", "prompt", "year", "share", "clean", "extra", "tokens", "loss"} < {field.name for field in cells}
    for field in cells:
        name = f"`{field.name}`"
        other = {pa.string(): "'row-x'", pa.bool_(): f"NOT {name}"}.get(field.type, f"{name} + 1")
        other = "NULL" if pa.types.is_nested(field.type) else other
        open_index(index.path).dataset.update({field.name: other}, where="id = 'row-9'")
        found = [fault.where for fault in check_index(index.path) if fault.kind == "checksum"]
        assert found == ["row 'row-x'" if field.name == "id" else "row 'row-9'"], field
        lance.dataset(index.path, version=sound).restore()
        assert check_index(index.path) == []


def test_a_flipped_byte_anywhere_is_found_or_harmless(index: Index) -> None:
    """Wherever a bit flips: a fault is named, or every row still reads as it was written."""
    delete(index, ids=["row-5", "row-12"])
    whole = index.dataset.to_table().to_pydict()
    dice = np.random.default_rng(0)
    files = [p for p in sorted(Path(index.path).rglob("*")) if p.is_file() and p.stat().st_size]
    found = 0
    for attempt in range(60):
        file = files[attempt % len(files)]
        raw = file.read_bytes()
        at = int(dice.integers(len(raw)))
        file.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << int(dice.integers(8)))]) + raw[at + 1 :])
        faults = check_index(index.path)
        found += bool(faults)
        assert faults or open_index(index.path).dataset.to_table().to_pydict() == whole, f"{file}, byte {at}"
        file.write_bytes(raw)
    assert found > 5
    assert check_index(index.path) == []


def test_vectors_another_model_would_give_are_found_by_reading_again(index: Index) -> None:
    rows, own = index.fetch(["row-9"]), index.take([9])
    assert recompute(fake_session(index), 30) == []
    values = {name: -vector_array(own.column(name)) for name in index.vectors}
    delete_rows(index, ids=["row-9"])
    append(index, [as_tokens(rows[0], own.column("digest")[0].as_py(), tokens=20)], values)
    upkeep.seal(index)
    assert check_index(index.path) == []
    found = recompute(fake_session(index), 30)
    assert {(fault.kind, fault.where) for fault in found} == {("recomputed", "row 'row-9'")}
    assert len(found) == 2


def test_reading_again_needs_text(tmp_path: Path) -> None:
    bare = fake_build(tmp_path / "bare.lance", records(3), keep_text=False)
    with pytest.raises(StoreError, match="without text"):
        recompute(fake_session(bare), 3)
