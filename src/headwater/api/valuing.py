"""Estimate what candidate rows are worth for a target, choose among them, and divide a budget among their providers.

valued = hw.value("pool.jsonl", "task.jsonl", model="my-model", out="values.parquet")
hw.select(valued, top="10%", out="chosen.jsonl"); hw.price(valued, 2500, by="provider", out="ledger.csv")
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.api.sources import (
    AnyIndex,
    AnyValues,
    Model,
    Rows,
    corpus_of,
    model_of,
    reader_for,
    session_of,
    target_of,
    targets_of,
)
from headwater.api.sources import values_of as read
from headwater.core.errors import UsageError
from headwater.core.files import require_apart
from headwater.core.tables import Tabular
from headwater.data.corpus import Corpus
from headwater.data.inspection import require_usable
from headwater.data.tokens import MAX_TOKENS
from headwater.methods.catalog import find_method, vector_method
from headwater.models.reader import TOKENS_PER_BATCH, Reader
from headwater.valuation.chosen import kind_of, records_of, with_value, write_records
from headwater.valuation.duplicates import THRESHOLD
from headwater.valuation.ledger import ProviderAccount, accounts, write_ledger, write_row_prices
from headwater.valuation.prices import Prices, Terms, money, to_cents
from headwater.valuation.prices import price as price_rows
from headwater.valuation.selection import Choice
from headwater.valuation.selection import select as choose
from headwater.valuing import third_party
from headwater.valuing.index import value_index as value_rows_of_index
from headwater.valuing.third_party import Audit, QueryFile, read_query
from headwater.valuing.value import OnStage, Valued, ValueOptions, value_pool
from headwater.valuing.value import value_with_student as value_pool_with_student


def value(
    candidates: Rows,
    target: Rows,
    *,
    model: Model | None = None,
    method: str = "linfik",
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    loading: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    template: str | None = None,
    max_tokens: int = MAX_TOKENS,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    targets: str | None = None,
    duplicates: float | None = THRESHOLD,
    student: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    on_progress: OnStage | None = None,
) -> Valued:
    """Estimate the value of every candidate row for the target, with an interval.

    The method decides unit and sign of a value; `values.meaning` of the result states them.

    Args:
        candidates: the pool; `open_corpus(..., skip_unusable=True)` leaves out rows that cannot be used.
        target: rows of the task you want data for; give several targets as a list, or as a dictionary with names.
        model: the model as it is before the purchase; None for methods that read none.
        method: any name from `headwater methods`.
        settings: the method's options; `preset` names a starting point.
        out: Parquet file to write; None keeps the values in memory.
        loading: options of `load_model`, for a model given by name.
        columns: role to column, for candidates whose columns have other names than the roles.
        template: how prompt and response become one text; None uses the tokenizer's own.
        max_tokens: a longer row is cut at its end.
        tokens_per_batch: padded tokens in one forward pass.
        targets: what a candidate's loss is over, as in `headwater.build`.
        duplicates: similarity from which rows are near-duplicates; None and 0 do not look for them.
        student: folder to save a student in, for methods that train one; None saves it beside `out`.
        resume: continue an unfinished run.
        force: write values although the student that made them hardly ranks rows as its teacher does.
        on_progress: called with the name of the current step, rows done, and rows in all.

    Raises:
        DataError: an empty pool or target, or a student that is too weak.
        StoreError: `out` exists already, or it has an unfinished run and `resume` is not set.
    """
    chosen, wanted, pool = find_method(method, settings), targets_of(target), corpus_of(candidates, columns=columns)
    reader = None
    if model is not None:
        how: dict[str, Any] = {"template": template, "max_tokens": max_tokens, "tokens_per_batch": tokens_per_batch}
        reader, pool = reader_for(pool, model, loading, method=chosen, targets=targets, **how)
    else:
        pool = require_usable(pool)
    options = ValueOptions(duplicates, None if student is None else Path(student), resume, on_progress, force)
    if out is not None:
        return value_pool(pool, wanted, out, method=chosen, reader=reader, options=options)
    with tempfile.TemporaryDirectory(prefix="headwater-value-") as folder:
        file = Path(folder) / "values.parquet"
        return value_pool(pool, wanted, file, method=chosen, reader=reader, options=options)


def value_index(
    index: AnyIndex,
    target: Rows,
    *,
    out: str | Path,
    duplicates: float | None = THRESHOLD,
    resume: bool = False,
    on_progress: OnStage | None = None,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
) -> Valued:
    """Estimate the values of all rows of an index from its own vectors, in one exact scan.

    Other arguments as in `value`.

    Args:
        index: the index, or an open session.
    """
    options = ValueOptions(duplicates=duplicates, resume=resume, on_progress=on_progress)
    return value_rows_of_index(session_of(index, model, loading), targets_of(target), out, options=options)


def value_with_student(
    candidates: Rows,
    student: str | Path,
    *,
    out: str | Path,
    columns: Mapping[str, str] | None = None,
    duplicates: float | None = THRESHOLD,
    resume: bool = False,
    force: bool = False,
    on_progress: OnStage | None = None,
) -> Valued:
    """Estimate values with a saved student, without language model and target; arguments as in `value`."""
    options = ValueOptions(duplicates=duplicates, resume=resume, on_progress=on_progress, force=force)
    return value_pool_with_student(corpus_of(candidates, columns=columns), student, out, options=options)


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
        column: the column that holds the value.
        seed: of the noise.
        candidates: the pool the values are of; None takes the place that the values file names.
        columns: role to column; None uses the mapping with which the pool was valued.
        out: JSONL (also .gz), CSV or Parquet file to write the rows to, as they were.

    Raises:
        DataError: no row is left to choose, a column is missing, or a row is not in the pool.
        UsageError: `top` is not a number of rows or a share, or the file has another ending.
    """
    if out is not None:
        kind_of(Path(out))
    valued = read(values)
    choice = Choice(top=str(top), above=above, by=by, gumbel=gumbel, distinct=distinct, column=column, seed=seed)
    chosen = choose(valued, choice)
    named = valued.about.get("columns") if columns is None else columns
    source = valued.about.get("candidates", "") if candidates is None else candidates
    held = "memory" if source == "memory" else "an index" if "index" in valued.about.get("notes", {}) else None
    if candidates is None and held:
        what = f"the values are of rows in {held}, which cannot be read again"
        raise UsageError(what, where="candidates", remedy="give the rows, as --candidates or candidates=")
    require_apart({"out": out}, [*(source if isinstance(source, list | tuple) else [source]), valued.path])
    if isinstance(source, Corpus):
        pool = source
    else:
        split = valued.about.get("split") if candidates is None else None
        pool = corpus_of(source, columns=named, split=split)
    ids = [valued.ids[i] for i in chosen]
    about = valued.about
    records = records_of(pool.like(about), ids, rows=about.get("rows"), digest=about.get("pool", ""))
    numbers = valued.numbers(column)
    path = None if out is None else write_records(out, records)
    return Selection(tuple(ids), tuple(records), numbers[chosen], numbers, path)


@dataclass(frozen=True)
class Purchase(Tabular):
    """A budget that is divided among rows and their providers.

    Attributes:
        prices: the price of every row.
        accounts: one line a provider.
    """

    prices: Prices
    accounts: tuple[ProviderAccount, ...]

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
    currency: str = "",
    out: str | Path | None = None,
    rows: str | Path | None = None,
    html: str | Path | None = None,
) -> Purchase:
    """Divide a budget among rows and their providers in proportion to value, to the cent.

    Args:
        values: a values file, or the result of `value`.
        budget: the amount to pay in all.
        by: metadata column that names the provider.
        reserve: rows with a lower value are not bought.
        unit: `row` pays a row by its value, `character` by its value times its length.
        column: the column that holds the value.
        currency: shown beside amounts.
        out: ledger to write: CSV, one line a provider.
        rows: CSV file to write, one line a row.
        html: readable statement to write.

    Raises:
        UsageError: an unknown unit, or a budget that is not an amount above 0 with at most two decimals.
        DataError: no row is worth more than the reserve, or a column is missing.
        NumericError: a value is not finite.
    """
    if unit not in ("row", "character"):
        raise UsageError(f"unknown unit '{unit}'", where="--unit", remedy="row or character")
    terms = Terms(to_cents(budget), reserve, unit, by, column)  # type: ignore[arg-type]
    valued = read(values)
    require_apart({"out": out, "rows": rows, "html": html}, [valued.path])
    priced = price_rows(valued, terms)
    lines = accounts(valued, priced)
    if out is not None:
        write_ledger(out, lines, terms.budget)
    if rows is not None:
        write_row_prices(rows, valued, priced)
    if html is not None:
        from headwater.report.statement import write_statement

        write_statement(html, valued, priced, lines, currency=currency)
    return Purchase(priced, tuple(lines))


def export_target(
    target: Rows,
    out: str | Path,
    *,
    model: Model,
    method: str = "linfik",
    settings: Mapping[str, Any] | None = None,
    loading: Mapping[str, Any] | None = None,
    template: str | None = None,
    max_tokens: int = MAX_TOKENS,
) -> QueryFile:
    """Write a target as a query file, which you can give to a provider: it holds vectors and no text.

    Args:
        target: at least 16 rows of the task you want data for.
        out: the query file (safetensors).
        model: the model as it is before the purchase.
        method: a method that has a form with vectors.
        settings: the method's options.
        loading: options of `load_model`, for a model given by name.
        template: how prompt and response become one text.
        max_tokens: a longer row is cut at its end.
    """
    one = target_of(target)
    reader = Reader.of(model_of(model, loading), template=template, max_tokens=max_tokens)
    return third_party.export_target(reader, one, out, method=vector_method(method, settings))


def value_query(
    candidates: Rows,
    query: str | Path | QueryFile,
    *,
    model: Model,
    out: str | Path,
    loading: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    duplicates: float | None = THRESHOLD,
    resume: bool = False,
    on_progress: OnStage | None = None,
) -> Valued:
    """Estimate the values of candidates for a target that is given by its query file.

    Other arguments as in `value`.

    Args:
        query: the owner's query file, which `export_target` wrote.
    """
    opened = query if isinstance(query, QueryFile) else read_query(query)
    options = ValueOptions(duplicates=duplicates, resume=resume, on_progress=on_progress)
    pool = corpus_of(candidates, columns=columns)
    loaded = model_of(model, loading)
    return third_party.score_query(pool, opened, loaded, out, tokens_per_batch=tokens_per_batch, options=options)


def audit(
    values: AnyValues,
    candidates: Rows,
    *,
    query: str | Path | QueryFile | None = None,
    target: Rows | None = None,
    model: Model | None = None,
    sample: int = 100,
    threshold: float = 0.9,
    seed: int = 0,
    template: str | None = None,
    max_tokens: int = MAX_TOKENS,
    targets: str | None = None,
    loading: Mapping[str, Any] | None = None,
) -> Audit:
    """Check values: score a random sample of the candidates again and compare.

    Args:
        values: the values that the provider delivered.
        candidates: the rows the values are of; they are read with the mapping with which they were valued, and as many
            of them from the start.
        query: the owner's query file.
        target: the target's rows, instead of `query`.
        model: the model, for methods that read one.
        sample: how many rows to score again.
        threshold: least Spearman correlation that confirms the values.
        seed: of the sample; choose it after the values have been delivered.
        template: how prompt and response become one text.
        max_tokens: a longer row is cut at its end.
        targets: what a candidate's loss is over, as in `value`.
        loading: options of `load_model`, for a model given by name.

    Raises:
        UsageError: both a query file and a target, or neither; or a query file without a model.
        MismatchError: the candidates are not the rows the values are of.
    """
    if (query is None) == (target is None):
        raise UsageError("give either the query file or the target's rows", where="audit")
    opened = read_query(query) if isinstance(query, str | Path) else query
    judge = target_of(target) if opened is None else opened
    found, reader = read(values), None
    if model is not None:
        reader = Reader.of(model_of(model, loading), template=template, max_tokens=max_tokens, targets=targets)
    pool = candidates if isinstance(candidates, Corpus) else corpus_of(candidates, columns=found.about.get("columns"))
    how: dict[str, Any] = {"judge": judge, "sample": sample, "threshold": threshold, "seed": seed}
    return third_party.audit(found, pool.like(found.about), reader, **how)
