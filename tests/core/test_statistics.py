"""Intervals cover the truth as often as they say, or as often as the documentation says that they do."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.core.statistics import conformal_reach, interval_reach, mean_interval

KINDS = {
    "normal": (lambda g, shape: g.normal(1.0, 1.0, shape), 1.0),
    "skewed": (lambda g, shape: g.exponential(1.0, shape), 1.0),
    "very skewed": (lambda g, shape: g.lognormal(0.0, 1.0, shape), float(np.exp(0.5))),
}
MEASURED = {
    "normal": {3: 0.95, 5: 0.95, 8: 0.95, 30: 0.95, 200: 0.95},
    "skewed": {3: 0.89, 5: 0.88, 8: 0.90, 30: 0.93, 200: 0.95},
    "very skewed": {3: 0.84, 5: 0.82, 8: 0.83, 30: 0.88, 200: 0.93},
}
"""Coverage of the 95 % interval of a mean; docs/glossary.md states these numbers."""


@pytest.mark.parametrize("count", [3, 5, 8, 30, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_of_a_mean_covers_it_as_often_as_is_documented(kind, count):
    draw, truth = KINDS[kind]
    inside = []
    for values in draw(np.random.default_rng(count), (4000, count)):
        low, high = mean_interval(values)
        inside.append(low <= truth <= high)
    assert np.mean(inside) == pytest.approx(MEASURED[kind][count], abs=0.015)


def test_the_interval_of_a_mean_by_hand():
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), rel=1e-4)
    assert mean_interval([2.0, 2.0]) == (2.0, 2.0)
    assert np.isnan(mean_interval([2.0])).all()
    assert interval_reach(30) == pytest.approx(2.045, abs=1e-3)


@pytest.mark.parametrize("count", [19, 25, 60, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_miss_is_within_the_conformal_reach_in_95_of_100_cases(kind, count):
    draw, _ = KINDS[kind]
    misses = np.abs(draw(np.random.default_rng(count), (4000, count + 1)))
    inside = [row[-1] <= conformal_reach(row[:-1]) for row in misses]
    assert np.mean(inside) == pytest.approx(np.ceil(0.95 * (count + 1)) / (count + 1), abs=0.015)
    assert np.mean(inside) >= 0.94


def test_fewer_than_19_misses_say_nothing_at_that_level():
    assert np.isnan(conformal_reach(np.arange(18.0)))
    assert conformal_reach(np.arange(19.0)) == 18.0
    assert conformal_reach(np.arange(100.0)) == 95.0  # the 96th of 100
