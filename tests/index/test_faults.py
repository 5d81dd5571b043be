"""Damage, kills in the middle, bad files, and conditions that miss rows: what an index does about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.core.errors import DataError, HeadwaterError, NumericError, StoreError
from headwater.engines.local import Local
from headwater.index import upkeep
from headwater.index.checks import check_index, require_all_intact, require_intact
from headwater.index.failures import storing
from headwater.index.info import unfinished
from headwater.index.store import open_index
from headwater.index.upkeep import compact, delete_rows, unseen_rows
from headwater.indexing.maintain import add
from headwater.search.scan import score_all, top_k
from headwater.tracing.queries import ask
from oracles.fake_method import corpus_of, fake_build, fake_session, records


@pytest.fixture
def index(tmp_path: Path):
    return fake_build(tmp_path / "a.lance", records(40))


def damage(index, value: bytes) -> None:
    """Overwrite the stored vectors of some row in the middle of the data file."""
    (file,) = Path(index.path, "data").glob("*.lance")
    raw = bytearray(file.read_bytes())
    vector = index.dataset.to_table(columns=["vector"])["vector"][7].values.to_numpy().tobytes()
    at = raw.find(vector)
    assert at > 0
    raw[at : at + len(value)] = value
    file.write_bytes(raw)


def test_a_score_that_is_not_finite_stops_the_search_and_names_the_row(index):
    session = fake_session(index)
    asked = ask(session, session.index.rows([0]))
    damage(index, b"\xff\x7e" * 4)  # NaN in half precision
    again = open_index(index.path)
    for search in (lambda: top_k(again, asked.probes, 5), lambda: score_all(again, asked.probes)):
        with pytest.raises(NumericError, match="row-7"):
            search()


def test_a_row_that_was_changed_on_disk_is_not_shown(index):
    addresses = next(index.batches(["id"])).column("_rowaddr").to_pylist()
    require_intact(index, addresses)
    assert require_all_intact(index) == index.count
    damage(index, b"\x00\x3c")  # a finite number
    with pytest.raises(StoreError, match="row-7"):
        require_intact(open_index(index.path), addresses)
    with pytest.raises(StoreError, match="row-7"):
        require_all_intact(open_index(index.path))


def test_a_refused_addition_leaves_the_index_complete(index):
    bad = [{"id": "row-3", "prompt": "something else?", "response": "of the same id"}]
    for _ in range(2):
        with pytest.raises(DataError, match="row-3"):
            add(fake_session(index), corpus_of(bad))
        assert index.manifest.complete
        assert check_index(index.path) == []
    assert delete_rows(index, where="source = 'wiki'") == 14


def test_a_takedown_does_not_wait_for_an_addition(index, monkeypatch):
    more = records(80)

    def stop(done: int, total: int | None, tokens: int) -> None:
        if done >= 60:
            raise InterruptedError

    monkeypatch.setattr(index.manifest.plan.__class__, "block_rows", 16, raising=False)
    index.manifest.plan.__dict__["block_rows"] = 16
    with pytest.raises(InterruptedError):
        add(fake_session(index), corpus_of(more), on_progress=stop, engine=Local(ahead=0))
    assert index.manifest.status == "adding"
    count = index.count
    assert delete_rows(index, ids=["row-3"]) == 1
    assert (index.count, index.manifest.status) == (count - 1, "adding")


def test_a_compaction_killed_before_the_cleaning_says_so_until_it_is_finished(index, monkeypatch):
    delete_rows(index, where="source = 'wiki'")
    real = upkeep._compact

    def killed(index) -> None:
        index.dataset.optimize.compact_files(materialize_deletions=True, materialize_deletions_threshold=0.0)
        index.refresh()
        raise KeyboardInterrupt

    monkeypatch.setattr(upkeep, "_compact", killed)
    with pytest.raises(KeyboardInterrupt):
        compact(index)
    again = open_index(index.path)
    assert "compaction was interrupted" in (unfinished(again) or "")
    assert [fault.kind for fault in check_index(index.path)] == ["unfinished"]
    monkeypatch.setattr(upkeep, "_compact", real)
    compact(again)
    assert unfinished(open_index(index.path)) is None
    assert check_index(index.path) == []


def test_rows_that_a_condition_cannot_see_are_counted(tmp_path):
    rows = records(12)
    for i, row in enumerate(rows):
        row["batch"] = i % 3 if i < 8 else str(i % 3)
    index = fake_build(tmp_path / "b.lance", rows[:8])
    add(fake_session(index), corpus_of(rows))
    assert unseen_rows(index, "batch = 1") == {"batch": 4}
    assert unseen_rows(index, "source = 'batch'") == {}


def test_text_behind_a_conditions_end_is_refused(index):
    for condition in ("source = 'wiki'; DROP", "source = 'wiki';"):
        with pytest.raises(HeadwaterError, match="text after ';'"):
            delete_rows(index, where=condition)
        with pytest.raises(HeadwaterError, match="text after ';'"):
            list(index.batches(["id"], where=condition))
    assert delete_rows(index, where="source = 'a;b'") == 0
    assert index.count == 40


def test_a_lost_object_store_is_named_with_the_way_on() -> None:
    said = "LanceError(IO): Generic S3 error: Error performing PUT http://a/b in 1ms, after 3 retries - HTTP error: "
    named = r"s3://a/b: the object store does not answer \(.*go on with --resume\)"
    with pytest.raises(StoreError, match=named), storing("s3://a/b"):
        raise OSError(f"{said}error sending request, /home/rust/object_store.rs:1576:42")
