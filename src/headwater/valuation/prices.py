"""Prices: a budget shared out among rows by what they are worth, to the cent.

    weight of a row    max(value − reserve, 0)  [× characters]  / (its provider's rows in the cluster · the cluster's
                       providers)
    pay of a row       ∝ weight, budget in all

Near-duplicates (a cluster) are worth one row together: a provider's copies share what one would get, and so do
providers who bring the same row, each counted once however many copies it has. Cents go by largest remainders, first
to clusters, then to a cluster's providers, then to their rows, so that neither copying nor rounding moves money from
one cluster to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headwater.core.errors import DataError, UsageError
from headwater.valuation.values import Values

Unit = Literal["row", "character"]
"""What is bought: `row` pays a row by its value, `character` by its value times its length."""

_RESOLUTION = 2**50
"""Weights are read as whole multiples of the heaviest one's 2^-50."""

NOBODY = "(everyone)"
"""The provider of all rows where no column names one."""


@dataclass(frozen=True)
class Terms:
    """What is offered.

    Attributes:
        budget: in the currency's cents; above 0.
        reserve: value below which a row is not bought.
        unit: what is bought.
        by: the metadata column that names the provider; None: one provider.
        column: which column is the value.
    """

    budget: int
    reserve: float = 0.0
    unit: Unit = "row"
    by: str | None = None
    column: str = "value"


@dataclass(frozen=True)
class Prices:
    """What every row is paid.

    Attributes:
        terms: what was offered.
        cents: int64 `[rows]`; sums to the budget.
        worth: the value as weighed, max(value − reserve, 0) [× characters]; float64 `[rows]`.
        providers: `[rows]`.
        clusters: int64 `[rows]`, near-duplicates share a number.
    """

    terms: Terms
    cents: NDArray[np.int64]
    worth: NDArray[np.float64]
    providers: tuple[str, ...]
    clusters: NDArray[np.int64]


def to_cents(text: str | int | float) -> int:
    """An amount of money as cents; raises `UsageError` unless it is above 0 with at most two decimals."""
    try:
        cents = Decimal(str(text)) * 100
    except InvalidOperation:
        raise UsageError(f"'{text}' is no amount", where="--budget", remedy="for example 2500 or 99.90") from None
    if not cents.is_finite() or cents <= 0:
        raise UsageError(f"a budget of {text}", where="--budget", remedy="give more than 0")
    if cents != cents.to_integral_value():
        raise UsageError(f"a budget of {text} is not whole cents", where="--budget", remedy="give two decimals at most")
    return int(cents)


def money(cents: int) -> str:
    """Cents as an amount with two decimals: 123456 is `1234.56`."""
    return f"{cents // 100}.{cents % 100:02d}"


def price(values: Values, terms: Terms) -> Prices:
    """The budget shared out among the rows.

    Raises:
        UsageError: a budget of nothing.
        DataError: no row is worth more than the reserve; a column that is missing (lists those there are).
        NumericError: a value that is not finite.
    """
    if terms.budget <= 0:
        raise UsageError(f"a budget of {money(terms.budget)}", where="--budget", remedy="give more than 0")
    providers = values.groups(terms.by) if terms.by is not None else [NOBODY] * values.table.num_rows
    worth = np.maximum(values.finite(terms.column) - terms.reserve, 0.0)
    if terms.unit == "character":
        worth = worth * values.finite("characters")
    if not worth.any():
        what = f"no row is worth more than the reserve of {terms.reserve:g}"
        raise DataError(what, where=f"{values.path}, {terms.column}", remedy="lower --reserve")
    has_clusters = "cluster" in values.table.column_names
    clusters = values.numbers("cluster") if has_clusters else np.full(len(worth), np.nan)
    alone = -1 - np.arange(len(worth))
    known = np.where(np.isnan(clusters), alone, clusters).astype(np.int64)
    return Prices(terms, shares(terms.budget, worth, providers, known), worth, tuple(providers), known)


def shares(
    budget: int, worth: NDArray[np.float64], providers: Sequence[str], clusters: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Cents of every row; see the module's rule."""
    _, owner = np.unique(np.asarray(providers), return_inverse=True)
    _, cluster = np.unique(clusters, return_inverse=True)
    pairs, of_pair = np.unique(np.stack([cluster, owner]), axis=1, return_inverse=True)
    of_pair = of_pair.reshape(-1)
    pair_worth = _means(worth, of_pair)  # a provider's mean within a cluster
    cluster_worth = _means(pair_worth, pairs[0])  # the mean over its providers
    cluster_cents = apportion(np.array([budget]), cluster_worth, np.zeros(len(cluster_worth), dtype=np.int64))
    pair_cents = apportion(cluster_cents, pair_worth, pairs[0])
    return apportion(pair_cents, worth, of_pair)


def _means(values: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each group's mean; of equal values it is that value to the last bit, so that copies cannot tip a tie."""
    lowest, highest = np.full(group.max() + 1, np.inf), np.zeros(group.max() + 1)
    np.minimum.at(lowest, group, values)
    np.maximum.at(highest, group, values)
    means: NDArray[np.float64] = np.clip(np.bincount(group, values) / np.bincount(group), lowest, highest)
    return means


def apportion(totals: NDArray[np.int64], weights: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each group's whole total shared among its members by weight, the last units to the largest remainders.

    A weight of 0 gets 0; of two members the heavier never gets less; equals are served in order.

    Args:
        totals: units of each group; a group without weight must have none.
        weights: of the members, ≥ 0.
        group: which group each member is of.
    """
    heaviest = np.zeros(len(totals))
    np.maximum.at(heaviest, group, weights)
    scaled = np.divide(weights, heaviest[group], out=np.zeros_like(weights), where=heaviest[group] > 0)
    # Python's integers: a share that rounding lifted over a whole unit would be paid from nowhere.
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
