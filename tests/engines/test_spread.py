"""Laws of work that is spread: searches, values, labels and retrainings give the same bits as in one process.

The engine is `oracles.travelling_engine`; what Ray adds to it is in `test_ray.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import headwater as hw
from headwater.core.errors import MismatchError, StoreError, UsageError
from headwater.curvature.gram import Metric
from headwater.engines.blocks import Place, WorkRecipe
from headwater.engines.local import Local
from headwater.evaluation import retraining
from headwater.evaluation.listener import Listener
from headwater.evaluation.removal import RemovalSettings, run_removal
from headwater.evaluation.retrained_elsewhere import Retrainings, train_missing
from headwater.evaluation.retraining import Bank, WorldSettings, make_world, random_subsets
from headwater.index.store import Index, open_index
from headwater.indexing import searching
from headwater.indexing.searching import score_all, top_k, write_scores
from headwater.search import scan
from headwater.search.products import fit_metrics
from headwater.valuing import distil, request, run
from oracles.fake_method import DIM, fake_build, records
from oracles.travelling_engine import Travelling
from zoo import SENTENCES, tiny_tokenizer, zoo

WORKERS = (1, 2, 3)
WHERE = "year > 2000 AND clean = true"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index of 61 rows in fragments of 7, of which some rows and one whole fragment are deleted."""
    path = tmp_path_factory.mktemp("search") / "a.lance"
    built = fake_build(path, records(61), block_rows=7)
    hw.delete(built, ids=["row-3", "row-8", *(f"row-{i}" for i in range(21, 28))])
    return open_index(path)


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_BLOCK_BYTES", 700)
    monkeypatch.setattr(scan, "_MOST_ROWS", 3)
    monkeypatch.setattr(scan, "_FEWEST_ROWS", 1)


def probes(queries: int = 4) -> dict[str, torch.Tensor]:
    dice = torch.Generator().manual_seed(0)
    return {"vector": torch.randn(queries, DIM, generator=dice), "wide": torch.randn(queries, 3, generator=dice)}


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("where", [None, WHERE])
def test_a_search_finds_what_one_process_finds(index: Index, workers: int, where: str | None, tmp_path: Path) -> None:
    assert len(list(searching._blocks(index))) > 3
    metrics = fit_metrics(index, {"vector": Metric(0.1, row_norm="metric", uncertain=True), "wide": Metric(0.5)})
    for lowest, known in ((False, {}), (True, metrics)):
        how: dict[str, Any] = {"where": where, "lowest": lowest, "metrics": known}
        told: list[int] = []
        here = scan.top_k(index, probes(), 5, **how)
        assert top_k(index, probes(), 5, engine=Travelling(workers), on_rows=told.append, **how) == here
        assert told == sorted(told)
        assert told[-1] == index.count_where(where)
    both = [score_all(index, probes(), where=where, engine=e, metrics=metrics) for e in (None, Travelling(workers))]
    assert both[0].ids == both[1].ids
    np.testing.assert_array_equal(both[0].values, both[1].values)
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for file, engine in zip(files, (None, Travelling(workers)), strict=True):
        write_scores(index, [(probes(), {})], list("abcd"), out=file, engine=engine, where=where)
    assert pq.read_table(files[0]) == pq.read_table(files[1])


def test_equal_scores_keep_the_row_order_over_blocks(index: Index) -> None:
    level = {"vector": torch.zeros(2, DIM)}
    assert top_k(index, level, 9, engine=Travelling(3)) == scan.top_k(index, level, 9)


def test_a_search_stays_at_its_version(tmp_path: Path) -> None:
    fake_build(tmp_path / "a.lance", records(20), block_rows=7)
    old = open_index(tmp_path / "a.lance")
    before = scan.top_k(old, probes(), 3)
    hw.delete(open_index(tmp_path / "a.lance"), ids=["row-3"])
    assert top_k(old, probes(), 3, engine=Travelling(2)) == before


def test_more_than_workers_can_be_sent_is_refused(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_MOST_SENT", 10)
    with pytest.raises(StoreError, match="would be sent to every worker"):
        top_k(index, probes(), 3, engine=Travelling(2))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    zoo()["llama"]().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def pool(count: int, seed: int = 0) -> list[dict[str, Any]]:
    dice, words = np.random.default_rng(seed), " ".join(SENTENCES).split()
    rows = [{"id": f"r{i}", "prompt": " ".join(dice.choice(words, 3)), "provider": "ab"[i % 2]} for i in range(count)]
    for row in rows:
        text = " ".join(dice.choice(words, int(dice.integers(2, 9))))
        row |= {"response": text}
    return rows


@pytest.mark.parametrize(
    ("method", "settings"),
    [("linfik", {}), ("linfik", {"form": "gradient"}), ("bm25", {}), ("alinfik", {"labels": 40, "cheap": True})],
)
def test_values_and_labels_are_those_of_one_process(
    tmp_path: Path, model: str, method: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "Job", partial(run.Job, block_rows=8))
    monkeypatch.setattr(distil, "BLOCK_ROWS", 8)
    made = {"method": method, "settings": settings, "loading": {"device": "cpu"}, "duplicates": None}
    rows, tasks = pool(50), {"one": pool(6, 1), "two": pool(5, 2)}
    if method != "bm25":
        made["model"] = model
    tables = []
    for number in (0, *(WORKERS if not settings else (2,))):
        engine = Travelling(number) if number else None
        found = hw.value(rows, tasks, out=tmp_path / f"{number}.parquet", engine=engine, force=True, **made)
        tables.append(found.values.table.replace_schema_metadata())
    assert all(table == tables[0] for table in tables[1:])


def test_codes_are_those_of_one_process(index: Index, tmp_path: Path) -> None:
    made = [
        hw.quantise(index, tmp_path / f"{n}.lance", code="int8", engine=e) for n, e in enumerate((None, Travelling()))
    ]
    assert made[0].dataset.to_table() == made[1].dataset.to_table()


def test_an_index_is_valued_as_in_one_process(tmp_path: Path, model: str) -> None:
    how = {"settings": {"preset": "small"}, "block_rows": 8, "loading": {"device": "cpu"}}
    index = hw.build(tmp_path / "a.lance", model=model, data=pool(40), **how)
    found = [
        hw.value_index(index, pool(6, 1), out=tmp_path / f"{n}.parquet", engine=engine).values.table
        for n, engine in enumerate((None, Travelling(2)))
    ]
    assert found[0].replace_schema_metadata() == found[1].replace_schema_metadata()


def test_a_model_in_memory_cannot_be_spread(tmp_path: Path, model: str) -> None:
    loaded = replace(hw.load_model(model, device="cpu"), loading={})
    with pytest.raises(UsageError, match=r"in the memory of this process.*by its folder or hub name"):
        hw.value(pool(20), pool(6, 1), model=loaded, out=tmp_path / "v.parquet", engine=Travelling(2))


def test_a_worker_that_finds_another_model_is_refused(tmp_path: Path, model: str) -> None:
    class Other(Travelling):
        def run(self, blocks, work, on_commit=None):  # type: ignore[no-untyped-def]
            recipe = work.recipe()
            described = json.loads(json.dumps(dict(recipe.arguments)))
            described["reader"]["model"]["weights"] = "other"
            WorkRecipe(recipe.maker, described, recipe.fingerprint).make(Place())

    with pytest.raises(MismatchError, match="weights"):
        hw.value(pool(20), pool(6, 1), model=model, out=tmp_path / "v.parquet", engine=Other())


def quiet(words: str, share: float) -> None:
    pass


def test_a_bank_has_the_models_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = replace(retraining.BASE, vocabulary=300, layers=1, width=16, heads=2, epochs=1)
    monkeypatch.setattr(retraining, "BASE", tiny)
    monkeypatch.setattr(retraining, "BASE_ROWS", 40)
    world = make_world(WorldSettings(rows=16, queries=4, epochs=1), tmp_path, quiet)
    halves = random_subsets(16, 5, 0)
    alone = [Bank(world).losses(half) for half in halves]
    spread = Bank(replace(world, folder=tmp_path / "spread"), Travelling(2))
    told: list[float] = []
    train_missing(spread, [*halves, halves[0][::-1]], lambda words, share: told.append(share))
    assert spread.missing(halves) == 0
    assert told == [pytest.approx((i + 1) / 5) for i in range(5)]
    assert len(spread.seconds) == 5
    np.testing.assert_array_equal(alone, [spread.losses(half) for half in halves])
    recipe = Retrainings(spread).recipe()
    with pytest.raises(MismatchError, match="differently"):
        WorkRecipe(recipe.maker, {**recipe.arguments, "seed": 7}, {}).make(Place())
    settings = RemovalSettings(("length",), k=2, queries=2, draws=2, rows=16, epochs=1)
    there, here = (
        run_removal(settings, tmp_path / e.__class__.__name__, Listener(engine=e)) for e in (Travelling(), Local())
    )
    assert [line.metrics for line in there.lines] == [line.metrics for line in here.lines]
