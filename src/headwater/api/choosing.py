"""Choose rows by their value, and divide a budget among them and their providers.

hw.select("values.parquet", top="10%", out="chosen.jsonl")
hw.price("values.parquet", 2500, by="provider", out="ledger.csv")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.api.sources import AnyValues, Rows, corpus_of
from headwater.api.sources import values_of as read
from headwater.core.errors import DataError, UsageError
from headwater.core.files import require_apart
from headwater.core.tables import Tabular
from headwater.data.corpus import Corpus
from headwater.valuation.chosen import kind_of, records_of, texts_of, with_value, write_records
from headwater.valuation.diverse import SPARE
from headwater.valuation.diverse import diverse as spread_out
from headwater.valuation.ledger import ProviderAccount, accounts, write_ledger, write_row_prices
from headwater.valuation.prices import Prices, Terms, money, to_cents
from headwater.valuation.prices import price as price_rows
from headwater.valuation.selection import Choice, amount
from headwater.valuation.selection import select as choose


@dataclass(frozen=True)
class Selection(Tabular):
    """Chosen rows, best first.

    Attributes:
        ids: the rows' ids.
        rows: the rows as they were in the pool, each a dictionary of its columns.
        values: the rows' values.
        pool: the values of all rows of the pool.
        path: the file that the rows were written to, if any.
    """

    ids: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    values: NDArray[np.float64]
    pool: NDArray[np.float64]
    path: Path | None = None

    def records(self) -> list[dict[str, Any]]:
        """The rows as they were, each with its `value`; a row's own column of that name is `value_`."""
        return [with_value(row, float(value)) for row, value in zip(self.rows, self.values, strict=True)]


def select(
    values: AnyValues,
    *,
    top: str | int = "",
    above: float | None = None,
    by: str | None = None,
    gumbel: float = 0.0,
    distinct: bool = False,
    diverse: bool = False,
    column: str = "value",
    seed: int = 0,
    candidates: Rows | None = None,
    columns: Mapping[str, str] | None = None,
    out: str | Path | None = None,
) -> Selection:
    """Choose rows by their value.

    Args:
        values: a values file, or the result of `value`.
        top: how many rows: 500, or "10%" of the pool.
        above: take only rows with a greater value.
        by: metadata column; `top` then counts within each group.
        gumbel: standard deviation of Gumbel noise that is added to the ranking, in standard deviations of the values;
            0 adds none.
        distinct: take one row of each near-duplicate cluster.
        diverse: of five times as many of the best rows, those that together say most of what is valuable.
        column: the column that holds the value.
        seed: of the noise.
        candidates: the pool the values are of; None takes the place that the values file names.
        columns: role to column; None uses the mapping with which the pool was valued.
        out: JSONL (also .gz), CSV or Parquet file to write the rows to, as they were.

    Raises:
        DataError: no row is left to choose, a column is missing, or a row is not in the pool.
        UsageError: `top` is not a number of rows or a share, the file has another ending, or `diverse` without `top`
            or with groups.
    """
    if out is not None:
        kind_of(Path(out))
    valued = read(values)
    choice = Choice(top=str(top), above=above, by=by, gumbel=gumbel, distinct=distinct, column=column, seed=seed)
    if diverse and (not choice.top or by is not None):
        raise UsageError("diverse rows need --top, and no groups", where="--diverse", remedy="give --top, without --by")
    count = 0
    if diverse:
        count = amount(choice.top, len(valued.ids))
        choice = replace(choice, top=str(SPARE * count))
    chosen = choose(valued, choice)
    named = valued.about.get("columns") if columns is None else columns
    place = valued.about.get("candidates", "")
    source = place if candidates is None else candidates
    held = "memory" if place == "memory" else "an index" if "index" in valued.about.get("notes", {}) else None
    if candidates is None and held:
        what = f"the values are of rows in {held}, which cannot be read again"
        raise UsageError(what, where="candidates", remedy="give the rows, as --candidates or candidates=")
    require_apart({"out": out}, [*(source if isinstance(source, list | tuple) else [source]), valued.path])
    if isinstance(source, Corpus):
        pool = source
    else:
        split = valued.about.get("split") if candidates is None else None
        pool = corpus_of(source, columns=named, split=split)
    about, numbers = valued.about, valued.numbers(column)
    if diverse:
        texts = texts_of(pool.like(about), [valued.ids[i] for i in chosen], rows=about.get("rows"))
        chosen = chosen[spread_out(numbers[chosen], texts, count)]
    ids = [valued.ids[i] for i in chosen]
    records = records_of(pool.like(about), ids, rows=about.get("rows"), digest=about.get("pool", ""))
    path = None if out is None else write_records(out, records)
    return Selection(tuple(ids), tuple(records), numbers[chosen], numbers, path)


@dataclass(frozen=True)
class Purchase(Tabular):
    """A budget that is divided among rows and their providers.

    Attributes:
        prices: the price of every row.
        accounts: one line a provider.
        warnings: the reasons to doubt the values that are paid by, each a sentence.
    """

    prices: Prices
    accounts: tuple[ProviderAccount, ...]
    warnings: tuple[str, ...] = ()

    def records(self) -> list[dict[str, Any]]:
        """One record a provider; its amount is in the currency's units."""
        names = ("provider", "rows", "paid_rows", "clusters", "worth", "amount")
        return [
            dict(zip(names, (a.provider, a.rows, a.paid, a.clusters, a.worth, float(money(a.cents))), strict=True))
            for a in self.accounts
        ]


def price(
    values: AnyValues,
    budget: str | int | float,
    *,
    by: str | None = None,
    reserve: float = 0.0,
    unit: str = "row",
    column: str = "value",
    only_certain: bool | None = None,
    shrink: bool = False,
    currency: str = "",
    out: str | Path | None = None,
    rows: str | Path | None = None,
    html: str | Path | None = None,
    force: bool = False,
) -> Purchase:
    """Divide a budget among rows and their providers in proportion to value, to the cent.

    Args:
        values: a values file, or the result of `value`.
        budget: the amount to pay in all.
        by: metadata column that names the provider.
        reserve: rows with a lower value are not bought.
        unit: `row` pays a row by its value, `character` by its value times its length.
        column: the column that holds the value.
        only_certain: do not buy rows whose value cannot be told from zero: whose 95 % interval reaches down to it.
            None: so if the values have intervals.
        shrink: draw values towards their provider's mean first, by how unsure they are (empirical Bayes).
        currency: shown beside amounts.
        out: ledger to write: CSV, one line a provider.
        rows: CSV file to write, one line a row.
        html: readable statement to write.
        force: pay by values that `value` found unfit: those of a model that has trained on the rows, or of a weak
            student.

    Raises:
        UsageError: an unknown unit, or a budget that is not an amount above 0 with at most two decimals.
        DataError: the values are unfit, no row is worth more than the reserve, a column is missing, or no row is
            certain.
        NumericError: a value is not finite.
    """
    if unit not in ("row", "character"):
        raise UsageError(f"unknown unit '{unit}'", where="--unit", remedy="row or character")
    terms = Terms(to_cents(budget), reserve, unit, by, column, only_certain, shrink)  # type: ignore[arg-type]
    valued = read(values)
    require_apart({"out": out, "rows": rows, "html": html}, [valued.path])
    if valued.unfit and not force:
        remedy = "value the rows with the model as it was before, or with a better student; --force pays all the same"
        raise DataError(f"not for prices: {valued.unfit[0]}", where=valued.path, remedy=remedy)
    priced = price_rows(valued, terms)
    lines = accounts(valued, priced)
    if out is not None:
        write_ledger(out, lines, terms.budget)
    if rows is not None:
        write_row_prices(rows, valued, priced)
    if html is not None:
        from headwater.report.statement import write_statement

        write_statement(html, valued, priced, lines, currency=currency)
    return Purchase(priced, tuple(lines), valued.warnings)
