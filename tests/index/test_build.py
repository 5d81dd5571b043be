"""What a build promises: the corpus's rows in order, the same bits every time, and plain words when it cannot."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import lance.fragment
import numpy as np
import pytest

from headwater.core.errors import DataError, MismatchError, NumericError, StoreError
from headwater.core.spec import Column
from headwater.data.tokens import Tokenization
from headwater.engines.local import Local
from headwater.index.checks import check_index
from headwater.index.store import Index, open_index
from headwater.index.upkeep import compact, delete_rows
from headwater.indexing import blocks
from headwater.indexing.blocks import rows_per_block
from oracles.fake_method import DIM, FakeEncoder, fake_build, fake_loaded, fake_method, records, token_vector

SERIAL = Local(ahead=0)
"""Commits each block before it reads the next."""

ROWS = 30


@pytest.fixture(autouse=True)
def blocks_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_FEWEST_ROWS", 4)
    monkeypatch.setattr(blocks, "_MOST_ROWS", 4)


class StopError(Exception):
    pass


def stop_after(rows: int) -> Any:
    def progress(done: int, total: int | None, tokens: int) -> None:
        if done >= rows:
            raise StopError

    return progress


def interrupted(path: Path, after: int = 12, **options: Any) -> None:
    with pytest.raises(StopError):
        fake_build(path, records(ROWS), on_progress=stop_after(after), engine=SERIAL, **options)


def vectors_of(index: Index, name: str = "vector") -> np.ndarray:
    return np.array(index.dataset.to_table([name]).column(name).to_pylist())


def test_rows_come_in_order_with_their_own_vectors(tmp_path: Path) -> None:
    index = fake_build(tmp_path / "a.lance", records(ROWS))
    assert index.ids() == [f"row-{i}" for i in range(ROWS)]
    assert index.manifest.complete
    tokenization = Tokenization.of(fake_loaded().tokenizer)
    found = vectors_of(index)
    for i, row in enumerate(index.fetch(index.ids())):
        (tokens,) = tokenization.encode([row])
        own = token_vector(tokens.ids, Column("vector", DIM))
        assert own @ found[i] > 0.99999 * np.linalg.norm(own) * np.linalg.norm(found[i])
        expected = {k: v for k, v in records(1, i)[0].items() if k not in ("id", "prompt", "response")}
        assert row.metadata == expected
    assert index.dataset.to_table(["year"], filter="loss_ = 'theirs' AND clean").num_rows == ROWS // 2


def test_progress_counts_rows_and_tokens(tmp_path: Path) -> None:
    told: list[tuple[int, int | None, int]] = []
    index = fake_build(tmp_path / "a.lance", records(10), on_progress=lambda *now: told.append(now), engine=SERIAL)
    tokens = sum(index.dataset.to_table(["tokens"]).column("tokens").to_pylist())
    assert [done for done, _, _ in told] == [4, 8, 10]
    assert told[-1] == (10, 10, tokens)


def test_progress_is_told_within_a_block_and_commits_are_not_told_early(tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []

    def watch(done: int, total: int | None, tokens: int) -> None:
        told.append((done, tokens, open_index(tmp_path / "a.lance").count))

    index = fake_build(tmp_path / "a.lance", records(10), on_progress=watch, tokens_per_batch=1, engine=SERIAL)
    tokens = index.dataset.to_table(["tokens"]).column("tokens").to_pylist()
    assert [done for done, _, _ in told] == list(range(1, 11))
    assert [committed for _, _, committed in told] == [0, 0, 0, 4, 4, 4, 4, 8, 8, 10]
    for done, read, committed in told:
        if done == committed:
            assert read == sum(tokens[:done])
    assert [read for _, read, _ in told] == sorted(read for _, read, _ in told)


def test_an_interrupted_build_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    clean = fake_build(tmp_path / "clean.lance", records(ROWS))
    interrupted(tmp_path / "a.lance")
    assert open_index(tmp_path / "a.lance").count == 12
    index = fake_build(tmp_path / "a.lance", records(ROWS), resume=True)
    assert index.dataset.to_table() == clean.dataset.to_table()
    again = fake_build(tmp_path / "a.lance", records(ROWS), resume=True)
    assert again.dataset.version == index.dataset.version


def test_resume_sweeps_up_what_a_killed_writer_left(tmp_path: Path) -> None:
    interrupted(tmp_path / "a.lance")
    index = open_index(tmp_path / "a.lance")
    versions = len(index.dataset.versions())
    lance.fragment.write_fragments(index.dataset.to_table(), index.dataset)
    data = tmp_path / "a.lance" / "data"
    assert len(list(data.iterdir())) == 4
    index = fake_build(tmp_path / "a.lance", records(12), resume=True)
    assert len(list(data.iterdir())) == 3
    assert len(index.dataset.versions()) == versions + 1


def test_resume_without_an_index_begins_one(tmp_path: Path) -> None:
    assert fake_build(tmp_path / "a.lance", records(5), resume=True).count == 5


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"loaded": fake_loaded(weights="w1")}, "model.fingerprint.weights"),
        ({"tokens_per_batch": 512}, "plan.tokens_per_batch"),
        ({"max_tokens": 99}, "tokenization.max_tokens"),
        ({"template": "{prompt} -> {response}"}, "tokenization.template"),
        ({"keep_text": False}, "keeps_text"),
        ({"method": fake_method(columns=(Column("vector", 8),))}, "columns"),
    ],
)
def test_resume_refuses_other_settings_by_name(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    interrupted(tmp_path / "a.lance")
    with pytest.raises(MismatchError) as caught:
        fake_build(tmp_path / "a.lance", records(ROWS), resume=True, **changes)
    assert any(name.startswith(field) for name in caught.value.fields)
    assert open_index(tmp_path / "a.lance").count == 12


def test_resume_refuses_changed_shortened_and_lengthened_data(tmp_path: Path) -> None:
    interrupted(tmp_path / "a.lance")
    changed = records(ROWS)
    changed[6]["response"] += "!"
    with pytest.raises(DataError, match=r"memory:7: row 'row-6' is not the row"):
        fake_build(tmp_path / "a.lance", changed, resume=True)
    with pytest.raises(DataError, match="the index has 12 rows, the data only 8"):
        fake_build(tmp_path / "a.lance", records(8), resume=True)
    fake_build(tmp_path / "a.lance", records(ROWS), resume=True)
    with pytest.raises(StoreError, match="index add"):
        fake_build(tmp_path / "a.lance", records(ROWS + 1), resume=True)


def test_an_existing_index_is_not_built_over(tmp_path: Path) -> None:
    fake_build(tmp_path / "a.lance", records(5))
    with pytest.raises(StoreError, match="--resume"):
        fake_build(tmp_path / "a.lance", records(5))


@pytest.mark.parametrize(
    ("row_id", "what"), [("nan-row", "not finite"), ("big-row", r"reaches 1e\+06, too large for float16")]
)
def test_a_vector_that_is_not_finite_names_its_row(tmp_path: Path, row_id: str, what: str) -> None:
    rows = records(10)
    rows[6]["id"] = row_id
    with pytest.raises(NumericError, match=what) as caught:
        fake_build(tmp_path / "a.lance", rows, fake_method(poisoned=(row_id,)))
    assert row_id in str(caught.value)
    assert "memory:7" in str(caught.value)
    assert open_index(tmp_path / "a.lance").count == 4


def test_a_row_whose_response_is_cut_off_names_its_place(tmp_path: Path) -> None:
    rows = records(10)
    rows[5]["prompt"] = "long " * 100
    with pytest.raises(DataError, match="memory:6"):
        fake_build(tmp_path / "a.lance", rows, max_tokens=60)


def test_without_text_the_text_is_not_there(tmp_path: Path) -> None:
    index = fake_build(tmp_path / "a.lance", records(5), keep_text=False)
    assert not {"prompt", "response", "text"} & set(index.dataset.schema.names)
    assert index.dataset.schema.field("source")
    with pytest.raises(StoreError, match="built without text"):
        index.fetch(["row-1"])
    assert check_index(index.path) == []


def test_blocks_are_a_power_of_two_of_about_64_mebibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [rows_per_block(size) for size in (1, 8192, 16384, 100_000, 10**6)] == [8192, 8192, 4096, 512, 256]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_a_valid_index_to_go_on_with(tmp_path: Path, small_disk: Path) -> None:
    method = fake_method(columns=FakeEncoder((Column("vector", 2048), Column("wide", 4096, "float32"))).columns)
    rows = records(200)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 2_000_000)
    with pytest.raises(StoreError, match=r"disk is full.*--resume"):
        fake_build(small_disk / "a.lance", rows, method)
    index = open_index(small_disk / "a.lance")
    assert index.count % 4 == 0
    assert 0 < index.count < 200
    assert {fault.kind for fault in check_index(index.path)} == {"unfinished"}
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    index = fake_build(small_disk / "a.lance", rows, method, resume=True)
    clean = fake_build(tmp_path / "clean.lance", rows, method)
    assert index.dataset.to_table() == clean.dataset.to_table()
    assert check_index(index.path) == []


def test_a_build_refused_by_a_writer_leaves_the_writers_index_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another build makes the index between our look and our lock: it has no rows yet, and is not ours to discard."""
    path = tmp_path / "a.lance"
    interrupted(path, after=4)
    other = open_index(path)
    other.dataset.delete("true")
    answers = iter([False, True])
    monkeypatch.setattr(blocks, "exists", lambda path: next(answers))
    with other.writing(), pytest.raises(StoreError, match=r"another process|something is here"):
        fake_build(path, records(ROWS), resume=True)
    assert path.exists()


def test_a_first_block_that_fails_frees_the_name_and_a_later_one_keeps_what_is_there(tmp_path: Path) -> None:
    for row, left in ((1, False), (9, True)):
        rows, path = records(ROWS), tmp_path / f"{row}.lance"
        rows[row]["id"] = "nan-row"
        with pytest.raises(NumericError):
            fake_build(path, rows, fake_method(poisoned=("nan-row",)))
        assert path.exists() == left


def test_resume_of_a_finished_index_leaves_deleted_rows_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = fake_build(tmp_path / "a.lance", records(ROWS))
    delete_rows(index, ids=["row-0", "row-7", f"row-{ROWS - 1}"])
    for compacted in (False, True):
        if compacted:
            compact(open_index(index.path))
        again = fake_build(tmp_path / "a.lance", records(ROWS), resume=True)
        assert again.count == ROWS - 3
        assert "3 rows of the data were deleted" in caplog.text
    changed = records(ROWS)
    changed[4]["response"] += "!"
    with pytest.raises(DataError, match=r"memory:5: row 'row-4' is not the row"):
        fake_build(tmp_path / "a.lance", changed, resume=True)
    with pytest.raises(StoreError, match="index add"):
        fake_build(tmp_path / "a.lance", records(ROWS + 1), resume=True)
