"""LinFiK against the truth it linearises: one step on each row, the target measured again."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from headwater.core.errors import DataError, ModelError, NumericError, UsageError
from headwater.data.batches import Window, plan_batches
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization
from headwater.features.perturbed import Movable
from headwater.methods.catalog import find_method
from headwater.methods.forward_difference import differences
from headwater.methods.scoring import attribute, prepare
from headwater.methods.targets import Part, Target, each, mean_over_parts
from headwater.models.load import wrap_model
from headwater.models.reader import Reader
from headwater.tasks import two_domains_task
from headwater.training.fitting import fit
from headwater.training.tiny import Recipe, new_model, task_rows, train_tokenizer
from oracles.future_influence import adam_scale, one_step_influence

RECIPE = Recipe(vocabulary=400, layers=1, width=32, heads=2, epochs=2, tokens_per_batch=1024)


@cache
def stage() -> tuple[Reader, tuple[Row, ...], tuple[Row, ...]]:
    """A small model that knows a little of two domains; a pool of both and of garbled rows; a medical target."""
    task = two_domains_task(0, rows=240, queries=20)
    rows = task_rows(task.rows)
    tokenizer = train_tokenizer([" ".join(row.fields().values()) for row in rows], RECIPE.vocabulary)
    tokenization = Tokenization.of(tokenizer, max_tokens=RECIPE.context)
    model = new_model(tokenizer, RECIPE, seed=0)
    fit(model, tokenization.encode(rows[:200]), RECIPE.training, context=RECIPE.context, seed=0)
    generator = np.random.default_rng(0)
    pool = [
        replace(row, response=" ".join(generator.permutation(str(row.response).split()))) if i % 3 == 0 else row
        for i, row in enumerate(rows[200:])
    ]
    target = [row for row in task_rows([{**q} for q in task.queries]) if row.metadata["domain"] == "medical"]
    model.zero_grad()
    return Reader(wrap_model(model, tokenizer), tokenization), tuple(pool), tuple(target)


def linfik(rows, targets, reader=None, **settings) -> np.ndarray:
    return attribute(find_method("linfik", settings), reader or stage()[0], rows, targets).values


def test_both_forms_rank_rows_as_one_step_of_training_does():
    reader, pool, target = stage()
    truth = one_step_influence(reader.loaded, reader.tokenize(pool), reader.tokenize(target), rate=0.005)
    forward = linfik(pool, [Target("medical", target)])[:, 0]
    gradient = linfik(pool, [Target("medical", target)], form="gradient")[:, 0]
    assert spearmanr(forward, truth).statistic >= 0.95
    assert spearmanr(gradient, truth).statistic >= 0.95
    assert spearmanr(forward, gradient).statistic >= 0.99
    helped = [i for i, row in enumerate(pool) if row.metadata["domain"] == "medical"]
    assert forward[helped].mean() > np.delete(forward, helped).mean()  # and positive means it helps
    assert np.sign(forward[np.abs(forward) > 0.5]).tolist() == np.sign(truth[np.abs(forward) > 0.5]).tolist()


def test_the_training_preset_ranks_rows_as_one_step_of_adam_on_the_tokens_does():
    reader, pool, target = stage()
    rows, asked = reader.tokenize(pool), reader.tokenize(target)
    scale = adam_scale(reader.loaded, [rows[start : start + 16] for start in range(0, len(rows), 16)])
    truth = one_step_influence(reader.loaded, rows, asked, rate=0.005, over="tokens", scale=scale) / 0.005
    found = {
        name: linfik(pool, [Target("medical", target)], folds=folds, **settings)[:, 0]
        for name, folds, settings in (
            ("training", 1, {"preset": "training"}),
            ("in folds", 3, {"preset": "training"}),
            ("plain", 1, {}),
            ("tokens", 1, {"weigh": "tokens"}),
        )
    }
    assert spearmanr(found["training"], truth).statistic >= 0.99
    assert spearmanr(found["tokens"], truth).statistic < spearmanr(found["training"], truth).statistic
    np.testing.assert_allclose(found["training"], truth, rtol=0.1, atol=0.05 * np.abs(truth).max())
    np.testing.assert_allclose(found["in folds"], found["training"], rtol=0.05, atol=0.02 * np.abs(truth).max())
    plain = one_step_influence(reader.loaded, rows[:12], asked, rate=0.005, over="tokens") / 0.005
    np.testing.assert_allclose(found["tokens"][:12], plain, rtol=0.1, atol=0.05 * np.abs(plain).max())


def test_the_error_grows_with_the_step_and_with_rounding():
    reader, pool, target = stage()
    movable = Movable.select(reader.loaded)
    batches = plan_batches(reader.tokenize(pool[:16]), Window(256))
    direction = movable.direction(plan_batches(reader.tokenize(target), Window(256)))
    exact = movable.products([plan_batches([r], Window(256))[0] for b in batches for r in b.rows], direction).numpy()
    distances = [1e-6, 1e-3, 1e-2, 3e-2, 1e-1]
    found = differences(movable, direction, batches, distances)
    errors = [float(np.abs(found[c] - exact).mean() / np.abs(exact).mean()) for c in distances]
    assert errors[0] > 10 * errors[1]  # too short: round-off
    assert errors[1] < 0.01
    slope = np.diff(np.log(errors[2:])) / np.diff(np.log(distances[2:]))
    assert slope == pytest.approx(1, abs=0.2)  # too long: curvature, first order in the step


def test_the_kernel_of_nearby_weights_is_nearby():
    """|K_θ − K_θ'| ≤ 2GB‖θ − θ'‖: halving the way to θ' about halves the change."""
    reader, pool, target = stage()
    movable = Movable.select(reader.loaded)
    batches = [plan_batches([row], Window(256))[0] for row in reader.tokenize(pool[:6])]
    here = plan_batches(reader.tokenize(target), Window(256))
    direction = movable.direction(here)
    start = movable.products(batches, direction)
    changes = []
    for distance in (0.02, 0.01):
        moved = copy.deepcopy(reader.loaded.model)
        moved.load_state_dict(dict(movable.moved(direction, distance)), strict=False)
        there = Movable.select(wrap_model(moved, reader.loaded.tokenizer))
        changes.append(float((there.products(batches, there.direction(here)) - start).abs().max()))
    assert changes[0] / changes[1] == pytest.approx(2, abs=0.3)


def test_folds_make_the_same_mean_and_several_targets_are_scored_at_once():
    _, pool, target = stage()
    half = len(target) // 2
    targets = [Target("whole", target), Target("a", target[:half]), Target("b", target[half:])]
    values = linfik(pool[:20], targets, folds=3, distance=0.01)
    alone = linfik(pool[:20], targets[:1], folds=1, distance=0.01)
    mixed = (half * values[:, 1] + (len(target) - half) * values[:, 2]) / len(target)
    np.testing.assert_allclose(values[:, 0], mixed, rtol=0.05, atol=0.02)
    np.testing.assert_allclose(values[:, :1], alone, rtol=0.05, atol=0.02)


def test_a_query_is_a_target_of_one_row():
    _, pool, target = stage()
    forward = linfik(pool, each(target[:3]))
    gradient = linfik(pool, each(target[:3]), form="gradient", buckets=262_144)
    for column in range(3):
        assert spearmanr(forward[:, column], gradient[:, column]).statistic > 0.98


def test_the_cosine_is_at_most_one_and_forgets_the_rows_length():
    _, pool, target = stage()
    cosine = linfik(pool, [Target("t", target)], preset="cosine")
    assert np.abs(cosine).max() <= 1
    exact = linfik(target[:4], each(target[:4]), preset="cosine", buckets=262_144)
    np.testing.assert_allclose(np.diag(exact), 1, atol=0.05)


def test_two_forward_passes_a_row_and_no_backward(monkeypatch):
    reader, pool, target = stage()
    scorer = prepare(find_method("linfik", {"folds": "1", "distance": "0.01"}), reader, [Target("t", target)], pool)
    calls = []
    inner = type(reader.loaded.model).forward
    monkeypatch.setattr(type(reader.loaded.model), "forward", lambda *a, **k: calls.append(1) or inner(*a, **k))
    monkeypatch.setattr(torch.Tensor, "backward", lambda *a, **k: pytest.fail("a backward pass"))
    scorer(pool[:4])
    assert len(calls) == 2


def test_scoring_leaves_the_model_as_it_was():
    reader, pool, target = stage()
    before = {name: p.clone() for name, p in reader.loaded.model.named_parameters()}
    linfik(pool[:6], [Target("t", target)])
    for name, parameter in reader.loaded.model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert not parameter.requires_grad
        assert parameter.grad is None


def test_what_cannot_be_scored_is_refused():
    reader, pool, target = stage()
    half = replace(reader, loaded=replace(reader.loaded, model=_half(reader.loaded.model)))
    with pytest.raises(ModelError, match="small step"):
        linfik(pool, [Target("t", target)], half)
    with pytest.raises(UsageError, match="form=gradient"):
        linfik(pool, [Target("t", target)], cosine=True)
    with pytest.raises(UsageError, match="weigh=rows and optimizer=plain"):
        linfik(pool, [Target("t", target)], form="gradient", weigh="tokens")
    with pytest.raises(UsageError, match="folds"):
        linfik(pool, [Target("t", target)], folds=0)
    with pytest.raises(DataError, match="no row"):
        Target("empty", ())
    with pytest.raises(UsageError, match="--model"):
        prepare(find_method("linfik"), None, [Target("t", target)])


def test_a_forward_form_that_disagrees_is_refused(monkeypatch):
    _, pool, target = stage()
    monkeypatch.setattr("headwater.methods.forward_difference.DISTANCES", (1e-6,))
    with pytest.raises(NumericError, match="form=gradient"):
        linfik(pool, [Target("t", target)])


def test_parts_are_pooled_by_their_rows():
    parts = (Part("a", 3), Part("a", 1), Part("b"))
    assert mean_over_parts(np.array([[1.0, 5.0, 7.0]], np.float32), parts).tolist() == [[2.0, 7.0]]


def _half(model):
    return copy.deepcopy(model).half()
