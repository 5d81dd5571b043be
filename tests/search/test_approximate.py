"""Laws of approximate search: exact scores, honest recall, and a vector index that follows the rows' life."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from headwater.core.errors import StoreError, UsageError
from headwater.core.spec import Column, Coverage, MethodSpec
from headwater.index.checks import check_index
from headwater.index.info import KINDS, approximate_columns, build_approximate
from headwater.index.manifest import Manifest, Plan
from headwater.index.store import Index
from headwater.index.upkeep import compact, delete_rows, seal
from headwater.search.approximate import measure_recall, top_k_approximate
from headwater.search.scan import Found, top_k
from oracles import hand_rows
from oracles.hand_rows import hand_index, hand_row

ROWS, DIM = 600, 16


def vectors(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float16)


def append(index: Index, values: np.ndarray, start: int) -> None:
    rows = [hand_row(f"r{start + i}", f"d{start + i}", {"n": start + i}) for i in range(len(values))]
    hand_rows.append(index, rows, {"vector": values, "wide": np.ones((len(values), 3), np.float32)})


@pytest.fixture
def index(tmp_path: Path) -> Index:
    columns = (Column("vector", DIM), Column("wide", 3, "float32"))
    about = Manifest(MethodSpec("f"), columns, Coverage(1, 1), {}, {}, Plan(200, 1), ("d",))
    made = hand_index(tmp_path / "a.lance", about, [hand_row("r0", "d0", {"n": 0})])
    for start in range(0, ROWS, 200):
        append(made, vectors(ROWS)[start : start + 200], start)
    seal(made)
    return made


def probes(count: int = 6) -> dict[str, torch.Tensor]:
    return {"vector": torch.from_numpy(vectors(count, seed=1).astype(np.float32)) * 300}


@pytest.mark.parametrize("kind", KINDS)
def test_most_of_the_top_is_found_with_its_exact_score(index: Index, kind: str) -> None:
    assert build_approximate(index, kind=kind, partitions=8) == "vector"
    assert approximate_columns(index) == {"vector": kind}
    for lowest in (False, True):
        found = top_k_approximate(index, probes(), 10, lowest=lowest)
        recall = measure_recall(index, probes(), found, lowest=lowest)
        assert (recall.queries, recall.top) == (4, 10)
        assert recall.share > 0.9
        exact = {hit.address: hit.score for hit in top_k(index, probes(), ROWS, lowest=lowest)[0]}
        assert all(hit.score == pytest.approx(exact[hit.address], rel=1e-5) for hit in found[0])
        scores = [hit.score for hit in found[0]]
        assert scores == sorted(scores, reverse=not lowest)


def test_recall_is_counted_on_what_was_found(index: Index) -> None:
    exact = top_k(index, probes(), 10)
    assert measure_recall(index, probes(), exact).share == 1
    worse = [[*hits[:5], *[Found(-i, 0.0) for i in range(1, 6)]] for hits in exact]
    assert measure_recall(index, probes(), worse).share == 0.5


def test_conditions_and_rows_added_later_are_respected(index: Index) -> None:
    build_approximate(index, partitions=4)
    largest = (probes(1)["vector"] / 10).numpy().astype(np.float16)
    append(index, largest, ROWS)
    found = top_k_approximate(index, probes(1), 5)[0]
    assert index.at([found[0].address], ["id"]).column("id").to_pylist() == [f"r{ROWS}"]
    narrow = top_k_approximate(index, probes(), 10, where="n >= 100 AND n < 120")
    for hits in narrow:
        assert all(100 <= n < 120 for n in index.at([h.address for h in hits], ["n"]).column("n").to_pylist())
        assert len(hits) == 10
    assert top_k_approximate(index, probes(2), 3, where="n < 0") == [[], []]


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_sq"])
def test_compaction_takes_deleted_rows_out_of_the_vector_index(index: Index, kind: str) -> None:
    build_approximate(index, kind=kind, partitions=4)
    gone, kept = vectors(ROWS)[7].tobytes(), vectors(ROWS)[8].tobytes()

    def everything() -> bytes:
        return b"".join(file.read_bytes() for file in sorted(Path(index.path).rglob("*")) if file.is_file())

    copies = everything().count(gone)
    assert copies == (2 if kind == "ivf_flat" else 1)
    delete_rows(index, ids=["r7"])
    best = top_k_approximate(index, {"vector": torch.from_numpy(vectors(ROWS)[7:8].astype(np.float32))}, 3)[0]
    assert "r7" not in index.at([hit.address for hit in best], ["id"]).column("id").to_pylist()
    compact(index)
    assert gone not in everything()
    assert kept in everything()
    assert check_index(index.path) == []
    recall = measure_recall(index, probes(), top_k_approximate(index, probes(), 10))
    assert recall.share > 0.8


def test_what_cannot_be_done_is_said(index: Index, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="headwater index ann builds one"):
        top_k_approximate(index, probes(), 5)
    with pytest.raises(UsageError, match="unknown vector column 'vektor'"):
        build_approximate(index, "vektor")
    with pytest.raises(UsageError, match="unknown kind of vector index"):
        build_approximate(index, kind="ivf_pq")
    build_approximate(index, partitions=4)
    with pytest.raises(UsageError, match="rank by one column"):
        top_k_approximate(index, {**probes(), "wide": torch.ones(6, 3)}, 5)
    with pytest.raises(UsageError, match="top 0"):
        top_k_approximate(index, probes(), 0)
    delete_rows(index, where="n >= 100")
    with pytest.raises(StoreError, match="100 rows are too few"):
        build_approximate(index)
