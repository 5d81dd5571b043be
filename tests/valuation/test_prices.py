"""The axioms of pricing, for any values, providers and clusters."""

from __future__ import annotations

import csv
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headwater.core.errors import DataError, NumericError, UsageError
from headwater.valuation.ledger import accounts, write_ledger, write_row_prices
from headwater.valuation.prices import Terms, apportion, money, price, shares, to_cents
from headwater.valuation.values import Values

worths = st.lists(st.floats(0, 1e6).map(lambda x: x if x > 1e-9 else 0.0), min_size=1, max_size=20).filter(any)
budgets = st.integers(1, 10**9)


@st.composite
def pools(draw):
    worth = np.array(draw(worths))
    size = len(worth)
    providers = draw(st.lists(st.sampled_from("abc"), min_size=size, max_size=size))
    clusters = np.array(draw(st.lists(st.integers(0, size), min_size=size, max_size=size)), dtype=np.int64)
    return draw(budgets), worth, providers, clusters


def table(**columns) -> Values:
    size = len(columns["value"])
    return Values(pa.table({"id": [f"r{i}" for i in range(size)], **columns}))


@given(pools())
@settings(max_examples=300, deadline=None)
def test_the_budget_is_spent_to_the_cent_and_nothing_is_paid_for_nothing(pool):
    budget, worth, providers, clusters = pool
    cents = shares(budget, worth, providers, clusters)
    assert cents.sum() == budget
    assert (cents >= 0).all()
    assert (cents[worth == 0] == 0).all()


@given(worths, budgets)
@settings(max_examples=200, deadline=None)
def test_a_better_row_is_never_paid_less(worth, budget):
    worth = np.array(worth)
    cents = shares(budget, worth, ["a"] * len(worth), np.arange(len(worth)))
    better = worth[:, None] > worth
    assert (cents[:, None] >= cents)[better].all()


@given(pools(), st.integers(0, 19), st.floats(1.01, 10))
@settings(max_examples=200, deadline=None)
def test_a_row_that_gets_better_is_not_paid_less(pool, place, factor):
    budget, worth, providers, _ = pool
    place %= len(worth)
    better = worth.copy()
    better[place] *= factor
    alone = np.arange(len(worth))
    before, after = (shares(budget, w, providers, alone)[place] for w in (worth, better))
    assert after >= before


@given(pools(), st.integers(0, 19), st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_copying_a_row_gains_its_provider_nothing(pool, place, copies):
    budget, worth, providers, clusters = pool
    place %= len(worth)
    # The row and its copies have one value, and the row stood alone or beside equals before.
    assume((worth[(clusters == clusters[place])] == worth[place]).all())
    before = shares(budget, worth, providers, clusters)
    more = [np.append(a, [a[place]] * copies) for a in (worth, clusters)]
    after = shares(budget, more[0], [*providers, *[providers[place]] * copies], more[1])
    for name in "abc":
        earned = [sum(c for c, p in zip(cents, [*providers, *[providers[place]] * copies], strict=False) if p == name)
                  for cents in (before, after)]  # fmt: skip
        assert earned[0] == earned[1]


@given(pools())
@settings(max_examples=100, deadline=None)
def test_a_provider_gets_what_its_rows_get(pool):
    budget, worth, providers, clusters = pool
    values = table(value=worth, provider=providers, cluster=clusters)
    priced = price(values, Terms(budget, by="provider"))
    lines = accounts(values, priced)
    assert sum(line.cents for line in lines) == budget
    for line in lines:
        own = [int(c) for c, p in zip(priced.cents, providers, strict=True) if p == line.provider]
        assert (line.cents, line.rows) == (sum(own), len(own))


@given(st.lists(st.tuples(st.floats(0.001, 100), st.integers(2, 500)), min_size=1, max_size=10), budgets)
@settings(max_examples=100, deadline=None)
def test_splitting_a_row_gains_nothing_where_characters_are_bought(rows, budget):
    value = [v for v, _ in rows]
    length = [n for _, n in rows]
    providers = [f"p{i}" for i in range(len(rows))]
    whole = price(
        table(value=value, characters=length, provider=providers), Terms(budget, unit="character", by="provider")
    )
    halves = table(
        value=[*value, value[0]],
        characters=[length[0] // 2, *length[1:], length[0] - length[0] // 2],
        provider=[*providers, providers[0]],
    )
    split = price(halves, Terms(budget, unit="character", by="provider"))
    assert abs(int(split.cents[0] + split.cents[-1]) - int(whole.cents[0])) <= 2  # cents of rounding


def test_two_who_bring_the_same_row_share_it_however_often_each_does():
    values = table(value=[4.0, 4, 4, 4, 4], provider=["a", "b", "b", "b", "c"], cluster=[0, 0, 0, 0, 4])
    priced = price(values, Terms(1200, by="provider"))
    assert {a.provider: a.cents for a in accounts(values, priced)} == {"a": 300, "b": 300, "c": 600}


@given(pools())
@settings(max_examples=200, deadline=None)
def test_the_same_rows_under_a_second_name_gain_nothing(pool):
    """All rows of provider a are offered again by `aa`; that a is alike to nobody else is assumed."""
    budget, worth, providers, clusters = pool
    held = {name: {c for c, p in zip(clusters, providers, strict=True) if p == name} for name in set(providers)}
    own = held.pop("a", set())
    assume(own and all(len(own & of) < 0.8 * len(own | of) for of in held.values()))
    again = [i for i, name in enumerate(providers) if name == "a"]
    before = shares(budget, worth, providers, clusters)
    after = shares(budget, np.append(worth, worth[again]), [*providers, *["aa"] * len(again)],
                   np.append(clusters, clusters[again]))  # fmt: skip
    for name in ("a", "b", "c"):
        names = {"a", "aa"} if name == "a" else {name}
        paid = [sum(c for c, p in zip(cents, [*providers, *["aa"] * len(again)], strict=False) if p in names)
                for cents in (before, after)]  # fmt: skip
        assert paid[0] == paid[1]


def test_a_second_name_for_most_rows_is_one_party_and_two_sellers_are_two():
    shared = {"value": [1.0] * 3, "provider": ["a", "b", "aa"], "cluster": [0, 0, 0]}
    rest = {"value": [1.0] * 9, "provider": ["a"] * 4 + ["aa"] * 4 + ["b"], "cluster": [1, 2, 3, 4, 1, 2, 3, 4, 5]}
    values = table(**{name: shared[name] + rest[name] for name in shared})
    paid = {a.provider: a.cents for a in accounts(values, price(values, Terms(6000, by="provider")))}
    assert paid == {"a": 2250, "aa": 2250, "b": 1500}  # b: half of the shared row and all of its own


def test_largest_remainders_by_hand():
    assert apportion(np.array([10]), np.array([1.0, 1, 1]), np.zeros(3, np.int64)).tolist() == [4, 3, 3]
    assert apportion(np.array([3]), np.array([5.0, 0, 4, 1]), np.zeros(4, np.int64)).tolist() == [2, 0, 1, 0]


def test_the_reserve_is_taken_off():
    priced = price(table(value=[3.0, 2.0, 0.5]), Terms(900, reserve=1.0))
    assert priced.cents.tolist() == [600, 300, 0]


def test_bad_terms_are_refused():
    values = table(value=[1.0, 2.0], provider=["a", "b"])
    for amount in ("0", "-5", "1.999", "much", "nan", "inf"):
        with pytest.raises(UsageError):
            to_cents(amount)
    assert to_cents("99.90") == 9990
    assert money(9990) == "99.90"
    with pytest.raises(DataError, match="columns: id, value, provider"):
        price(values, Terms(100, by="vendor"))
    with pytest.raises(DataError, match="reserve"):
        price(values, Terms(100, reserve=2.0))
    with pytest.raises(NumericError, match="r1"):
        price(table(value=[1.0, float("nan")]), Terms(100))


def test_the_ledger_sums_up_and_is_no_formula(tmp_path):
    values = table(value=[3.0, 2.0, 1.0], provider=["=cmd()", "b", "b"])
    priced = price(values, Terms(to_cents("100.01"), by="provider"))
    write_ledger(tmp_path / "ledger.csv", accounts(values, priced), priced.terms.budget)
    lines = list(csv.DictReader((tmp_path / "ledger.csv").open(encoding="utf-8")))
    assert {line["provider"] for line in lines} == {"'=cmd()", "b", "TOTAL"}
    assert sum(Decimal(line["amount"]) for line in lines[:-1]) == Decimal(lines[-1]["amount"]) == Decimal("100.01")
    write_row_prices(tmp_path / "rows.csv", values, priced)
    rows = list(csv.DictReader((tmp_path / "rows.csv").open(encoding="utf-8")))
    assert sum(Decimal(row["amount"]) for row in rows) == Decimal("100.01")


def uncertain_values() -> Values:
    """Eight rows; the intervals of the first five lie above zero, those of the others reach it."""
    value = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 4.0, 3.0, -1.0])
    low = value - np.array([1.0, 1.0, 1.0, 1.0, 0.5, 4.0, 5.0, 1.0])
    columns = {"id": [f"r{i}" for i in range(8)], "value": value, "low": low, "high": 2 * value - low}
    columns |= {"provider": list("aabbcccc"), "cluster": [0, 1, 2, 3, 4, 4, 5, 6], "characters": [10] * 8}
    return Values(pa.table(columns), path="v.parquet")


@pytest.mark.parametrize("unit", ["row", "character"])
@pytest.mark.parametrize("reserve", [0.0, 1.5])
def test_only_rows_that_can_be_told_from_zero_are_paid_and_the_ledger_adds_up(unit, reserve):
    values = uncertain_values()
    terms = Terms(10_001, reserve, unit, "provider", only_certain=True)
    priced, all_rows = price(values, terms), price(values, Terms(10_001, reserve, unit, "provider", only_certain=False))
    certain = values.numbers("low") > 0
    assert (priced.cents > 0).tolist() == (certain & (values.numbers() > reserve)).tolist()
    assert priced.cents.sum() == sum(line.cents for line in accounts(values, priced)) == 10_001
    assert priced.unsure == (0, 0)
    paid = all_rows.cents > 0
    assert all_rows.unsure == (int((paid & ~certain).sum()), int(all_rows.cents[paid & ~certain].sum()))
    assert all_rows.unsure[0] == 2


def test_without_intervals_or_certain_rows_no_row_is_certain():
    values = uncertain_values()
    bare = Values(values.table.drop_columns(["low", "high"]), path="bare.parquet")
    assert price(bare, Terms(100)).unsure is None
    with pytest.raises(DataError, match="leave --only-certain out"):
        price(bare, Terms(100, only_certain=True))
    doubtful = Values(values.table.slice(5), path="doubtful.parquet")
    with pytest.raises(DataError, match="no row can be told from zero"):
        price(doubtful, Terms(100, only_certain=True))
