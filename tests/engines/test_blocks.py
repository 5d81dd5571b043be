"""Laws of blocks: a receipt can travel, commits keep the order, and what is not committed was never there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.errors import NumericError
from headwater.data.corpus import open_corpus
from headwater.data.tokens import TokenRow
from headwater.engines.blocks import Block, Receipt, Work, WorkRecipe, cut, whole
from headwater.engines.local import Local
from headwater.index.rows import infer_schema
from headwater.index.store import Index, create_index, open_index
from headwater.index.upkeep import seal, sweep
from headwater.indexing import blocks as indexing
from headwater.indexing.blocks import IndexRows, Progress
from headwater.indexing.build import make_manifest
from oracles.fake_method import corpus_of, fake_bound, fake_build, fake_method, records

ROWS, SIZE = 14, 4
SERIAL = Local(ahead=0)


@pytest.fixture(autouse=True)
def blocks_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_FEWEST_ROWS", SIZE)
    monkeypatch.setattr(indexing, "_MOST_ROWS", SIZE)


def begun(path: Path) -> tuple[Index, list[Block[TokenRow]]]:
    """An empty index of the rows, and their blocks."""
    corpus, bound = corpus_of(records(ROWS)), fake_bound()
    manifest = make_manifest(corpus, bound)
    rows = list(open_corpus(records(ROWS)))
    index = create_index(path, manifest, infer_schema(rows[:SIZE], manifest.columns))
    return index, list(cut(bound.reader.tokenization.encode(rows), SIZE))


def travelled(receipt: Receipt) -> Receipt:
    """The receipt as it arrives from another machine."""
    return Receipt(**json.loads(json.dumps(asdict(receipt))))


def data_files(index: Index) -> set[str]:
    return (
        {path.name for path in (Path(index.path) / "data").iterdir()} if (Path(index.path) / "data").exists() else set()
    )


class Noted:
    """Work that only notes what is asked of it."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.done: list[str] = []
        self.committed: list[int] = []
        self.fails_at = fails_at

    def prepare(self, block: Block[int]) -> Block[int]:
        return block

    def compute(self, prepared: Block[int]) -> Block[int]:
        if prepared.number == self.fails_at:
            raise ArithmeticError
        self.done.append(f"compute {prepared.number}")
        return prepared

    def write(self, computed: Block[int]) -> Receipt:
        items = list(computed.items)
        return Receipt(computed.number, computed.start, len(items), sum(items), {"items": items})

    def commit(self, receipts: Sequence[Receipt]) -> None:
        self.done.extend(f"commit {receipt.block}" for receipt in receipts)
        self.committed.extend(item for receipt in receipts for item in receipt.written["items"])

    def recipe(self) -> WorkRecipe:
        raise AssertionError("this work stays here")


@given(st.lists(st.integers(), max_size=30), st.integers(1, 7))
def test_blocks_are_the_items_in_order(items: list[int], size: int) -> None:
    found = list(cut(iter(items), size))
    assert [item for block in found for item in block.items] == items
    assert [block.number for block in found] == list(range(len(found)))
    assert [block.start for block in found] == list(range(0, len(items), size))
    assert all(len(block.items) == size for block in found[:-1])
    assert all(block.items for block in found)


def test_each_block_is_committed_before_the_next_is_drawn_and_told_afterwards() -> None:
    work, told = Noted(), []
    assert isinstance(work, Work)

    def drawn():
        for block in cut(range(5), 2):
            work.done.append(f"draw {block.number}")
            yield block

    SERIAL.run(drawn(), work, lambda receipt: told.append((receipt.block, receipt.rows, work.done[-1])))
    assert work.done == [f"{what} {i}" for i in range(3) for what in ("draw", "compute", "commit")]
    assert told == [(0, 2, "commit 0"), (1, 2, "commit 1"), (2, 1, "commit 2")]
    assert work.committed == [0, 1, 2, 3, 4]


def test_a_block_that_fails_leaves_those_before_it_committed() -> None:
    work = Noted(fails_at=2)
    with pytest.raises(ArithmeticError):
        SERIAL.run(cut(range(10), 3), work)
    assert work.committed == [0, 1, 2, 3, 4, 5]


def test_receipts_that_travelled_as_json_give_the_index_of_a_build(tmp_path: Path) -> None:
    clean = fake_build(tmp_path / "clean.lance", records(ROWS))
    index, blocks = begun(tmp_path / "a.lance")
    work = IndexRows(index, fake_bound())
    receipts = [travelled(whole(work, block)) for block in reversed(blocks)][::-1]
    assert receipts == [travelled(receipt) for receipt in receipts]
    assert [(r.block, r.start, r.rows) for r in receipts] == [(0, 0, 4), (1, 4, 4), (2, 8, 4), (3, 12, 2)]
    assert sum(r.tokens for r in receipts) == sum(clean.dataset.to_table(["tokens"]).column("tokens").to_pylist())
    before = index.dataset.version
    work.commit(receipts[:3])
    assert index.dataset.version == before + 1, "several blocks are one version"
    work.commit(receipts[3:])
    seal(index)
    assert index.dataset.to_table() == clean.dataset.to_table()
    assert index.manifest.tally == clean.manifest.tally


def test_receipts_of_another_process_can_be_committed_by_a_handle_of_its_own(tmp_path: Path) -> None:
    """The computing side holds a handle on an older version; the committing side's is what grows."""
    index, blocks = begun(tmp_path / "a.lance")
    far, near = open_index(index.path), open_index(index.path)
    for block in blocks:
        IndexRows(near, fake_bound()).commit([travelled(whole(IndexRows(far, fake_bound()), block))])
    assert far.count == 0
    assert near.ids() == open_index(index.path).ids() == [f"row-{i}" for i in range(ROWS)]


def test_rows_stand_in_the_order_of_the_commits(tmp_path: Path) -> None:
    index, blocks = begun(tmp_path / "a.lance")
    work = IndexRows(index, fake_bound())
    receipts = [whole(work, block) for block in blocks]
    work.commit([receipts[1], receipts[0]])
    assert index.ids() == [f"row-{i}" for i in (4, 5, 6, 7, 0, 1, 2, 3)]


def test_what_is_computed_and_not_committed_was_never_there(tmp_path: Path) -> None:
    index, blocks = begun(tmp_path / "a.lance")
    work = IndexRows(index, fake_bound())
    work.commit([whole(work, blocks[0])])
    version, table, files = index.dataset.version, index.dataset.to_table(), data_files(index)
    whole(work, blocks[1])
    assert len(data_files(index)) == len(files) + 1
    there = open_index(index.path)
    assert (there.dataset.version, there.count) == (version, SIZE)
    assert there.dataset.to_table() == table
    sweep(there)
    assert data_files(index) == files
    assert open_index(index.path).dataset.to_table() == table


def test_a_block_computed_twice_is_the_same_block(tmp_path: Path) -> None:
    index, blocks = begun(tmp_path / "a.lance")
    work = IndexRows(index, fake_bound())
    once, again = whole(work, blocks[0]), whole(work, blocks[0])
    assert once.written != again.written
    assert (once.rows, once.tokens) == (again.rows, again.tokens)
    work.commit([again])
    sweep(index)
    assert index.dataset.to_table() == fake_build(tmp_path / "b.lance", records(SIZE)).dataset.to_table()


def test_a_block_that_cannot_be_computed_writes_nothing(tmp_path: Path) -> None:
    index, blocks = begun(tmp_path / "a.lance")
    work = IndexRows(index, fake_bound(fake_method(poisoned=("row-5",))))
    with pytest.raises(NumericError, match="row-5"):
        SERIAL.run(blocks, work)
    assert open_index(index.path).count == SIZE
    assert len(data_files(index)) == 1


def test_progress_counts_within_a_block_and_after_it(tmp_path: Path) -> None:
    told: list[tuple[int, int | None, int]] = []
    index, blocks = begun(tmp_path / "a.lance")
    progress = Progress(lambda *now: told.append(now), ROWS)
    SERIAL.run(blocks, IndexRows(index, fake_bound(tokens_per_batch=1), progress), progress.commit)
    assert [rows for rows, _, _ in told] == list(range(1, ROWS + 1))
    assert {total for _, total, _ in told} == {ROWS}
    assert [tokens for _, _, tokens in told] == sorted(tokens for _, _, tokens in told)
    assert (progress.rows, progress.tokens) == (told[-1][0], told[-1][2])
