"""Places, level methods and merged tables: paired on the same queries and models, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headwater.cli.main import run
from headwater.core.errors import DataError
from headwater.core.statistics import crossed_interval, mean_interval
from headwater.evaluation.board import board, columns_of, joined, read_results
from headwater.evaluation.lds import lds_values, over_models_and_queries, pseudo_values, summed
from headwater.evaluation.metrics import Estimate
from headwater.evaluation.result import Line, Result, read_result, write_result
from headwater.evaluation.standing import certain, difference, standings


def result(values: dict[str, np.ndarray], *, digest: str = "d1", task: str = "detection") -> Result:
    lines = tuple(Line.of(method, {"AP": found}, ("AP",)) for method, found in values.items())
    about = {"headwater": "1", "torch": "2", "machine": "x", "seconds": 1.0, "made": "today"}
    data = {"name": "mine", "digest": digest, "rows": 9, "queries": 8, "model": {"name": "m", "fingerprint": "f"}}
    return Result(task, task, {"own": {}}, ("AP",), lines, data=data, about=about)


def test_methods_that_overlap_are_told_apart_by_pairs_and_those_that_are_level_share_a_place():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.1, 0.9, 20)  # queries differ far more than methods do
    found = result(
        {
            "best": hard + 0.05 + 0.005 * rng.normal(size=20),
            "twin": hard + 0.05 + 0.005 * rng.normal(size=20),
            "worse": hard + 0.005 * rng.normal(size=20),
        }
    )
    best, worse = found.lines[0].metrics["AP"], found.lines[2].metrics["AP"]
    assert best.low < worse.high, "the intervals overlap"
    places = {s.line.method: (s.place_text, s.step_text) for s in standings(found)}
    assert places["best"][0] == places["twin"][0] == "1="
    assert places["worse"][0] == "3"
    assert "level" in (places["best"][1], places["twin"][1])
    assert places["worse"][1].startswith("-0.0")


def test_a_difference_is_paired_only_on_the_same_queries():
    one, other = np.linspace(0.2, 0.8, 12), np.linspace(0.2, 0.8, 12) - 0.01
    paired = difference(Line.of("a", {"AP": one}, ("AP",)), Line.of("b", {"AP": other}, ("AP",)), "AP")
    assert certain(paired)
    assert paired.low == pytest.approx(0.01)
    shorter = difference(Line.of("a", {"AP": one}, ("AP",)), Line.of("b", {"AP": other[:10]}, ("AP",)), "AP")
    assert not certain(shorter)
    old = [Line(m, {"AP": Estimate(v, v - 0.1, v + 0.1)}) for m, v in (("a", 0.5), ("b", 0.45))]
    assert not certain(difference(*old, "AP")), "older run files have intervals alone"
    counts = [Line(m, {"AP": Estimate(v, None, None)}) for m, v in (("a", 0.5), ("b", 0.45))]
    assert certain(difference(*counts, "AP"))


def test_three_seeds_are_compared_by_students_t():
    """The differences 1, 2, 3 have the mean 2 and the half width 4.30 · 1 / √3 = 2.48: they are level."""
    lines = [Line.of(m, {"AP": v}, ("AP",)) for m, v in (("a", [2.0, 4.0, 6.0]), ("b", [1.0, 2.0, 3.0]))]
    found = difference(*lines, "AP")
    assert (found.value, found.low) == pytest.approx((2.0, 2 - 4.30265 / 3**0.5), abs=1e-4)
    assert not certain(found)


def test_a_run_file_keeps_the_values_that_pairs_need(tmp_path: Path):
    found = result({"a": np.array([0.1, 0.2, 0.4]), "b": np.array([0.3, 0.1, 0.2])})
    again = read_result(write_result(tmp_path / "x.json", found))
    assert again == found
    assert again.lines[0].samples == {"AP": ((0.1, 0.2, 0.4),)}


def test_results_on_the_same_data_are_joined_and_others_stay_apart(tmp_path: Path):
    first, second = result({"a": np.array([0.5, 0.6])}), result({"b": np.array([0.7, 0.8]), "a": np.array([0.1, 0.2])})
    other = replace(result({"a": np.array([0.9, 0.9])}), task="separation")
    files = [write_result(tmp_path / f"{n}.json", r) for n, r in enumerate((first, second, other))]
    merged = joined(read_results(files))
    assert [[line.method for line in r.lines] for r in merged] == [["b", "a"], ["a"]]
    table = board(columns_of(merged), merged)
    assert table.headings == ("detection mine AP", "separation mine AP")
    assert [row[1] for row in table.rows] == ["b", "a"]
    assert table.rows[0][3] is None
    with pytest.raises(SystemExit) as ended:
        run(["eval", "leaderboard", "--merge", *map(str, files), "--out", str(tmp_path / "board")])
    assert not ended.value.code
    text = (tmp_path / "board" / "leaderboard.md").read_text()
    assert "| place | method | detection mine AP" in text.replace("  ", "")
    assert "Merged from 2 results" in text


def test_one_task_on_two_data_sets_is_refused(tmp_path: Path):
    files = [write_result(tmp_path / f"{d}.json", result({"a": np.array([0.5, 0.6])}, digest=d)) for d in ("d1", "d2")]
    with pytest.raises(DataError, match="other data than in"):
        read_results(files)


SHARED = [
    *((models, queries, parts) for models, queries in ((4, 8), (16, 20)) for parts in ((1, 1, 1), (1, 0.1, 0.3))),
    (4, 20, (0.1, 1, 0.3)),
    (16, 6, (1, 0, 1)),
]


@pytest.mark.parametrize(("models", "queries", "parts"), SHARED)
def test_intervals_over_models_and_queries_cover_what_they_say(models, queries, parts):
    """x(m, q) = a(m) + b(q) + e(m, q): the interval over queries alone covers far less where models matter."""
    rng = np.random.default_rng(0)
    of_models, of_queries, rest = parts
    inside, alone = [], []
    for _ in range(600):
        table = of_models * rng.normal(size=(models, 1)) + of_queries * rng.normal(size=(1, queries))
        table = table + rest * rng.normal(size=(models, queries))
        low, high = crossed_interval(table)
        inside.append(low <= 0 <= high)
        low, high = mean_interval(table.mean(axis=0))
        alone.append(low <= 0 <= high)
    assert 0.92 <= np.mean(inside) <= 0.98
    if of_models > of_queries:
        assert np.mean(alone) <= 0.6


def _prediction(rng, models, queries):
    """Scores and gains of half-subsets of 12 rows; a model's own trait is shared by all queries."""
    subsets = [sorted(rng.permutation(12)[:6].tolist()) for _ in range(models)]
    scores = rng.normal(0, 1, (12, 1)) + 0.3 * rng.normal(0, 1, (12, queries))
    clean = np.stack([scores[s].sum(0) for s in subsets])
    noise = rng.normal(0, 1, (models, 1)) + 0.3 * rng.normal(0, 1, (models, queries))
    return scores, subsets, clean / clean.std() + 1.5 * noise


def test_intervals_of_lds_cover_between_90_and_98_in_100():
    """Queries share the models' noise: an interval over queries alone covers the truth far less often."""
    inside, alone = [], []
    for seed in range(120):
        scores, subsets, gains = _prediction(np.random.default_rng(seed), models=24, queries=10)
        values = lds_values(scores, subsets, gains)
        found = over_models_and_queries(values, pseudo_values(summed(scores, subsets), gains))
        inside.append(found.low <= TRUTH <= found.high)
        low, high = mean_interval(values)
        alone.append(low <= TRUTH <= high)
    assert 0.90 <= np.mean(inside) <= 0.98
    assert np.mean(alone) <= 0.85


TRUTH = 0.51
"""The mean of 40 runs of 800 models each."""


def test_methods_that_are_level_are_called_so():
    """Two methods that predict equally well, each with errors of its own, on the same models and queries."""
    level, overlap = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scores, subsets, gains = _prediction(rng, models=24, queries=10)
        lines = []
        for name in "ab":
            guess = scores + 0.7 * rng.normal(size=scores.shape)
            pseudo = pseudo_values(summed(guess, subsets), gains)
            found = over_models_and_queries(lds_values(guess, subsets, gains), pseudo)
            lines.append(Line(name, {"LDS": found}, samples={"LDS": tuple(map(tuple, pseudo.tolist()))}))
        level.append(not certain(difference(*lines, "LDS")))
        overlap.append(certain(difference(*[replace(line, samples={}) for line in lines], "LDS")))
    assert np.mean(level) >= 0.90
    assert np.mean(overlap) <= 0.02, "unpaired intervals are far too wide for a difference"
