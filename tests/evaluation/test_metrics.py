"""The detection metrics: hand-made cases, scikit-learn, and what must hold for any scores."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from headwater.core.errors import DataError, NumericError, UsageError
from headwater.core.scores import Scores
from headwater.evaluation.metrics import Estimate, detection_metrics, detection_values, estimate


def scores_of(columns: list[list[float]]) -> Scores:
    values = np.array(columns, dtype=np.float32).T
    ids = tuple(f"r{n}" for n in range(values.shape[0]))
    return Scores(ids, tuple(f"q{n}" for n in range(values.shape[1])), values, "test")


def test_a_case_worked_by_hand() -> None:
    scores = scores_of([[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]])
    found = detection_values(scores, {"q0": {"r0", "r2", "r5", "r9"}}, ks=(3,))
    # Top 3 holds r0 and r2, bottom 3 holds r9: ranks 1, 3 and 6 of six.
    assert found["auPRC@3"][0] == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)
    # Of the nine pairs (positive above negative): r0 wins 3, r2 wins 2, r9 wins 0.
    assert found["auROC@3"][0] == pytest.approx(5 / 9)
    assert found["P@3"][0] == pytest.approx(2 / 3)
    assert found["R@3"][0] == pytest.approx(2 / 4)
    assert found["AP"][0] == pytest.approx((1 / 1 + 2 / 3 + 3 / 6 + 4 / 10) / 4)
    assert found["AUROC"][0] == pytest.approx((6 + 5 + 3 + 0) / 24)
    assert found["prevalence"][0] == 0.4


def test_no_positive_among_the_ends_gives_no_precision_and_chance_area() -> None:
    scores = scores_of([[5, 4, 3, 2, 1, 0]])
    found = detection_values(scores, {"q0": {"r2"}}, ks=(2,))
    assert (found["auPRC@2"][0], found["auROC@2"][0], found["P@2"][0], found["R@2"][0]) == (0, 0.5, 0, 0)
    nothing = detection_values(scores, {"q0": set()}, ks=(2,))
    assert (nothing["AP"][0], nothing["AUROC"][0], nothing["R@2"][0]) == (0, 0.5, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(12, 60), st.booleans())
def test_areas_are_scikit_learns_on_the_chosen_rows(seed: int, rows: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, rows) if tied else rng.normal(size=rows)
    truth = rng.random(rows) < 0.3
    truth[:2] = True, False
    scores = scores_of([values.tolist()])
    found = detection_values(scores, {"q0": {f"r{n}" for n in np.flatnonzero(truth)}}, ks=(5,))
    column = scores.values[:, 0]
    assert found["AUROC"][0] == pytest.approx(roc_auc_score(truth, column))
    assert found["AP"][0] == pytest.approx(average_precision_score(truth, column))
    order = sorted(range(rows), key=lambda n: (-column[n], n))
    ends = order[:5] + order[-5:]
    if truth[ends].any() and not truth[ends].all():
        assert found["auPRC@5"][0] == pytest.approx(average_precision_score(truth[ends], column[ends]))
        assert found["auROC@5"][0] == pytest.approx(roc_auc_score(truth[ends], column[ends]))
    assert found["P@5"][0] == truth[order[:5]].mean()
    assert found["R@5"][0] == pytest.approx(truth[order[:5]].sum() / truth.sum())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_only_the_order_counts_and_turning_it_turns_the_area(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.permutation(40).astype(float)
    positives = {"q0": {f"r{n}" for n in rng.choice(40, 8, replace=False)}}
    once, again, turned = (
        detection_values(scores_of([v.tolist()]), positives, ks=(5, 10)) for v in (values, np.exp(values / 20), -values)
    )
    assert all(once[name][0] == pytest.approx(again[name][0]) for name in once)
    for name in ("AUROC", "auROC@5", "auROC@10"):
        assert once[name][0] + turned[name][0] == pytest.approx(1)


def test_a_perfect_score_is_perfect_and_chance_is_chance() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((1000, 60)) < 0.09
    positives = {f"q{n}": {f"r{m}" for m in np.flatnonzero(truth[:, n])} for n in range(60)}
    perfect = detection_metrics(scores_of(truth.T.astype(float).tolist()), positives, ks=(50,))
    assert all(perfect[name].value == 1 for name in ("auPRC@50", "auROC@50", "P@50", "AUROC", "AP"))
    chance = detection_metrics(scores_of(rng.random((60, 1000)).tolist()), positives, ks=(50,))
    for name in ("AUROC", "auROC@50"):
        assert chance[name].low < 0.5 < chance[name].high
    assert chance["P@50"].low < chance["prevalence"].value < chance["P@50"].high


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = [abs_covers(estimate(rng.beta(2, 3, size=8))) for n in range(1000)]
    assert 0.93 <= np.mean(covered) <= 0.97


def abs_covers(interval: object) -> bool:
    return interval.low <= 2 / 5 <= interval.high  # type: ignore[attr-defined]


def test_the_interval_shrinks_to_a_point_and_one_value_has_none() -> None:
    same = estimate(np.full(7, 0.25))
    assert (same.value, same.low, same.high) == (0.25, 0.25, 0.25)
    assert str(estimate(np.array([0.5]))) == "0.500"
    assert estimate([0.5]) == Estimate(0.5, None, None)


def test_what_cannot_be_measured_is_refused_by_name() -> None:
    scores = scores_of([[1, 2, 3, 4], [4, 3, 2, 1]])
    with pytest.raises(DataError, match="no ground truth for query 'q1'"):
        detection_values(scores, {"q0": {"r0"}}, ks=(1,))
    with pytest.raises(DataError, match="query 'q1': positive row 'x' has no score"):
        detection_values(scores, {"q0": {"r0"}, "q1": {"x"}}, ks=(1,))
    with pytest.raises(UsageError, match="K = 3 with 4 rows"):
        detection_values(scores, {"q0": {"r0"}, "q1": {"r0"}}, ks=(3,))
    scores.values[2, 1] = np.nan
    with pytest.raises(NumericError, match="row 'r2', query 'q1'"):
        detection_values(scores, {"q0": {"r0"}, "q1": {"r0"}}, ks=(1,))


def test_large_pools_are_measured_quickly() -> None:
    rng = np.random.default_rng(0)
    scores = Scores(
        tuple(f"r{n}" for n in range(50_000)),
        tuple(f"q{n}" for n in range(20)),
        rng.random((50_000, 20), dtype=np.float32),
        "test",
    )
    found = frozenset(f"r{n}" for n in range(0, 50_000, 11))
    start = time.process_time()
    detection_metrics(scores, dict.fromkeys(scores.queries, found))
    assert time.process_time() - start < 6


def test_an_interval_is_cut_where_the_mean_cannot_be():
    values = [1.0, 1.0, 0.7]
    whole, cut = estimate(values), estimate(values, within=(0.0, 1.0))
    assert whole.high > 1
    assert (cut.value, cut.low, cut.high) == (whole.value, whole.low, 1.0)
