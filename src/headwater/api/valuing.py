"""Estimate what candidate rows are worth for a target: from a model, from an index, or as a third party.

valued = hw.value("pool.jsonl", "task.jsonl", model="my-model", out="values.parquet")
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headwater.api.sources import (
    AnyIndex,
    AnyValues,
    Model,
    Rows,
    corpus_of,
    model_of,
    placing,
    reader_for,
    session_of,
    target_of,
    targets_of,
    values_of,
)
from headwater.core.errors import UsageError
from headwater.core.files import filling_folder
from headwater.data.corpus import Corpus
from headwater.data.inspection import require_usable
from headwater.data.tokens import MAX_TOKENS
from headwater.engines.blocks import Engine
from headwater.methods.catalog import find_method, vector_method
from headwater.methods.scoring import require_model
from headwater.models.reader import TOKENS_PER_BATCH, Reader
from headwater.valuation.duplicates import THRESHOLD
from headwater.valuing import third_party
from headwater.valuing.index import value_index as value_rows_of_index
from headwater.valuing.request import OnStage, Valued, ValueOptions
from headwater.valuing.third_party import Audit, QueryFile, read_query
from headwater.valuing.value import value_pool
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
    engine: Engine | None = None,
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
        engine: where rows are labelled and valued, `headwater.RayPool(...)` or None: in this process. Workers see the
            folder of `out`, if students are trained.
        on_progress: called with the name of the current step, rows done, and rows in all.

    Raises:
        DataError: an empty pool or target, or a student that is too weak.
        StoreError: `out` exists already, or it has an unfinished run and `resume` is not set.
    """
    chosen, wanted, pool = find_method(method, settings), targets_of(target), corpus_of(candidates, columns=columns)
    reader = None
    require_model(chosen, model)
    if model is not None:
        how: dict[str, Any] = {"template": template, "max_tokens": max_tokens, "tokens_per_batch": tokens_per_batch}
        reader, pool = reader_for(pool, model, loading, method=chosen, targets=targets, **how)
    else:
        pool = require_usable(pool)
    saved = None if student is None else Path(student)
    options = ValueOptions(duplicates, saved, resume, on_progress, force, engine, placing(loading))
    if out is not None:
        with filling_folder(out, again="run the same command with --resume"):
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
    engine: Engine | None = None,
) -> Valued:
    """Estimate the values of all rows of an index from its own vectors, in one exact scan.

    Other arguments as in `value`.

    Args:
        index: the index, or an open session.
    """
    options = ValueOptions(duplicates=duplicates, resume=resume, on_progress=on_progress, engine=engine)
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
    model: Model | None = None,
    proxy: str | Path | None = None,
    loading: Mapping[str, Any] | None = None,
    on_progress: OnStage | None = None,
) -> Valued:
    """Estimate values with a saved student, without the target, and mostly without the language model.

    Other arguments as in `value`.

    Args:
        student: the student's folder.
        model: the language model, for a student that reads its sketches.
        proxy: where the student's small model is on this machine; None: where it was.
    """
    options = ValueOptions(duplicates=duplicates, resume=resume, on_progress=on_progress, force=force)
    pool, reader = corpus_of(candidates, columns=columns), None
    if model is not None:
        reader, pool = reader_for(pool, model, loading, method=find_method("linfik"), tokens_per_batch=TOKENS_PER_BATCH)
    small = "" if proxy is None else str(proxy)
    return value_pool_with_student(pool, student, out, options=options, reader=reader, proxy=small)


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
    targets: str | None = None,
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
        targets: what a row's loss is over, as in `value`; candidates are read in the same way.
    """
    one = target_of(target)
    reader = Reader.of(model_of(model, loading), template=template, max_tokens=max_tokens, targets=targets)
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
    found, reader = values_of(values), None
    if model is not None:
        reader = Reader.of(model_of(model, loading), template=template, max_tokens=max_tokens, targets=targets)
    pool = candidates if isinstance(candidates, Corpus) else corpus_of(candidates, columns=found.about.get("columns"))
    how: dict[str, Any] = {"judge": judge, "sample": sample, "threshold": threshold, "seed": seed}
    return third_party.audit(found, pool.like(found.about), reader, **how)
