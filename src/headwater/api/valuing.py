"""Say what candidate rows are worth for a target, choose among them, and pay for them.

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

from headwater.api.sources import AnyIndex, AnyValues, Model, Rows, corpus_of, model_of, session_of, targets_of
from headwater.api.sources import values_of as read
from headwater.core.errors import UsageError
from headwater.core.tables import Tabular
from headwater.data.corpus import Corpus
from headwater.methods.catalog import find_method, vector_method
from headwater.models.reader import MAX_TOKENS, TOKENS_PER_BATCH, Reader
from headwater.valuation.chosen import kind_of, records_of, write_records
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
    duplicates: float | None = THRESHOLD,
    student: str | Path | None = None,
    resume: bool = False,
    on_progress: OnStage | None = None,
) -> Valued:
    """Every candidate's value for the target, with an interval; what a value says is the method's to say.

    Args:
        candidates: the pool.
        target: rows of the task the data is wanted for; several, or a dictionary that names them.
        model: the model as it is before the purchase; None for methods that read none.
        method: any name from `headwater methods`.
        settings: the method's options; `preset` names a starting point.
        out: Parquet file to write; None keeps the values in memory.
        loading: options of `load_model`, for a model given by name.
        columns: role to column, for candidates whose columns are not called as their role.
        template: how prompt and response become one text; the tokenizer's own unless given.
        max_tokens: a longer row is cut.
        tokens_per_batch: padded tokens in one forward pass.
        duplicates: similarity from which rows are near-duplicates; None does not look for them.
        student: folder to save a student in, for methods that train one; beside `out` unless given.
        resume: go on with an unfinished run.
        on_progress: called with what is being done, rows done and rows in all.

    Raises:
        DataError: an empty pool or target.
        StoreError: `out` is there already, or an unfinished run of it and `resume` was not given.
    """
    chosen, targets, pool = find_method(method, settings), targets_of(target), corpus_of(candidates, columns=columns)
    reader = None
    if model is not None:
        loaded = model_of(model, loading)
        reader = Reader.of(loaded, template=template, max_tokens=max_tokens, tokens_per_batch=tokens_per_batch)
    options = ValueOptions(duplicates, None if student is None else Path(student), resume, on_progress)
    if out is not None:
        return value_pool(pool, targets, out, method=chosen, reader=reader, options=options)
    with tempfile.TemporaryDirectory(prefix="headwater-value-") as folder:
        file = Path(folder) / "values.parquet"
        return value_pool(pool, targets, file, method=chosen, reader=reader, options=options)


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
    """Values of all rows of an index by its own vectors, from one exact scan; arguments as in `value`."""
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
    on_progress: OnStage | None = None,
) -> Valued:
    """Values by a saved student: no language model and no target are needed; arguments as in `value`."""
    options = ValueOptions(duplicates=duplicates, resume=resume, on_progress=on_progress)
    return value_pool_with_student(corpus_of(candidates, columns=columns), student, out, options=options)


@dataclass(frozen=True)
class Selection(Tabular):
    """Chosen rows, best first.

    Attributes:
        ids: the rows' ids.
        rows: the rows as they were in the pool, each a dictionary of its columns.
        values: the rows' values.
        pool: values of all rows of the pool.
        path: the file they were written to, if any.
    """

    ids: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    values: NDArray[np.float64]
    pool: NDArray[np.float64]
    path: Path | None = None

    def records(self) -> list[dict[str, Any]]:
        """The rows as they were, each with its `value`."""
        return [{**dict(row), "value": float(v)} for row, v in zip(self.rows, self.values, strict=True)]


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
        values: a values file, or what `value` returned.
        top: how many: 500, or "10%" of the pool.
        above: only rows of a greater value.
        by: metadata column; `top` then counts in every group by itself.
        gumbel: noise in standard deviations of the values; 0: none.
        distinct: one row of each near-duplicate cluster.
        column: which column is the value.
        seed: of the noise.
        candidates: the pool the values are of; None is where the values file says.
        columns: role to column; None is as when the pool was valued.
        out: JSONL (also .gz), CSV or Parquet file to write the rows to, as they were.
    """
    if out is not None:
        kind_of(Path(out))
    valued = read(values)
    choice = Choice(top=str(top), above=above, by=by, gumbel=gumbel, distinct=distinct, column=column, seed=seed)
    chosen = choose(valued, choice)
    named = valued.about.get("columns") if columns is None else columns
    source = valued.about.get("candidates", "") if candidates is None else candidates
    pool = corpus_of(source, columns=None if isinstance(source, Corpus) else named)
    ids = [valued.ids[i] for i in chosen]
    records = records_of(pool, ids)
    numbers = valued.numbers(column)
    path = None if out is None else write_records(out, records)
    return Selection(tuple(ids), tuple(records), numbers[chosen], numbers, path)


@dataclass(frozen=True)
class Purchase(Tabular):
    """A budget shared out.

    Attributes:
        prices: what every row is paid.
        accounts: one line a provider.
    """

    prices: Prices
    accounts: tuple[ProviderAccount, ...]

    def records(self) -> list[dict[str, Any]]:
        """One line a provider, its amount in the currency's units."""
        return [
            {
                "provider": line.provider,
                "rows": line.rows,
                "paid_rows": line.paid,
                "clusters": line.clusters,
                "worth": line.worth,
                "amount": float(money(line.cents)),
            }
            for line in self.accounts
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
    """Share a budget out among rows and their providers by what they are worth, to the cent.

    Args:
        values: a values file, or what `value` returned.
        budget: what is paid in all.
        by: metadata column that names the provider.
        reserve: value below which a row is not bought.
        unit: what is bought: `row`, or `character` (value times length).
        column: which column is the value.
        currency: printed beside amounts.
        out: ledger to write: CSV, one line a provider.
        rows: CSV file to write, one line a row.
        html: readable statement to write.
    """
    if unit not in ("row", "character"):
        raise UsageError(f"unknown unit '{unit}'", where="--unit", remedy="row or character")
    terms = Terms(to_cents(budget), reserve, unit, by, column)  # type: ignore[arg-type]
    valued = read(values)
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
    """Write a target as a query file that holds vectors and no text, to hand to a provider of candidates.

    Args:
        target: at least 16 rows of the task the data is wanted for.
        out: the query file (safetensors).
        model: the model as it is before the purchase.
        method: a method that has a form that gives vectors.
        settings: the method's options.
        loading: options of `load_model`, for a model given by name.
        template: how prompt and response become one text.
        max_tokens: a longer row is cut.
    """
    (one,) = targets_of(target)
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
    """Values of candidates against a target that is known by its query file alone; arguments as in `value`."""
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
    loading: Mapping[str, Any] | None = None,
) -> Audit:
    """Label a random sample of the candidates again and hold the values beside the labels.

    Args:
        values: what the provider handed in.
        candidates: the rows the values are of.
        query: the owner's query file; or
        target: the target's rows.
        model: the model, for methods that read one.
        sample: rows to label.
        threshold: Spearman correlation from which the values are confirmed.
        seed: of the sample; to be drawn after the values are in.
        template: how prompt and response become one text.
        max_tokens: a longer row is cut.
        loading: options of `load_model`, for a model given by name.
    """
    if (query is None) == (target is None):
        raise UsageError("give either the query file or the target's rows", where="audit")
    if query is not None:
        judge: Any = query if isinstance(query, QueryFile) else read_query(query)
    else:
        (judge,) = targets_of(target)
    reader = None
    if model is not None:
        reader = Reader.of(model_of(model, loading), template=template, max_tokens=max_tokens)
    found = read(values)
    pool = corpus_of(candidates)
    return third_party.audit(found, pool, reader, judge=judge, sample=sample, threshold=threshold, seed=seed)
