"""Laws of shards: any number of them, in any order, gives the index of one build; what is missing is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from headwater.core.errors import MismatchError, NumericError, StoreError, UsageError
from headwater.data.corpus import open_corpus
from headwater.index import receipts
from headwater.index.checks import check_index
from headwater.index.store import Index, open_index
from headwater.index.upkeep import compact, sweep
from headwater.indexing import shards
from headwater.indexing.shards import Shard, build_shard, commit_shards, parse_shard
from oracles.fake_method import fake_bound, fake_build, fake_method, records

ROWS, SIZE = 45, 4
"""12 blocks, the last of them with one row."""


def computed(out: Path, number: int, of: int = 3, rows: int = ROWS, **how: Any) -> Index:
    bound = fake_bound(how.pop("method", None), tokens_per_batch=how.pop("tokens_per_batch", 256))
    return build_shard(out, open_corpus(records(rows)), bound, Shard(number, of), block_rows=SIZE, **how)


def test_shards_in_any_order_are_one_build(tmp_path: Path) -> None:
    clean = fake_build(tmp_path / "clean.lance", records(ROWS), block_rows=SIZE)
    for of in (1, 3, 20):
        for number in sorted(range(1, of + 1), key=lambda n: n * 7 % 5):
            made = computed(tmp_path / f"{of}.lance", number, of)
            assert (made.count, made.manifest.complete) == (0, False)
        index = commit_shards(made)
        assert index.dataset.to_table() == clean.dataset.to_table()
        assert index.manifest.to_json() | {"created": ""} == clean.manifest.to_json() | {"created": ""}
        assert check_index(index.path) == []
        assert not Path(receipts.place_of(index.path)).exists()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    out = tmp_path / "a.lance"
    index = computed(out, 2)
    with pytest.raises(StoreError, match=r"2 of 3 shards are not there: 1/3 \(missing\), 3/3 \(missing\).*--shard 1/3"):
        commit_shards(index)
    with pytest.raises(NumericError):
        computed(out, 3, method=fake_method(poisoned=("row-20",)))  # its second block
    with pytest.raises(StoreError, match=r"1/3 \(missing\), 3/3 \(unfinished\)"):
        commit_shards(open_index(out))
    assert open_index(out).count == 0


def test_a_shard_that_was_stopped_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "a.lance"
    with pytest.raises(NumericError):
        computed(out, 3, method=fake_method(poisoned=("row-32",)))
    with pytest.raises(StoreError, match=r"shard 3/3 was begun already and has 2 blocks \(go on with --resume"):
        computed(out, 3)
    told: list[int] = []
    for number in (3, 1, 2):
        computed(out, number, resume=True, on_progress=lambda done, total, tokens: told.append(done))
    index = commit_shards(open_index(out))
    assert (
        index.dataset.to_table() == fake_build(tmp_path / "b.lance", records(ROWS), block_rows=SIZE).dataset.to_table()
    )
    assert told[:1] == [SIZE]


def test_a_shard_is_not_computed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.lance"
    computed(out, 1)
    for resume in (False, True):
        with pytest.raises(StoreError, match=r"shard 1/3 was computed already .*index commit"):
            computed(out, 1, resume=resume)
    monkeypatch.setattr(shards, "_begun", lambda *given, **how: set())  # as if both had looked at the same time
    with pytest.raises(StoreError, match="another process computes shard 1/3 at the same time"):
        computed(out, 1)


def test_shards_of_two_plans_datas_numbers_or_versions_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.lance"
    computed(out, 1)
    with pytest.raises(MismatchError, match="begun with other settings"):
        computed(out, 2, tokens_per_batch=128)
    with pytest.raises(MismatchError, match=r"built in 3 shards, not in 4.*--shard 2/3"):
        computed(out, 2, of=4)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "versions", lambda: {"headwater": "9.9"})
        with pytest.raises(MismatchError, match=r"begun with headwater .*, this is 9\.9"):
            computed(out, 2)
    computed(out, 2)
    computed(out, 3, rows=ROWS - 1)
    with pytest.raises(MismatchError, match=r"shard 3 read other data than shard 1: 44 rows, and 45"):
        commit_shards(open_index(out))


def test_notes_that_do_not_belong_are_refused_at_the_commit(tmp_path: Path) -> None:
    out = tmp_path / "a.lance"
    index = [computed(out, number) for number in (1, 2, 3)][-1]
    notes = receipts.read_notes(index.path)
    for change, message in (({"library": "0.0.1"}, "headwater 0.0.1"), ({"plan": "00"}, "another plan")):
        receipts.drop_notes(index.path)
        receipts.append_notes(index.path, [*notes[:-1], dataclasses.replace(notes[-1], **change)])
        with pytest.raises(MismatchError, match=message):
            commit_shards(index)
    wrong = {**notes[0].body, "written": {**notes[0].body["written"], "checksum": "00"}}
    receipts.drop_notes(index.path)
    receipts.append_notes(index.path, [dataclasses.replace(notes[0], body=wrong), *notes[1:]])
    with pytest.raises(StoreError, match="block 0 is not what its shard computed"):
        commit_shards(index)


def test_a_commit_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.lance"
    index = [computed(out, number) for number in (1, 2, 3)][-1]
    clean = fake_build(tmp_path / "b.lance", records(ROWS), block_rows=SIZE)
    monkeypatch.setattr(shards, "_AT_ONCE", 5)
    for name in ("_require_as_computed", "drop_notes"):
        with monkeypatch.context() as patch:
            patch.setattr(shards, name, lambda *given: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                commit_shards(open_index(out))
    assert commit_shards(open_index(out)).dataset.to_table() == clean.dataset.to_table()
    assert not Path(receipts.place_of(index.path)).exists()
    with pytest.raises(StoreError, match="there are no shards to commit"):
        commit_shards(open_index(out))


def test_files_of_shards_are_not_swept_before_they_are_committed(tmp_path: Path) -> None:
    out = tmp_path / "a.lance"
    index = computed(out, 1)
    for call in (sweep, compact):
        with pytest.raises(StoreError, match=r"shards of this index wait to be committed .*index commit"):
            call(open_index(out))
    with pytest.raises(StoreError, match="wait to be committed"):
        fake_build(out, records(ROWS), block_rows=SIZE, resume=True)
    assert len(list((out / "data").iterdir())) == 4
    assert index.count == 0


@pytest.mark.parametrize("text", ["", "3", "a/b", "3/", "/3", "1.5/3", "1/0"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"(is no shard|are none).*3/16"):
        parse_shard(text)


@pytest.mark.parametrize("text", ["0/3", "4/3", "-1/3"])
def test_a_number_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="there is no shard"):
        parse_shard(text)
    assert parse_shard("3/3") == Shard(3, 3)
    with pytest.raises(UsageError, match="leave the limits out"):
        parse_shard("3/3", limited=True)
