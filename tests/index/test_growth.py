"""Columns come from all rows, and additions bring new ones: no value is out of a condition's sight for coming late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headwater.core.errors import DataError, StoreError
from headwater.data.rows import Row
from headwater.index import growth
from headwater.index.checks import check_index
from headwater.index.store import Index, open_index
from headwater.index.upkeep import compact, delete_rows, kept_aside, unseen_rows
from headwater.indexing import blocks
from headwater.indexing.maintain import add
from oracles.fake_method import corpus_of, fake_build, fake_session, records


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_FEWEST_ROWS", 4)
    monkeypatch.setattr(blocks, "_MOST_ROWS", 4)


def rows_of(index: Index) -> dict[str, Row]:
    return {row.id: row for row in index.fetch(sorted(index.ids()))}


def late(count: int = 12) -> list[dict[str, Any]]:
    """Rows whose metadata changes after the first block: a number gets fractions, and a name appears."""
    rows = records(count)
    for i, row in enumerate(rows):
        row["batch"] = i % 3 if i < 8 else i % 3 + 0.5
        if i >= 8:
            row["fresh"] = f"new {i}"
    return rows


def test_a_build_takes_its_columns_from_all_rows(tmp_path: Path) -> None:
    index = fake_build(tmp_path / "a.lance", late())
    assert kept_aside(index) == {}
    assert index.count_where("batch > 0") == sum(row["batch"] > 0 for row in late())
    assert index.count_where("fresh LIKE 'new%'") == 4
    assert rows_of(index)["row-9"].metadata["fresh"] == "new 9"


def test_a_column_has_the_type_of_most_of_all_rows(tmp_path: Path) -> None:
    rows = records(12)
    for i, row in enumerate(rows):
        row["batch"] = 1 if i < 4 else "1"
    index = fake_build(tmp_path / "a.lance", rows)
    assert index.count_where("batch = '1'") == 8
    assert unseen_rows(index, "batch = '1'") == {"batch": 4}
    with pytest.raises(StoreError, match="the column holds text: write '1' in place of 1"):
        index.count_where("batch = 1")
    assert index.count_where("""batch = '1' OR extra LIKE '%"batch":1%'""") == 12


@pytest.mark.parametrize("first", [slice(0, 8), slice(8, 12)])
def test_a_build_and_an_addition_are_one_build_of_both(tmp_path: Path, first: slice) -> None:
    rows = late()
    begun = rows[first]
    rest = [row for row in rows if row not in begun]
    index = fake_build(tmp_path / "a.lance", begun)
    assert add(fake_session(index), corpus_of(rest)).aside == {}
    grown, whole = open_index(index.path), fake_build(tmp_path / "b.lance", rows)
    assert check_index(grown.path) == []
    assert {k: (v.fields(), v.metadata) for k, v in rows_of(grown).items()} == {
        k: (v.fields(), v.metadata) for k, v in rows_of(whole).items()
    }
    for condition in ("batch > 1", "fresh IS NOT NULL", "batch = 2"):
        assert grown.count_where(condition) == whole.count_where(condition) > 0
    assert delete_rows(grown, where="fresh = 'new 9'") == 1
    compact(grown)
    assert check_index(grown.path) == []


def test_a_widening_that_is_killed_is_sound_and_the_addition_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = late()
    for stage in ("drop_columns", "alter_columns"):
        index = fake_build(tmp_path / f"{stage}.lance", rows[:8])

        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(index.dataset.__class__, stage, killed)
            with pytest.raises(KeyboardInterrupt):
                add(fake_session(index), corpus_of(rows))
        assert check_index(index.path) == []
        assert add(fake_session(open_index(index.path)), corpus_of(rows)).rows == 4
        again = open_index(index.path)
        assert check_index(again.path) == []
        assert again.count_where("batch > 1") == sum(row["batch"] > 1 for row in rows)
        assert not [name for name in again.dataset.schema.names if name.endswith(growth.COPY)]


def test_whole_numbers_that_numbers_cannot_hold_stay_as_they_are(tmp_path: Path) -> None:
    rows = [{**row, "serial": 2**53 + 1} for row in records(4)]
    index = fake_build(tmp_path / "a.lance", rows)
    add(fake_session(index), corpus_of([{**row, "serial": 0.5} for row in records(2, 4)]))
    assert rows_of(open_index(index.path))["row-0"].metadata["serial"] == 2**53 + 1
    assert unseen_rows(open_index(index.path), "serial > 0") == {"serial": 2}


def test_a_new_id_is_a_new_row_though_its_text_is_known(tmp_path: Path) -> None:
    index = fake_build(tmp_path / "a.lance", records(6))
    other = [{**row, "id": f"theirs-{i}", "source": "vendor"} for i, row in enumerate(records(6))]
    for expected in (6, 0):
        done = add(fake_session(open_index(index.path)), corpus_of([*records(6), *other]))
        assert (done.rows, done.duplicates) == (expected, 12 - expected)
    assert open_index(index.path).count_where("source = 'vendor'") == 6
    with pytest.raises(DataError, match="another row with the id 'row-0'"):
        add(fake_session(open_index(index.path)), corpus_of([{"id": "row-0", "prompt": "else?", "response": "else"}]))
    assert check_index(index.path) == []


def test_a_name_with_a_dot_is_a_column_that_conditions_name_as_the_data_does(tmp_path: Path) -> None:
    rows = [{**row, "meta.lang": ["en", "de"][i % 2], "a.b.c": i, "a․b": "dots"} for i, row in enumerate(records(10))]
    index = fake_build(tmp_path / "a.lance", rows)
    assert kept_aside(index) == {}
    assert {row.metadata["meta.lang"] for row in rows_of(index).values()} == {"en", "de"}
    assert rows_of(index)["row-3"].metadata["a.b.c"] == 3
    assert rows_of(index)["row-3"].metadata["a․b"] == "dots"
    for condition in ("meta.lang = 'en' AND a.b.c >= 4", "`meta.lang` = 'en' AND `a.b.c` >= 4"):
        assert index.count_where(condition) == 3
    assert index.count_where("source = 'meta.lang'") == 0
    assert delete_rows(index, where="meta.lang = 'de'") == 5
