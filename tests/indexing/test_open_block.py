"""Law: Ctrl-C in the middle of a block keeps the rows that were read, and going on ends with the bits of no Ctrl-C.

The fake method's vectors depend on the batch that a row is in, so rows that were read in other batches are noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.engines.local import Local
from headwater.index.checks import check_index
from headwater.index.store import Index, open_index
from headwater.index.upkeep import compact
from headwater.indexing import maintain
from headwater.indexing.maintain import add, delete
from oracles import fake_method as fakes
from oracles.fake_method import FakeEncoder, corpus_of, fake_build, fake_method, fake_session, records

ROWS, MORE = records(70), records(40, 100)
HOW: dict[str, Any] = {"block_rows": 16}


class Stopper(FakeEncoder):
    """Presses Ctrl-C before its batch number `at`."""

    left = 10**9

    def encode(self, *args: Any) -> Any:
        Stopper.left -= 1
        if Stopper.left < 0:
            raise KeyboardInterrupt
        return super().encode(*args)


@pytest.fixture(autouse=True)
def stopping(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fakes, "FakeEncoder", Stopper)
    yield
    Stopper.left = 10**9


def contents(index: Index) -> dict[str, Any]:
    return index.dataset.to_table(sorted(index.dataset.schema.names)).to_pydict()


def interrupted(work: Any, after: int) -> None:
    Stopper.left = after
    with pytest.raises(KeyboardInterrupt):
        work()
    Stopper.left = 10**9


@pytest.mark.parametrize("after", [1, 6])
@pytest.mark.parametrize("engine", [Local(0), Local(2)])
def test_an_interrupted_build_keeps_rows_and_goes_on_to_the_same_bits(
    tmp_path: Path, after: int, engine: Local
) -> None:
    clean = fake_build(tmp_path / "clean.lance", ROWS, **HOW)
    out = tmp_path / "a.lance"
    interrupted(lambda: fake_build(out, ROWS, engine=engine, **HOW), after)
    kept = open_index(out)
    assert 0 < kept.count < len(ROWS)
    assert kept.count % 16
    assert [fault.kind for fault in check_index(str(out))] == ["unfinished"]
    interrupted(lambda: fake_build(out, ROWS, engine=engine, resume=True, **HOW), 1)  # and once more
    more = open_index(out).count
    assert more > kept.count
    done = fake_build(out, ROWS, engine=engine, resume=True, **HOW)
    assert contents(done) == contents(clean)
    assert done.manifest.to_json() | {"created": ""} == clean.manifest.to_json() | {"created": ""}
    assert check_index(str(out)) == []


@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupted_addition_does_so_too(tmp_path: Path, after: int) -> None:
    for name in ("clean", "a"):
        fake_build(tmp_path / f"{name}.lance", ROWS, **HOW)
    clean, index = (open_index(tmp_path / f"{name}.lance") for name in ("clean", "a"))
    mixed = [*ROWS[:5], *MORE]  # some are there already
    add(fake_session(clean), corpus_of(mixed))
    interrupted(lambda: add(fake_session(index), corpus_of(mixed)), after)
    there = open_index(index.path).count
    assert there > len(ROWS)
    told = add(fake_session(open_index(index.path)), corpus_of(mixed))
    assert (told.rows, told.duplicates) == (len(ROWS) + len(MORE) - there, 5 + there - len(ROWS))
    assert contents(open_index(index.path)) == contents(open_index(clean.path))
    assert check_index(index.path) == []


def test_rows_of_an_open_block_may_be_deleted_compacted_and_added_to(tmp_path: Path) -> None:
    index = fake_build(tmp_path / "a.lance", ROWS, **HOW)
    interrupted(lambda: add(fake_session(index), corpus_of(MORE)), 1)
    first = next(name for name in open_index(index.path).ids() if name not in {row["id"] for row in ROWS})
    delete(open_index(index.path), ids=[first])
    compact(open_index(index.path))
    assert open_index(index.path).count == len(ROWS)  # the other rows of the open block are read again
    add(fake_session(open_index(index.path)), corpus_of(MORE))
    assert sorted(open_index(index.path).ids()) == sorted(row["id"] for row in [*ROWS, *MORE])
    assert check_index(index.path) == []


def test_other_data_may_be_added_to_an_open_block(tmp_path: Path) -> None:
    index = fake_build(tmp_path / "a.lance", ROWS, **HOW)
    interrupted(lambda: add(fake_session(index), corpus_of(MORE)), 1)
    there = open_index(index.path).ids()[len(ROWS) :]
    shuffled = [*records(30, 200), *(row for row in MORE if row["id"] in there[:1]), *records(30, 300)]
    add(fake_session(open_index(index.path)), corpus_of(shuffled))
    ids = open_index(index.path).ids()
    assert len(ids) == len(set(ids)) == len(ROWS) + len(there) + 60
    assert check_index(index.path) == []


def test_a_resumed_build_notices_that_an_open_row_has_changed(tmp_path: Path) -> None:
    out = tmp_path / "a.lance"
    interrupted(lambda: fake_build(out, ROWS, **HOW), 1)
    there = open_index(out).ids()
    changed = [{**row, "response": "other"} if row["id"] == there[0] else row for row in ROWS]
    with pytest.raises(maintain.DataError, match="the data has changed"):
        fake_build(out, changed, resume=True, **HOW)


def test_nothing_is_left_of_a_build_that_read_nothing(tmp_path: Path) -> None:
    interrupted(lambda: fake_build(tmp_path / "a.lance", ROWS, fake_method(), **HOW), 0)
    assert not (tmp_path / "a.lance").exists()
