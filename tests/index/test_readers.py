"""A reader whose version is removed, and an index whose newest versions are lost, are told so in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from headwater.core.errors import StoreError
from headwater.index.checks import check_index
from headwater.index.info import describe, warning_of
from headwater.index.store import open_index
from headwater.index.upkeep import compact, delete_rows
from headwater.search.scan import top_k
from headwater.tracing.queries import ask
from oracles.fake_method import fake_build, fake_session, records


def test_a_reader_is_told_that_the_index_was_compacted(tmp_path: Path) -> None:
    index = fake_build(tmp_path / "a.lance", records(40))
    reader = open_index(index.path)
    probes = ask(fake_session(index), index.rows(next(index.batches(["id"]))["_rowaddr"].to_pylist()[:1])).probes
    delete_rows(index, where="source = 'wiki'")
    compact(index)
    for read in (lambda: top_k(reader, probes, 3), lambda: reader.take([0]), lambda: reader.fetch(["row-1"])):
        with pytest.raises(StoreError, match=r"compacted while it was being read \(run the same command again\)"):
            read()
    reader.refresh()  # what running the command again does
    assert len(top_k(reader, probes, 3)[0]) == 3


def test_a_file_that_is_lost_is_damage_and_no_compaction(tmp_path: Path) -> None:
    index = fake_build(tmp_path / "a.lance", records(40))
    next(Path(index.path, "data").iterdir()).unlink()
    with pytest.raises(StoreError, match="headwater index verify"):
        open_index(index.path).take([0])


def test_the_loss_of_the_newest_versions_shows(tmp_path: Path) -> None:
    index = fake_build(tmp_path / "a.lance", records(40))
    before = {path.name for path in Path(index.path, "_versions").iterdir()}
    delete_rows(index, where="source = 'wiki'")
    assert warning_of(open_index(index.path)) is None
    for path in Path(index.path, "_versions").iterdir():
        if path.name not in before:
            path.unlink()
    old = open_index(index.path)
    assert old.count == 40, "the deleted rows are back, and nothing in the dataset says so"
    assert "was rolled back" in (describe(old)["warning"] or "")
    assert [fault.kind for fault in check_index(index.path)] == ["tally"]
    delete_rows(old, where="source = 'wiki'")  # the changes are made again
    assert warning_of(open_index(index.path)) is None
    assert check_index(index.path) == []


def test_an_index_without_a_note_of_its_version_is_as_before(tmp_path: Path) -> None:
    index = fake_build(tmp_path / "a.lance", records(8))
    shutil.copytree(index.path, tmp_path / "b.lance")
    (tmp_path / "b.lance" / ".newest.json").unlink()
    assert check_index(str(tmp_path / "b.lance")) == []
    (tmp_path / "b.lance" / ".newest.json").write_text("[]")
    assert warning_of(open_index(tmp_path / "b.lance")) is None
