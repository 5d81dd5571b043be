"""Laws of exact search: it equals a for-loop over rows, in any block size, with ties in row order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.errors import DataError, MismatchError, NumericError, StoreError, UsageError
from headwater.core.spec import Column, Coverage, MethodSpec
from headwater.index.manifest import Manifest, Plan
from headwater.index.store import Index, create_index
from headwater.search.export import write_scores
from headwater.search.scan import _top_in_order, score_all, top_k
from oracles.hand_rows import append, hand_index, hand_row

COLUMNS = (Column("vector", 16), Column("wide", 5, "float32"))
BLOCKS = (100, 1, 400, 37, 262)
ROWS = sum(BLOCKS)
QUERIES = 6


class Made:
    """An index with what went into it, and its scores by the slowest way there is."""

    def __init__(self, path: Path, columns: tuple[Column, ...] = COLUMNS, decimals: int | None = None) -> None:
        about = (MethodSpec("fake"), columns, Coverage(1, 1), {}, {}, Plan(100, 10), ("d",))
        self.index: Index = hand_index(path, Manifest(*about), [hand_row("r0", "d0", {"n": 0})])
        random = np.random.default_rng(0)
        self.rows = {c.name: random.standard_normal((ROWS, c.dim)).astype(c.dtype) for c in columns}
        queries = {c.name: random.standard_normal((QUERIES, c.dim)).astype(np.float32) for c in columns}
        if decimals is not None:  # small integers: exact in every order of summation, and full of ties
            self.rows = {name: np.round(v, decimals) for name, v in self.rows.items()}
            queries = {name: np.round(v, decimals) for name, v in queries.items()}
        self.probes = {name: torch.from_numpy(v) for name, v in queries.items()}
        start = 0
        for size in BLOCKS:
            rows = [hand_row(f"r{i}", f"d{i}", {"n": i}) for i in range(start, start + size)]
            append(self.index, rows, {name: v[start : start + size] for name, v in self.rows.items()})
            start += size
        self.scores = np.zeros((ROWS, QUERIES))
        for i in range(ROWS):
            for j in range(QUERIES):
                for name, v in queries.items():
                    self.scores[i, j] += float(self.rows[name][i].astype(np.float64) @ v[j].astype(np.float64))

    def best(self, k: int, kept: np.ndarray, *, lowest: bool = False) -> list[list[int]]:
        signed = self.scores[kept] if lowest else -self.scores[kept]
        return kept[np.argsort(signed, axis=0, kind="stable")[:k]].T.tolist()

    def found(self, k: int, **options: object) -> list[list[int]]:
        hits = top_k(self.index, self.probes, k, **options)  # type: ignore[arg-type]
        return [self.index.at([hit.address for hit in of], ["n"]).column("n").to_pylist() for of in hits]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("scan") / "a.lance")


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("scan") / "tied.lance", decimals=0)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, -3e38]) | st.floats(width=32, allow_nan=False), min_size=1),
    st.integers(1, 30),
)
def test_the_top_of_a_block_is_that_of_a_stable_sort(values: list[float], k: int) -> None:
    scores = torch.tensor([values, values[::-1]], dtype=torch.float32)
    top, position = _top_in_order(scores, k)
    expected = [sorted(range(len(row)), key=lambda i, row=row: -row[i])[:k] for row in scores.tolist()]
    assert position.tolist() == expected
    assert torch.equal(top, scores.gather(1, position))


@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize("k", [1, 7])
def test_top_k_is_that_of_a_for_loop(made: Made, k: int, lowest: bool) -> None:
    assert made.found(k, lowest=lowest) == made.best(k, np.arange(ROWS), lowest=lowest)


@pytest.mark.parametrize("max_memory", [40_000, 60_000, 1 << 29])
@pytest.mark.parametrize("k", [3, 20, ROWS, ROWS + 50])
def test_ties_keep_row_order_in_any_block_size(tied: Made, k: int, max_memory: int) -> None:
    counts = [len(np.unique(column)) for column in tied.scores.T]
    assert max(counts) < ROWS / 4, "the rows are meant to tie"
    assert tied.found(k, max_memory=max_memory) == tied.best(k, np.arange(ROWS))
    assert tied.found(k, max_memory=max_memory, lowest=True) == tied.best(k, np.arange(ROWS), lowest=True)


def test_conditions_and_deletions_are_respected(tmp_path: Path) -> None:
    made = Made(tmp_path / "a.lance")
    made.index.dataset.delete("n % 5 = 2 OR (n >= 90 AND n < 140)")
    numbers = np.arange(ROWS)
    alive = numbers[(numbers % 5 != 2) & ~((numbers >= 90) & (numbers < 140))]
    assert made.found(9) == made.best(9, alive)
    assert made.found(9, where="n >= 50 AND n < 300") == made.best(9, alive[(alive >= 50) & (alive < 300)])
    assert made.found(9, where="n < 0") == [[]] * QUERIES
    scores = score_all(made.index, made.probes)
    assert list(scores.ids) == [f"r{n}" for n in alive]
    assert np.allclose(scores.values, made.scores[alive], atol=1e-4)


def test_scores_carry_their_sign_and_size(made: Made) -> None:
    hits = top_k(made.index, made.probes, 3)
    lows = top_k(made.index, made.probes, 3, lowest=True)
    ordered = np.sort(made.scores, axis=0)
    assert np.allclose([[h.score for h in of] for of in hits], ordered[::-1][:3].T, atol=1e-4)
    assert np.allclose([[h.score for h in of] for of in lows], ordered[:3].T, atol=1e-4)


@pytest.mark.parametrize("cuts", [[slice(None)], [slice(0, 2), slice(2, 3), slice(3, None)]])
def test_all_scores_equal_the_for_loop_in_memory_and_in_a_file(made: Made, tmp_path: Path, cuts: list[slice]) -> None:
    names = [f"q{j}" for j in range(QUERIES)]
    scores = score_all(made.index, made.probes, queries=names)
    assert np.abs(scores.values - made.scores).max() < 1e-4
    assert scores.queries == tuple(names)
    parts = [({name: probes[s] for name, probes in made.probes.items()}, {}) for s in cuts]
    rows = write_scores(made.index, parts, names, out=tmp_path / "s.parquet", max_memory=60_000)
    table = pq.read_table(tmp_path / "s.parquet")
    assert rows == ROWS
    assert table.schema.names == ["id", *names]
    assert {str(kind) for kind in table.schema.types[1:]} == {"float"}
    assert table.column("id").to_pylist() == list(scores.ids)
    values = np.stack([table.column(name).to_numpy() for name in names], axis=1)
    assert np.abs(values - made.scores).max() < 1e-4
    assert [p.name for p in tmp_path.iterdir()] == ["s.parquet"]


def test_half_precision_rows_accumulate_in_single(tmp_path: Path) -> None:
    """10,000 products of 1 × 0.25 are 2500; in half precision the sum would stop growing at 512."""
    made = create_index(
        tmp_path / "a.lance",
        Manifest(MethodSpec("f"), (Column("vector", 10_000),), Coverage(1, 1), {}, {}, Plan(1, 1), ("d",)),
    )
    append(made, [hand_row("r")], {"vector": np.full((1, 10_000), 0.25, np.float16)})
    assert top_k(made, {"vector": torch.ones(1, 10_000)}, 1)[0][0].score == 2500.0


def test_some_of_the_columns_can_be_asked_alone(made: Made) -> None:
    alone = score_all(made.index, {"wide": made.probes["wide"]})
    expected = made.rows["wide"].astype(np.float64) @ made.probes["wide"].numpy().T
    assert np.abs(alone.values - expected).max() < 1e-4


def test_an_empty_index_has_nothing_to_find(tmp_path: Path) -> None:
    empty = create_index(
        tmp_path / "a.lance", Manifest(MethodSpec("f"), COLUMNS, Coverage(1, 1), {}, {}, Plan(1, 1), ("d",))
    )
    probes = {c.name: torch.ones(2, c.dim) for c in COLUMNS}
    assert top_k(empty, probes, 5) == [[], []]
    assert score_all(empty, probes).values.shape == (0, 2)


def test_what_cannot_be_asked_is_refused(made: Made, tmp_path: Path) -> None:
    probes = made.probes
    with pytest.raises(MismatchError, match="vector"):
        top_k(made.index, {**probes, "vector": torch.ones(QUERIES, 15)}, 3)
    with pytest.raises(MismatchError, match="other"):
        top_k(made.index, {"other": torch.ones(QUERIES, 16)}, 3)
    broken = probes["vector"].clone()
    broken[4, 2] = torch.nan
    with pytest.raises(NumericError, match="query 4"):
        top_k(made.index, {**probes, "vector": broken}, 3)
    with pytest.raises(UsageError, match="top 0"):
        top_k(made.index, probes, 0)
    with pytest.raises(StoreError, match="fewer queries"):
        top_k(made.index, probes, 3, max_memory=1000)
    with pytest.raises(StoreError, match="write the scores to a file"):
        score_all(made.index, probes, max_memory=ROWS * QUERIES)
    with pytest.raises(DataError, match="'q'"):
        write_scores(made.index, [(probes, {})], ["q", "q", "a", "b", "c", "d"], out=tmp_path / "s.parquet")
    with pytest.raises(StoreError, match="nonsense"):
        top_k(made.index, probes, 3, where="nonsense > 3")
    assert list(tmp_path.iterdir()) == []
