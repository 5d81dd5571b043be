"""Laws of streaming input: rows are drawn as they are needed, whatever they come from, and end as the same index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from headwater.data.corpus import open_corpus
from headwater.engines.local import Local
from headwater.index.store import open_index
from headwater.indexing import blocks
from headwater.indexing import build as building
from headwater.indexing.maintain import add
from oracles.fake_method import fake_bound, fake_build, fake_session, records

ROWS, BLOCK = 40, 8


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_FEWEST_ROWS", BLOCK)
    monkeypatch.setattr(blocks, "_MOST_ROWS", BLOCK)


def plain(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{name: row[name] for name in ("id", "prompt", "response", "year")} for row in records(count, start)]


def build(out: Path, source: Any, **options: Any) -> Any:
    return building.build(out, open_corpus(source), fake_bound(), **options)


def test_a_streaming_data_set_becomes_the_index_of_its_rows(tmp_path: Path) -> None:
    stream = datasets.IterableDataset.from_generator(lambda: iter(plain(ROWS)))
    assert open_corpus(stream).count is None
    index = build(tmp_path / "a.lance", stream)
    assert index.dataset.to_table() == fake_build(tmp_path / "b.lance", plain(ROWS)).dataset.to_table()
    grown = datasets.IterableDataset.from_generator(lambda: iter(plain(ROWS + 5)))
    assert add(fake_session(index), open_corpus(grown)).rows == 5


def test_rows_are_drawn_a_block_at_a_time(tmp_path: Path) -> None:
    drawn = 0

    class Endless:
        """Rows without end; who reads ahead never comes back."""

        def __iter__(self) -> Iterator[dict[str, Any]]:
            nonlocal drawn
            drawn = 0
            while True:
                yield plain(1, drawn)[0]
                drawn += 1

    class EnoughError(Exception):
        pass

    def stop(done: int, total: int | None, tokens: int) -> None:
        assert total is None
        assert drawn < done + BLOCK
        if done >= 5 * BLOCK:
            raise EnoughError

    with pytest.raises(EnoughError):
        build(tmp_path / "a.lance", Endless(), on_progress=stop, engine=Local(ahead=0))
    assert open_index(tmp_path / "a.lance").count == 5 * BLOCK


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_file_is_read_as_a_stream(tmp_path: Path, kind: str) -> None:
    data = datasets.Dataset.from_list(plain(ROWS))
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in plain(ROWS)))
    else:
        getattr(data, f"to_{kind}")(str(path))
    index = build(tmp_path / "a.lance", path)
    assert index.ids() == [f"row-{i}" for i in range(ROWS)]
    assert index.digests() == fake_build(tmp_path / "b.lance", plain(ROWS)).digests()
