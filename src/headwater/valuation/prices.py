"""Divide a budget among rows in proportion to what they are worth, to the cent.

    weight of a row    max(value − reserve, 0)  [× characters]  / (its provider's rows in the cluster · its party's
                       providers there · the cluster's parties)
    price of a row     ∝ weight; all prices sum to the budget

A row whose value cannot be told from zero weighs nothing, unless the terms say otherwise or there are no intervals.

A cluster of near-duplicates is worth one row. Parties who bring the same row share its price equally, however many
copies each has, and a party's providers and their copies share the party's part. Providers of whose clusters four
fifths are the same are one party, so that nobody gains by offering the same rows under a second name. Cents are rounded
by largest remainders: first among clusters, then among a cluster's parties, their providers, and their rows. So neither
copying nor rounding moves money from one cluster to another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from functools import cached_property, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headwater.core.errors import DataError, UsageError
from headwater.valuation.certainty import DRAWS, SURE, certain, changeable, shrunk
from headwater.valuation.values import Values

Unit = Literal["row", "character"]
"""What a price is for: `row` pays a row by its value, `character` by its value times its length."""

_RESOLUTION = 2**50
"""Weights are rounded up to whole multiples of 2^-50 times the largest weight."""

SAME_PARTY = 0.8
"""Providers with so many of their clusters in common count as one party (Jaccard similarity)."""

NOBODY = "(everyone)"
"""The provider of all rows if no column names one."""


@dataclass(frozen=True)
class Terms:
    """The terms of a purchase.

    Attributes:
        budget: in the currency's cents; above 0.
        reserve: rows with a lower value are not bought.
        unit: what a price is for.
        by: the metadata column that names the provider; None: one provider.
        column: the column that holds the value.
        only_certain: rows whose value cannot be told from zero are not bought; None: so if there are intervals.
        shrink: values are drawn towards their provider's mean first, by how unsure they are.
    """

    budget: int
    reserve: float = 0.0
    unit: Unit = "row"
    by: str | None = None
    column: str = "value"
    only_certain: bool | None = None
    shrink: bool = False


@dataclass(frozen=True)
class Prices:
    """The price of every row.

    Attributes:
        terms: the terms of the purchase.
        cents: int64 `[rows]`; sums to the budget.
        worth: max(value − reserve, 0) [× characters], and 0 for a row that the terms leave out; float64 `[rows]`.
        providers: `[rows]`.
        clusters: int64 `[rows]`; near-duplicates share a number.
        uncertain: whether a value cannot be told from zero, as `certain` does; bool `[rows]`. None: no intervals.
        redraw: computes `changeable`; None: no intervals.
    """

    terms: Terms
    cents: NDArray[np.int64]
    worth: NDArray[np.float64]
    providers: tuple[str, ...]
    clusters: NDArray[np.int64]
    uncertain: NDArray[np.bool_] | None = None
    redraw: Callable[[], dict[str, float]] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def changeable(self) -> dict[str, float] | None:
        """The probability that other labels would change each provider's pay by more than a tenth.

        The rows' errors are taken to be independent. None if there are no intervals.
        """
        return None if self.redraw is None else self.redraw()

    @property
    def only_certain(self) -> bool:
        """Whether rows that cannot be told from zero are left unpaid."""
        return self.uncertain is not None if self.terms.only_certain is None else self.terms.only_certain

    @property
    def unsure(self) -> tuple[int, int] | None:
        """How many paid rows cannot be told from zero, and their cents; None if there are no intervals."""
        if self.uncertain is None:
            return None
        doubtful = self.uncertain & (self.cents > 0)
        return int(doubtful.sum()), int(self.cents[doubtful].sum())


def to_cents(text: str | int | float) -> int:
    """An amount of money in cents; raises `UsageError` unless it is above 0 and has at most two decimals."""
    try:
        cents = Decimal(str(text)) * 100
    except InvalidOperation:
        raise UsageError(f"'{text}' is not an amount", where="--budget", remedy="for example 2500 or 99.90") from None
    if not cents.is_finite() or cents <= 0:
        raise UsageError(f"cannot divide a budget of {text}", where="--budget", remedy="give more than 0")
    if cents != cents.to_integral_value():
        raise UsageError(f"a budget of {text} is not whole cents", where="--budget", remedy="give two decimals at most")
    if cents >= 2**53:
        raise UsageError(
            f"a budget of {text} is too large", where="--budget", remedy="give less than 90 million million"
        )
    return int(cents)


def money(cents: int) -> str:
    """Cents as an amount with two decimals: 123456 is `1234.56`."""
    return f"{cents // 100}.{cents % 100:02d}"


def price(values: Values, terms: Terms) -> Prices:
    """Divide the budget among the rows.

    Raises:
        UsageError: the budget is not above 0.
        DataError: no row is worth more than the reserve, a column is missing (the message lists the columns), or only
            certain rows are to be paid, or values shrunk, and there are no intervals, or none that lies above zero.
        NumericError: a value is not finite.
    """
    if not np.isfinite(terms.reserve):
        raise UsageError(f"a reserve of {terms.reserve}", where="--reserve", remedy="give a number")
    if terms.budget <= 0:
        what = f"cannot divide a budget of {money(terms.budget)}"
        raise UsageError(what, where="--budget", remedy="give more than 0")
    providers = values.groups(terms.by) if terms.by is not None else [NOBODY] * values.table.num_rows
    where = f"{values.path}, {terms.column}"
    numbers, errors = values.finite(terms.column), _errors(values, terms.column)
    if errors is None and (terms.only_certain or terms.shrink):
        what, option = "these values have no intervals", "--shrink" if terms.shrink else "--only-certain"
        raise DataError(f"{what}, so nothing says how sure they are", where=where, remedy=f"leave {option} out")
    length = values.finite("characters") if terms.unit == "character" else np.ones(len(numbers))
    if not (np.maximum(numbers - terms.reserve, 0.0) * length).any():
        what = f"no row is worth more than the reserve of {terms.reserve:g}"
        raise DataError(what, where=where, remedy="lower --reserve")
    rule = _Rule(terms, errors, length, tuple(providers))
    worth = rule.worth(numbers)
    if not worth.any():
        what = "no row can be told from zero and is worth more than the reserve"
        remedy = "value with more target rows or labels, or pay by value all the same: --also-uncertain"
        raise DataError(what, where=where, remedy=remedy)
    has_clusters = "cluster" in values.table.column_names
    clusters = values.numbers("cluster") if has_clusters else np.full(len(worth), np.nan)
    alone = -1 - np.arange(len(worth))
    known = np.where(np.isnan(clusters), alone, clusters).astype(np.int64)
    cents = shares(terms.budget, worth, providers, known)
    found = Prices(terms, cents, worth, tuple(providers), known)
    if errors is None:
        return found
    return replace(found, uncertain=~certain(numbers, errors), redraw=partial(rule.changeable, numbers, known))


@dataclass(frozen=True)
class _Rule:
    """What the terms make of values: errors and lengths are float64 `[rows]`."""

    terms: Terms
    errors: NDArray[np.float64] | None
    length: NDArray[np.float64]
    providers: tuple[str, ...]

    def worth(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """The worth of the rows that the terms buy, and 0 for the others."""
        value, errors, terms = numbers, self.errors, self.terms
        if errors is not None and terms.shrink:
            value = shrunk(numbers, errors, self.providers)
        worth = np.maximum(value - terms.reserve, 0.0) * self.length
        if errors is None or terms.only_certain is False:
            return worth
        return np.where(certain(numbers, errors), worth, 0.0)

    def changeable(self, numbers: NDArray[np.float64], clusters: NDArray[np.int64]) -> dict[str, float]:
        """The probability, over values redrawn within their errors, that a provider's pay changes by over a tenth."""
        split, generator = _divisors(self.providers, clusters), np.random.default_rng(0)
        errors = np.zeros(len(numbers)) if self.errors is None else self.errors

        def paid(values: NDArray[np.float64]) -> NDArray[np.float64]:
            worth = self.worth(values) / split
            return worth / worth.sum() if worth.any() else worth

        draws = [paid(numbers + errors * generator.standard_normal(len(numbers))) for _ in range(DRAWS)]
        return changeable(paid(numbers), draws, self.providers)


def _errors(values: Values, column: str) -> NDArray[np.float64] | None:
    """The standard error of each value, from its interval's lower end; None if the values have no intervals.

    A single missing interval counts as one that reaches down to zero.
    """
    low = "low" if column == "value" else column.replace("value_", "low_", 1)
    if low == column or low not in values.table.column_names:
        return None
    numbers, bounds = values.numbers(column), values.numbers(low)
    if np.isnan(bounds).all():
        return None
    return np.where(np.isnan(bounds), np.abs(numbers) + 1.0, np.maximum(numbers - bounds, 0.0)) / SURE


def _divisors(providers: Sequence[str], clusters: NDArray[np.int64]) -> NDArray[np.float64]:
    """What divides each row's worth: its provider's rows in the cluster, its party's providers, and the parties."""
    _, owner = np.unique(np.asarray(providers), return_inverse=True)
    _, cluster = np.unique(clusters, return_inverse=True)
    pairs, of_pair = _grouped(cluster, owner)
    teams, of_team = _grouped(pairs[0], parties(pairs[1], pairs[0])[pairs[1]])
    rows, members, groups = np.bincount(of_pair), np.bincount(of_team), np.bincount(teams[0])
    found: NDArray[np.float64] = (rows * members[of_team] * groups[teams[0]][of_team])[of_pair].astype(np.float64)
    return found


def shares(
    budget: int, worth: NDArray[np.float64], providers: Sequence[str], clusters: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The cents of every row, int64 `[rows]`, by the rule in the module's docstring."""
    _, owner = np.unique(np.asarray(providers), return_inverse=True)
    _, cluster = np.unique(clusters, return_inverse=True)
    pairs, of_pair = _grouped(cluster, owner)  # a provider's rows within a cluster
    teams, of_team = _grouped(pairs[0], parties(pairs[1], pairs[0])[pairs[1]])  # a party's providers within a cluster
    pair_worth = _means(worth, of_pair)
    team_worth = _means(pair_worth, of_team)
    cluster_worth = _means(team_worth, teams[0])
    cluster_cents = apportion(np.array([budget]), cluster_worth, np.zeros(len(cluster_worth), dtype=np.int64))
    team_cents = apportion(cluster_cents, team_worth, teams[0])
    pair_cents = apportion(team_cents, pair_worth, of_team)
    return apportion(pair_cents, worth, of_pair)


def parties(owner: NDArray[np.int64], cluster: NDArray[np.int64]) -> NDArray[np.int64]:
    """The party of each provider: providers who hold mostly the same clusters are one (Jaccard ≥ `SAME_PARTY`).

    Args:
        owner, cluster: each pair of a provider and a cluster that it holds, once; numbered from 0.
    """
    from scipy.sparse import coo_array, triu
    from scipy.sparse.csgraph import connected_components

    held = np.bincount(owner)
    holds = coo_array((np.ones(len(owner), dtype=np.int64), (owner, cluster))).tocsr()
    both = coo_array(triu(holds @ holds.T, k=1))
    left, right = both.coords
    same = both.data >= SAME_PARTY * (held[left] + held[right] - both.data)
    links = coo_array((np.ones(same.sum()), (left[same], right[same])), shape=(len(held), len(held)))
    found: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return found


def _grouped(group: NDArray[np.int64], member: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different pairs (group, member), `[2, pairs]`, and which of them each position has."""
    pairs, place = np.unique(np.stack([group, member]), axis=1, return_inverse=True)
    return pairs, place.reshape(-1)


def _means(values: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each group's mean; the mean of equal values is that value to the last bit, so that copies cannot decide a tie."""
    lowest, highest = np.full(group.max() + 1, np.inf), np.zeros(group.max() + 1)
    np.minimum.at(lowest, group, values)
    np.maximum.at(highest, group, values)
    means: NDArray[np.float64] = np.clip(np.bincount(group, values) / np.bincount(group), lowest, highest)
    return means


def apportion(totals: NDArray[np.int64], weights: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide each group's total among its members in proportion to weight, in whole units, by largest remainders.

    A member with weight 0 gets 0, and of two members the heavier never gets less. Between equal members the earlier
    gets the last unit.

    Args:
        totals: units of each group; 0 for a group without weight.
        weights: of the members, ≥ 0.
        group: the group of each member.
    """
    heaviest = np.zeros(len(totals))
    np.maximum.at(heaviest, group, weights)
    scaled = np.divide(weights, heaviest[group], out=np.zeros_like(weights), where=heaviest[group] > 0)
    # Python's integers are exact. Rounding could lift a share above a whole unit, and the sum above the total.
    units = np.ceil(scaled * _RESOLUTION).astype(np.int64).astype(object)
    sums = np.zeros(len(totals), dtype=object)
    np.add.at(sums, group, units)
    divisors, due = np.maximum(sums[group], 1), totals.astype(object)[group] * units
    whole: NDArray[np.int64] = (due // divisors).astype(np.int64)
    remainder = (due % divisors / divisors).astype(np.float64)
    left = totals - np.bincount(group, whole, minlength=len(totals)).astype(np.int64)
    order = np.lexsort((-scaled, -remainder, scaled == 0, group))
    starts = np.searchsorted(group[order], np.arange(len(totals)))
    place = np.arange(len(order)) - starts[group[order]]
    whole[order] += place < left[group[order]]
    return whole
