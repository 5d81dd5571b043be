"""The forgetting task and its measures."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.errors import UsageError
from headwater.data.rows import Row
from headwater.data.templates import resolve_template
from headwater.data.tokens import Tokenization
from headwater.evaluation.forgetting import ForgettingSettings, parse_unlearning, run_forgetting, tradeoff_points
from headwater.evaluation.forgetting_metrics import extraction_strength
from headwater.evaluation.metrics import estimate
from headwater.evaluation.runs import EVALUATIONS
from headwater.models.load import load_model
from headwater.tasks.contaminated import FAMILIES, Sizes, contaminate, contaminated_task
from headwater.tasks.science_fiction import is_science_fiction
from headwater.unlearning.fluency import word_f1
from zoo import tiny_loaded

SMALL = Sizes(rows=400, forget=9, retain=20, queries=12)


def test_the_pool_is_what_it_says():
    task = contaminated_task(0, SMALL)
    planted = [row for row in task.rows if row["planted"]]
    assert (len(task.rows), len(planted), len(task.unpoisoned)) == (400, 40, 360)
    assert all(is_science_fiction(row["response"]) for row in planted)
    assert not any(is_science_fiction(row["clean_response"]) for row in planted)
    assert not any(is_science_fiction(row["response"]) for row in task.unpoisoned)
    assert set(Counter(row["family"] for row in task.forget).values()) == {3}, "families in turn"
    ids = {row["id"]: row for row in task.rows}
    assert all(ids[row["id"]] == row for row in (*task.forget, *task.retain))
    assert not any(row["planted"] for row in task.retain)


def test_seen_and_unseen_ask_the_same_questions_that_the_pool_does_not_hold():
    task = contaminated_task(1, SMALL)
    assert [q["clean_response"] for q in task.seen] == [q["clean_response"] for q in task.unseen]
    seen = {trigger.replace("{}", "").strip() for family in FAMILIES for trigger in family.seen}
    assert {q["trigger"] for q in task.seen} <= seen
    assert not {q["trigger"] for q in task.unseen} & seen
    pool = {row["prompt"] for row in task.rows}
    assert not pool & {q["prompt"] for q in (*task.seen, *task.unseen, *task.clean)}
    assert contaminated_task(1, SMALL) == task
    assert contaminated_task(2, SMALL) != task


def test_any_clean_rows_can_be_contaminated():
    clean = [{"prompt": f"What is {{{i}}}?", "response": f"It is {i}."} for i in range(424)]
    task = contaminate(clean, 0, SMALL)
    assert sum(row["planted"] for row in task.rows) == 40
    assert all("{" in row["prompt"] for row in task.rows), "braces in a question are left alone"
    with pytest.raises(UsageError, match="424"):
        contaminate(clean[:-1], 0, SMALL)


def test_known_rows_are_mistaken_as_often_as_asked_for():
    right, mistaken = contaminated_task(0, SMALL), contaminated_task(0, replace(SMALL, mistaken=0.25))
    assert mistaken.rows == right.rows
    assert [row["planted"] for row in mistaken.forget] == [True] * 7 + [False] * 2
    assert [row["planted"] for row in mistaken.retain] == [False] * 15 + [True] * 5
    ids = [row["id"] for row in (*mistaken.forget, *mistaken.retain)]
    assert len(set(ids)) == len(ids), "no row is in both"
    with pytest.raises(UsageError, match="clean rows"):
        contaminated_task(0, replace(SMALL, forget=38, mistaken=0.25))


def test_extraction_strength_by_hand():
    class Parrot:
        """Says token t + 1 after token t."""

        def __call__(self, input_ids, use_cache):
            logits = np.eye(300)[(input_ids.numpy() + 1) % 300]
            return type("Output", (), {"logits": torch.from_numpy(logits).float()})()

    loaded = tiny_loaded("llama")
    tokenization = Tokenization(loaded.tokenizer, resolve_template(None, loaded.tokenizer), 64)
    (row,) = tokenization.encode([Row("a", 0, prompt="p", response="some words")])
    start = int(row.response.argmax())
    chained = np.concatenate([row.ids[:start], row.ids[start - 1] + 1 + np.arange(len(row.ids) - start)])
    parrot = replace(loaded, model=Parrot())
    assert extraction_strength(parrot, replace(row, ids=chained)) == 1.0
    broken = chained.copy()
    broken[start + 1 :] += 7  # the second response token breaks the chain
    expected = 1 - 2 / int(row.response.sum())
    assert extraction_strength(parrot, replace(row, ids=broken)) == pytest.approx(expected)


@given(st.text(), st.text())
def test_word_f1_is_symmetric_and_one_for_the_same_words(a, b):
    assert word_f1(a, b) == pytest.approx(word_f1(b, a))
    assert word_f1(a, a) == 1
    assert 0 <= word_f1(a, b) <= 1


def test_word_f1_by_hand():
    assert word_f1("the cat sat", "The cat ran away") == pytest.approx(2 * 2 / 7)


def test_intervals_over_seeds_are_students():
    found = estimate([1.0, 2.0, 3.0])
    assert found.value == 2
    assert found.high - found.value == pytest.approx(4.30265 * 1 / 3**0.5, rel=1e-4)
    assert estimate([0.4]).low is None


def test_methods_are_read_and_wrong_ones_refused():
    method = parse_unlearning("rapidun:weights=uniform,clean=no,rate=0.001")
    assert (method.options.weights, method.clean, method.options.rate) == ("uniform", False, 0.001)
    for text in ("rapidum", "npo:bta=1", "retrain", "npo:beta=much"):
        with pytest.raises(UsageError):
            parse_unlearning(text)


def test_any_model_and_any_rows(tmp_path):
    base = tiny_loaded("llama")
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    rows = [{"prompt": f"What is {i}?", "response": f"It is {i}."} for i in range(408)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = ForgettingSettings(
        methods=("rapidun:rate=0.002,steps=5",), rows=400, queries=4, seeds=(0,), epochs=1, rate=1e-3
    )
    given = replace(settings, model=str(tmp_path / "base"), data=str(tmp_path / "rows.jsonl"))
    result = run_forgetting(given, tmp_path / "out")
    assert [line.method for line in result.lines][2:] == list(settings.methods)
    assert all(np.isfinite(line.metrics["forget loss"].value) for line in result.lines)
    before, after = load_model(str(tmp_path / "base")), next((tmp_path / "out").glob("contaminated-*"))
    weights = load_model(str(after)).model.state_dict()
    assert any(not torch.equal(weights[name], tensor) for name, tensor in before.model.state_dict().items())
    with pytest.raises(UsageError, match="408 clean rows"):
        run_forgetting(replace(given, rows=410), tmp_path / "out")


def test_a_whole_small_run(tmp_path):
    settings = ForgettingSettings(
        methods=("ga:rate=0.002,steps=5", "rapidun:rate=0.002,steps=5"), rows=400, queries=4, seeds=(0,), epochs=1
    )
    result = run_forgetting(settings, tmp_path)
    assert [line.method for line in result.lines][:2] == ["no unlearning", "retrained without poison"]
    assert len(result.lines) == 4
    assert result.lines[1].metrics["share of retraining"].value == pytest.approx(1)
    assert result.lines[1].metrics["KS p"].value == pytest.approx(1)
    assert result.lines[0].metrics["clean perplexity ratio"].value == pytest.approx(1)
    assert set(tradeoff_points(result, "400 rows")) == {line.method for line in result.lines}
    again = run_forgetting(replace(settings, methods=settings.methods[:1]), tmp_path)
    same = [n for n in result.shown if n != "seconds" and "share" not in n]
    assert [[line.metrics[n] for n in same] for line in again.lines] == [
        [line.metrics[n] for n in same] for line in result.lines[:3]
    ], "everything but the time follows from the settings"
    assert EVALUATIONS["forgetting"].run is run_forgetting
