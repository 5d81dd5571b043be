"""The closed loop on a pool small enough for a test, and the pools it runs on."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch

from headwater.core.errors import UsageError
from headwater.data.batches import Window
from headwater.evaluation import selection
from headwater.evaluation.runs import run_evaluation
from headwater.models.reader import Reader
from headwater.report.plots import save_selection_curves
from headwater.tasks.junk_pool import junk_pool_task
from headwater.tasks.mixed_pool import KINDS, mixed_pool_task
from headwater.training.tiny import Recipe, task_rows
from oracles.logical_devices import Devices
from zoo import tiny_loaded


@pytest.mark.parametrize("make", [mixed_pool_task, junk_pool_task])
def test_a_pool_is_made_by_seed_and_holds_nothing_of_the_target(make):
    task = make(3, rows=300, target=12, warm_up=40)
    assert task == make(3, rows=300, target=12, warm_up=40)
    assert task != make(4, rows=300, target=12, warm_up=40)
    said = {(row["prompt"], row["response"]) for row in (*task.target, *task.held_out)}
    assert len(said) == 24
    assert not said & {(row["prompt"], row["response"]) for row in (*task.rows, *task.warm_up)}
    assert len({row["id"] for row in task.rows}) == 300
    with pytest.raises(UsageError, match="at least 100"):
        make(0, rows=50)


def test_the_mixed_pool_has_its_kinds_in_their_shares():
    rows = mixed_pool_task(0, rows=500, target=8, warm_up=1).rows
    assert {kind: sum(row["kind"] == kind for row in rows) / 500 for kind in KINDS} == KINDS


def test_every_arm_starts_alike_and_trains_as_long(tmp_path, monkeypatch):
    small = partial(mixed_pool_task, target=8, warm_up=60)
    monkeypatch.setattr(selection, "POOLS", {"mixed": small})
    recipe = Recipe(epochs=1, width=32, layers=1, heads=2, vocabulary=400, tokens_per_batch=1024, context=128)
    monkeypatch.setattr(selection, "buyer_recipe", lambda: recipe)
    settings = {"rows": 200, "steps": 20, "items": 4, "seeds": [0, 1], "methods": ["length"], "share": 0.2}
    result = run_evaluation("selection", settings, tmp_path)
    lines = {line.method: line.metrics for line in result.lines}
    assert set(lines) == {"length", "bm25", "embedding", "loss", "random", "all data"}
    curves = json.loads((tmp_path / "selection-mixed-curves.json").read_text())
    losses = np.array(list(curves["arms"].values()))
    assert losses.shape == (6, 2, len(curves["steps"]))
    assert np.ptp(losses[:, :, 0]) < 1e-6  # one model for all
    assert (losses[:, :, -1] < losses[:, :, 0]).all()
    assert lines["random"]["steps to random's end"].value <= 1
    assert lines["bm25"]["wanted share"].value > lines["random"]["wanted share"].value
    again = run_evaluation("selection", settings, tmp_path)
    assert again.lines[0].metrics == result.lines[0].metrics
    assert save_selection_curves(tmp_path / "selection-mixed-curves.json", tmp_path / "c.svg").exists()


def test_rows_or_tokens_count_alike():
    """Against every row's own loss: the mean over rows of their means, or the mean over all tokens."""
    reader = Reader.of(tiny_loaded("llama"))
    texts = ["the quick fox", "the quick brown fox jumps over the lazy dog and the fox", "a dog"]
    tokens = reader.tokenize(task_rows([{"id": str(i), "text": text} for i, text in enumerate(texts)]))
    alone = [selection._summed(reader.loaded.model, reader.plan([row], Window(128))[0], "tokens") for row in tokens]
    counts = [int(row.response.sum()) for row in tokens]
    expected = {"tokens": sum(alone) / sum(counts), "rows": sum(a / n for a, n in zip(alone, counts, strict=True)) / 3}
    (batch,) = reader.plan(tokens, Window(128))
    for weigh, mean in expected.items():
        found = selection._summed(reader.loaded.model, batch, weigh) / selection._counted(tokens, weigh)
        torch.testing.assert_close(found, mean)


def test_rows_are_read_where_the_model_is():
    reader = Reader.of(tiny_loaded("llama"))
    tokens = reader.tokenize(task_rows([{"id": "a", "text": "the quick fox"}]))
    with Devices() as devices:
        devices.put(reader.loaded.model, "cuda:0", moves=False)
        (batch,) = reader.plan(tokens, Window(128))
        assert str(selection._summed(reader.loaded.model, batch, "rows").device) == "cuda:0"


def test_steps_to_a_goal():
    curve = np.array([5.0, 3.0, 2.0, 1.0])
    assert selection.steps_to(curve, 2.5, [0, 5, 10, 20]) == 0.5
    assert selection.steps_to(curve, 0.5, [0, 5, 10, 20]) == 2.0


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"pool": "mixd"}, {"share": 1.0}, {"seeds": ()}, {"steps": 3}, {"weigh": "words"}):
        with pytest.raises(UsageError):
            selection.SelectionSettings(**wrong)
