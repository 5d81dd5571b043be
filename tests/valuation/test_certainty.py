"""Payments when values are noisy: who is paid, how far values shrink, and how sure the payments are."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.errors import DataError
from headwater.valuation.certainty import SURE, shrunk
from headwater.valuation.ledger import accounts
from headwater.valuation.prices import Terms, price
from headwater.valuation.values import Values

BUDGET = 1_000_000


def market(noise: float, rows: int = 2000, seed: int = 0) -> tuple[Values, np.ndarray]:
    """Values of rows of which a fifth truly helps, with their errors; and the true values."""
    dice = np.random.default_rng(seed)
    truth = np.where(dice.random(rows) < 0.2, dice.gamma(4.0, 1.0, rows), -0.05)
    error = np.full(rows, noise)
    value = truth + noise * dice.standard_normal(rows)
    columns = {"id": [f"r{i}" for i in range(rows)], "value": value, "low": value - SURE * error}
    columns |= {"high": value + SURE * error, "provider": [f"p{i % 7}" for i in range(rows)]}
    return Values(pa.table(columns)), truth


def to_the_good(values: Values, truth: np.ndarray, **terms: object) -> float:
    """The share of the budget that rows of a positive true value get."""
    cents = price(values, Terms(BUDGET, by="provider", **terms)).cents
    assert cents.sum() == BUDGET
    return cents[truth > 0].sum() / BUDGET


@pytest.mark.parametrize("seed", range(3))
def test_what_can_be_told_from_zero_is_paid_by_default_and_the_rest_was_noise(seed):
    values, truth = market(3.0, seed=seed)
    assert to_the_good(values, truth, only_certain=False) < 0.5  # most of it goes to noise
    assert to_the_good(values, truth) >= 0.9
    assert to_the_good(values, truth, shrink=True) >= 0.9


def test_values_shrink_to_the_posterior_mean_of_their_provider():
    dice = np.random.default_rng(1)
    means, spread, error = {"a": 2.0, "b": -1.0}, 0.5, dice.uniform(0.1, 2.0, 4000)
    owner = np.array(["a", "b"])[np.arange(4000) % 2]
    truth = np.array([means[name] for name in owner]) + spread * dice.standard_normal(4000)
    value = truth + error * dice.standard_normal(4000)
    found = shrunk(value, error, list(owner))
    centre = np.array([means[name] for name in owner])
    oracle = centre + (value - centre) * spread**2 / (spread**2 + error**2)
    assert np.sqrt(np.mean((found - oracle) ** 2)) < 0.05
    assert np.mean((found - truth) ** 2) < 0.5 * np.mean((value - truth) ** 2)
    np.testing.assert_array_equal(shrunk(value[:1], error[:1], ["a"]), value[:1])


def test_of_the_rows_that_can_be_told_from_zero_a_twentieth_is_noise():
    shares = []
    for seed in range(20):
        values, truth = market(1.5, seed=seed)
        sure = ~price(values, Terms(BUDGET)).uncertain
        shares.append((truth[sure] <= 0).mean())
        low = values.numbers("low") > 0
        assert not (sure & ~low).any()
    assert np.mean(shares) <= 0.05


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.sampled_from([None, False, True]), st.integers(1, 10**6))
def test_the_ledger_adds_up_under_every_option(seed, shrink, certain, budget):
    values, _ = market(0.5, rows=40, seed=seed)
    terms = Terms(budget, by="provider", only_certain=certain, shrink=shrink)
    try:
        priced = price(values, terms)
    except DataError:  # nothing of 40 rows can be told from zero
        return
    assert priced.cents.sum() == sum(line.cents for line in accounts(values, priced)) == budget
    assert not priced.cents[priced.worth == 0].any()


def test_how_often_other_labels_change_a_payment():
    """Against values drawn and priced by the whole rule, cents and all."""
    for noise in (0.1, 2.0):
        values, _ = market(noise, rows=150)
        said = price(values, Terms(BUDGET, by="provider")).changeable
        paid = {line.provider: line.cents for line in accounts(values, price(values, Terms(BUDGET, by="provider")))}
        dice, changed = np.random.default_rng(5), dict.fromkeys(paid, 0.0)
        for _ in range(40):
            shift = noise * dice.standard_normal(150)
            columns = {name: pa.array(values.numbers(name) + shift) for name in ("value", "low", "high")}
            table = values.table
            for name, column in columns.items():
                table = table.set_column(table.column_names.index(name), name, column)
            again = accounts(Values(table), price(Values(table), Terms(BUDGET, by="provider")))
            for line in again:
                changed[line.provider] += abs(line.cents - paid[line.provider]) > 0.1 * paid[line.provider]
        assert np.mean(list(said.values())) == pytest.approx(np.mean(list(changed.values())) / 40, abs=0.12)
    assert np.mean(list(said.values())) > 0.5


def test_without_intervals_all_are_paid_by_value_and_certainty_is_refused_when_asked_for():
    values, _ = market(1.0, rows=50)
    bare = Values(values.table.drop_columns(["low", "high"]))
    assert price(bare, Terms(BUDGET)).uncertain is None
    for asked in ({"only_certain": True}, {"shrink": True}):
        with pytest.raises(DataError, match="no intervals"):
            price(bare, Terms(BUDGET, **asked))
    hazy = Values(values.table.set_column(2, "low", pa.array(np.full(50, -100.0))))
    with pytest.raises(DataError, match="also-uncertain"):
        price(hazy, Terms(BUDGET))
    assert price(hazy, Terms(BUDGET, only_certain=False)).cents.sum() == BUDGET
