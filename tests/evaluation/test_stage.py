"""Labelled methods and results: names, combinations, costs, and run files that come back as they went."""

from __future__ import annotations

import json

import numpy as np
import pytest

from headwater.core.errors import DataError, UsageError
from headwater.core.scores import Scores, fuse
from headwater.data.corpus import open_corpus
from headwater.evaluation.lds import alternatives, lds_values, settled
from headwater.evaluation.metrics import Estimate
from headwater.evaluation.result import Cost, Line, Result, read_result, write_result
from headwater.evaluation.stage import CONTROLS, Stage, parse_label, two_stages, with_controls
from headwater.report.results import publish
from zoo import tiny_loaded

ROWS = [{"id": f"r{i}", "prompt": f"What is {i}?", "response": f"A number, {i} or so."} for i in range(20)]


@pytest.fixture
def stage(tmp_path) -> Stage:
    return Stage(tiny_loaded("llama"), open_corpus(ROWS), tmp_path)


def test_controls_join_whatever_is_asked_for():
    assert with_controls(["rise", "bm25"]) == ("rise", "bm25", *(c for c in CONTROLS if c != "bm25"))


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        ("rsie", "did you mean 'rise'"),
        ("rise:windw=3", "did you mean 'window'"),
        ("rise:window", "not name=value"),
        ("rise+bm52", "unknown method"),
        ("bm25:by=embedding", "no vector columns"),
        ("bm25:code=sign", "no vector columns"),
        ("rise:code=int3", "is no code"),
        ("embedding=>rsie", "unknown method"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_runs(label, fault):
    with pytest.raises(UsageError, match=fault):
        with_controls([label])


def test_a_label_has_settings_and_columns():
    named = parse_label("rise:window=64,overlap=8,by=rise/embedding")
    assert (named.settings, named.by) == ({"window": "64", "overlap": "8"}, "rise+embedding")


def test_index_and_streaming_methods_score_on_one_stage(stage):
    for label in ("rise:preset=small", "bm25", "embedding"):
        scored = stage.score(label, stage.rows[:2])
        assert scored.scores.ids == tuple(f"r{i}" for i in range(20))
        assert scored.scores.method == label
        assert (scored.cost.row_bytes > 0) == label.startswith("rise")
    fused = stage.score("bm25+0.5*embedding", stage.rows[:2]).scores
    parts = [stage.score(label, stage.rows[:2]).scores.values for label in ("bm25", "embedding")]
    bm25, embedding = ((values - values.mean(0)) / values.std(0) for values in parts)
    np.testing.assert_allclose(fused.values, bm25 + 0.5 * embedding, rtol=1e-4, atol=1e-5)
    assert fused.method == "bm25+0.5*embedding"


def test_a_constant_part_of_a_sum_changes_nothing():
    rows = Scores(("a", "b"), ("q",), np.array([[1.0], [3.0]], np.float32), "m")
    flat = Scores(("a", "b"), ("q",), np.full((2, 1), 7.0, np.float32), "flat")
    np.testing.assert_allclose(fuse([rows, flat], [2.0, 1.0], method="both").values, [[-2.0], [2.0]])
    with pytest.raises(DataError, match="different rows"):
        fuse([rows, Scores(("a", "c"), ("q",), flat.values, "flat")], [1.0, 1.0], method="both")


def test_the_embedding_column_of_an_index_is_the_embedding(stage):
    column = stage.score("rise:by=embedding", stage.rows[:2]).scores.values
    np.testing.assert_allclose(column, stage.score("embedding", stage.rows[:2]).scores.values, atol=2e-3)


def test_an_index_of_codes_is_smaller_and_scores_nearly_alike(stage):
    plain, small = (stage.score(f"rise:preset=small{code}", stage.rows[:2]) for code in ("", ",code=int8"))
    assert small.cost.row_bytes < plain.cost.row_bytes
    np.testing.assert_allclose(small.scores.values, plain.scores.values, atol=0.02)
    assert not np.array_equal(small.scores.values, plain.scores.values)


@pytest.mark.parametrize("seed", range(8))
def test_the_second_of_two_stages_orders_what_the_first_kept(seed):
    ids, rng = tuple("abcdefghij"), np.random.default_rng(seed)
    first, second = (Scores(ids, ("q",), rng.normal(size=(10, 1)).astype(np.float32), "m") for _ in range(2))
    order = np.argsort(-two_stages(first, second, 0.3)[:, 0]).tolist()
    kept = first.top(3)[:, 0].tolist()
    assert order[:3] == [i for i in second.top(10)[:, 0].tolist() if i in kept]
    assert order[3:] == first.top(10)[3:, 0].tolist()


def test_alternatives_are_every_combination():
    assert alternatives("logra:damping=0.1|1,unit=true|false,rank=4") == [
        f"logra:damping={d},unit={u},rank=4" for d in ("0.1", "1") for u in ("true", "false")
    ]
    assert alternatives("rise") == ["rise"]
    assert settled("logra:damping=0.1|1,rank=4") == "logra:rank=4"


def test_lds_is_one_for_scores_that_add_up_to_the_gain_and_minus_one_for_their_negative():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(30, 3))
    subsets = [rng.permutation(30)[:15].tolist() for _ in range(20)]
    gains = np.stack([truth[s].sum(0) for s in subsets])
    np.testing.assert_allclose(lds_values(truth, subsets, gains), 1)
    np.testing.assert_allclose(lds_values(-truth, subsets, gains), -1)
    np.testing.assert_array_equal(lds_values(np.zeros((30, 3)), subsets, gains), 0)


RESULT = Result(
    task="detection",
    title="Which rows?",
    settings={"pool": "howdy", "methods": ["rise"]},
    shown=("AP",),
    lines=(
        Line("random", {"AP": Estimate(0.1, 0.0, 0.2)}, Cost(0.1, 0, 0.0), "whole"),
        Line("rise", {"AP": Estimate(0.9, 0.8, 1.0)}, Cost(2.0, 100, 0.5), "whole"),
    ),
    notes=("20 rows.",),
    about={"headwater": "0"},
)


def test_a_run_file_comes_back_as_it_went(tmp_path):
    assert read_result(write_result(tmp_path / "deep" / "run.json", RESULT)) == RESULT


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1}', '{"format": 99, "lines": []}', "[]"])
def test_a_file_that_is_no_run_file_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match="run file"):
        read_result(tmp_path / "run.json")
    with pytest.raises(DataError, match="no run file"):
        read_result(tmp_path / "none.json")


def test_results_are_published_as_json_markdown_and_a_page_best_first(tmp_path):
    files = publish(RESULT, tmp_path)
    assert json.loads(files["json"].read_text())["settings"]["pool"] == "howdy"
    markdown, page = files["markdown"].read_text(), files["html"].read_text()
    assert markdown.index("rise") < markdown.index("random")
    assert "0.900 [0.800, 1.000]" in markdown
    assert "<svg" in page
    assert "<script" not in page
