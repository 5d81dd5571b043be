"""The bank: the same subset gives the same weights, what is there is used again, and the tasks that stand on it run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headwater.core.errors import UsageError
from headwater.core.scores import Scores
from headwater.evaluation import retraining
from headwater.evaluation.lds import LdsSettings, run_lds
from headwater.evaluation.listener import Listener
from headwater.evaluation.removal import RemovalSettings, run_removal
from headwater.evaluation.result import Cost
from headwater.evaluation.retraining import Bank, World, WorldSettings, make_world, random_subsets
from headwater.evaluation.stage import Scored, Stage

TINY = replace(retraining.BASE, vocabulary=300, layers=1, width=16, heads=2, epochs=1)
SMALL = {"rows": 16, "epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bank")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(retraining, "BASE", TINY)
    monkeypatch.setattr(retraining, "BASE_ROWS", 40)


def quiet(words: str, share: float) -> None:
    pass


def test_the_same_subset_gives_the_same_model_and_is_made_once(folder):
    world = make_world(WorldSettings(queries=4, **SMALL), folder, quiet)
    halves = random_subsets(16, 3, 0)
    assert all(len(half) == 8 for half in halves)
    assert halves == random_subsets(16, 3, 0)
    bank = Bank(world)
    assert bank.missing(halves) == 3
    assert "3 of 3 models to train" in bank.cost(halves)
    first = bank.losses(halves[0])
    assert bank.missing(halves) == 2
    trained = len(bank.seconds)
    np.testing.assert_array_equal(Bank(world).losses(halves[0]), first)
    assert len(bank.seconds) == trained
    path = bank.path(halves[0])
    path.unlink()
    np.testing.assert_array_equal(Bank(world).losses(halves[0][::-1]), first)
    assert path.exists()
    assert not np.array_equal(bank.losses(halves[1]), first)


def test_lds_runs_with_controls_on_half_of_the_queries_and_again_to_the_same_numbers(folder):
    settings = LdsSettings(("rise:preset=small", "logra:damping=0.1|1,rank=4"), models=8, queries=6, **SMALL)
    said, notes = [], []
    result = run_lds(settings, folder, Listener(lambda words, share: said.append(words), notes.append).within("1 of 2"))
    assert len(notes) == 1, "what it will take stays in view"
    assert notes[0].startswith("1 of 2: 8 of 8 models to train")
    assert {"1 of 2: retraining", "1 of 2: scoring with random"} <= set(said)
    assert [line.method for line in result.lines[:2]] == ["rise:preset=small", "logra:rank=4"]
    assert {"random", "length", "loss", "bm25", "embedding"} <= {line.method for line in result.lines}
    assert any("damping=0.1" in note and "damping=1" in note for note in result.notes)
    again = run_lds(settings, folder)
    assert [line.metrics for line in again.lines] == [line.metrics for line in result.lines]


def test_scores_that_know_the_retrainings_have_an_lds_of_one(folder, monkeypatch):
    """A row is worth what it takes off each query's loss: the losses are made so, and the scorer says so."""
    worth = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    monkeypatch.setattr(Bank, "losses", lambda bank, subset: -worth[list(subset)].sum(0).astype(float))

    def known(stage, label, queries):
        ids = tuple(row.id for row in stage.rows)
        values = worth if label == "rise" else np.random.default_rng(1).normal(size=worth.shape).astype(np.float32)
        return Scored(Scores(ids, tuple(q.id for q in queries), values, label), Cost(0.0, 0, 0.0))

    monkeypatch.setattr(Stage, "score", known)
    result = run_lds(LdsSettings(("rise",), models=8, queries=3, **SMALL), folder)
    found = {line.method: line.metrics["LDS"].value for line in result.lines}
    assert found["rise"] == pytest.approx(1)
    assert abs(found["random"]) < 0.9


def test_each_model_learns_the_share_of_the_rows_that_is_asked(folder):
    result = run_lds(LdsSettings(("bm25",), models=8, queries=3, keep=0.75, **SMALL), folder)
    assert "75% of the rows" in result.title
    assert any("each trained on 12 of 16 rows" in note for note in result.notes)
    with pytest.raises(UsageError, match="keeps 0 of 16"):
        random_subsets(16, 1, 0, 0.01)


def test_queries_that_no_model_answers_are_named(folder, monkeypatch):
    """The second query's loss is above that of the model before the retraining, whatever a model learned."""
    monkeypatch.setattr(World, "losses", lambda world, loaded: np.array([1.0, 1.0, 1.0]))
    monkeypatch.setattr(Bank, "losses", lambda bank, subset: np.array([0.5, 1.1, 0.9]) + subset[0] / 1000)
    result = run_lds(LdsSettings(("bm25",), models=8, queries=3, **SMALL), folder)
    world = make_world(WorldSettings(queries=3, **SMALL), folder, quiet)
    (note,) = [note for note in result.notes if "answered by no" in note]
    assert note.startswith("1 of 3 queries")
    assert f"({world.queries[1].id})" in note


def test_a_bank_says_why_the_models_of_another_plan_cannot_be_used(tmp_path):
    first = Bank(make_world(WorldSettings(queries=2, **SMALL), tmp_path, quiet))
    subsets = random_subsets(16, 2, 0)
    assert "cannot be used" not in first.cost(subsets)
    second = Bank(replace(first.world, training=replace(first.world.training, epochs=2)))
    said = second.cost(subsets)
    assert "cannot be used, because they learned otherwise: epochs 1 there, 2 here." in said
    assert "cannot be used" not in second.cost(subsets), "it has models of its own now"


def test_removal_shares_the_bank(folder):
    result = run_removal(RemovalSettings(("bm25",), k=4, queries=2, draws=2, **SMALL), folder)
    assert {"bm25", "random"} <= {line.method for line in result.lines}


def test_removal_trains_on_exactly_the_pool_without_the_removed_rows(tmp_path, monkeypatch):
    """Every training is watched: the rows a method ranks highest are gone, and all others are there."""
    world = make_world(WorldSettings(**SMALL), tmp_path, quiet)
    ids = [row.id for row in world.rows]
    trained, real = [], retraining.fit

    def watch(model, rows, *given, **named):
        trained.append(sorted(ids.index(row.row.id) for row in rows))
        real(model, rows, *given, **named)

    def made_up(label: str) -> np.ndarray:
        return np.random.default_rng([*label.encode()]).normal(size=(16, 2)).astype(np.float32)

    def known(stage, label, queries):
        return Scored(Scores(tuple(ids), tuple(q.id for q in queries), made_up(label), label), Cost(0.0, 0, 0.0))

    monkeypatch.setattr(retraining, "fit", watch)
    monkeypatch.setattr(Stage, "score", known)
    result = run_removal(RemovalSettings(("rise",), k=4, queries=2, draws=2, **SMALL), tmp_path)
    found = {line.method: line.metrics["rise"].value for line in result.lines if line.method != "random"}
    kept = {label: np.sort(np.argsort(made_up(label), axis=0)[:-4], axis=0).T.tolist() for label in found}
    asked = [list(range(16)), *(subset for subsets in kept.values() for subset in subsets)]
    draws = [subset for subset in trained if subset not in asked]
    assert all(subset in trained for subset in asked)
    assert [len(set(subset)) for subset in draws] == [12, 12]
    count, bank = len(trained), Bank(world)
    usual = np.mean([bank.losses(subset) for subset in draws], axis=0)
    for label, subsets in kept.items():
        rises = [bank.losses(subset)[query] - usual[query] for query, subset in enumerate(subsets)]
        assert found[label] == pytest.approx(np.mean(rises))
    assert len(trained) == count  # the bank had all of these models


def test_settings_that_say_nothing_are_refused(folder):
    with pytest.raises(UsageError, match="at least 8"):
        run_lds(LdsSettings(models=4), folder)
    with pytest.raises(UsageError, match="8 models cannot choose among 9 options"):
        run_lds(LdsSettings(("logra:damping=" + "|".join(map(str, range(1, 10))),), models=8), folder)
    with pytest.raises(UsageError, match="random draws"):
        run_removal(RemovalSettings(k=256), folder)
