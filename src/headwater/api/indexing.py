"""Build an index and look after it.

index = hw.build("runs/mine.lance", model="my-model", data="train.jsonl", method="rise")
hw.add(index, "more.jsonl"); hw.delete(index, where="provider = 'a'"); hw.compact(index); hw.verify(index)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headwater.api.sources import AnyIndex, Model, Rows, corpus_of, index_of, model_of, session_of
from headwater.core.errors import MismatchError, StoreError, UsageError
from headwater.engines.blocks import OnProgress
from headwater.index import approximate, upkeep
from headwater.index.checks import Fault, check_index
from headwater.index.info import describe
from headwater.index.store import Index, exists, open_index, require_vacant
from headwater.index.upkeep import Compacted
from headwater.indexing import maintain
from headwater.indexing.build import build as build_index
from headwater.indexing.maintain import Added
from headwater.indexing.plan import BuildPlan, Limits, plan_build
from headwater.indexing.quantise import quantise_index
from headwater.indexing.session import Session
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.models.reader import MAX_TOKENS, TOKENS_PER_BATCH, Reader
from headwater.search.retention import Retention, compare_indexes, compare_rows
from headwater.tracing.queries import ask, read_queries

RECOMPUTED = 16
"""Rows that `verify` reads again with the model, unless told otherwise."""


def build(
    out: str | Path,
    *,
    model: Model,
    data: Rows,
    method: str = "rise",
    settings: Mapping[str, Any] | None = None,
    loading: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    template: str | None = None,
    max_tokens: int = MAX_TOKENS,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    keep_text: bool = True,
    code: str | None = None,
    max_memory: int | None = None,
    max_disk: int | None = None,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> Index:
    """Index `data` with `method` as `model` reads it.

    Args:
        out: folder or object-store URI of the index to make.
        model: folder or hub name, or a loaded model.
        data: the rows.
        method: a name from `headwater methods` that can fill an index.
        settings: the method's options; `preset` names a starting point.
        loading: options of `load_model`, for a model given by name.
        columns: role to column, for rows whose columns are not called as their role: `{"prompt": "ask"}`.
        template: how prompt and response become one text; the tokenizer's own unless given.
        max_tokens: a longer row is cut at its end.
        tokens_per_batch: padded tokens in one forward pass.
        keep_text: store the rows' text beside their vectors.
        code: store vectors as `int8`, `sign` (1 KiB a row) or `sign:BITS` instead of numbers; loses accuracy.
        max_memory: bytes the process may take; batches are made to fit.
        max_disk: bytes the index may take.
        resume: go on with an unfinished build; starts one when there is none.
        on_progress: called with rows done, rows in all and tokens read.

    Raises:
        StoreError: something is at `out` already, it would not fit, or another process writes there.
        MismatchError: on resume, model, method or data are not those the build began with.
        DataError: a row cannot be used.
        NumericError: a row's vector is not finite.
    """
    chosen = find_method(method, settings)
    chosen.require_vectors()
    require_vacant(str(out), resume=resume)
    corpus = corpus_of(data, columns=columns)
    loaded = model_of(model, loading)
    reader = Reader.of(loaded, template=template, max_tokens=max_tokens, tokens_per_batch=tokens_per_batch)
    bound = Bound.of(chosen, reader)
    limits = Limits(max_memory, max_disk)
    if limits != Limits():
        if resume and exists(str(out)):
            fitting = open_index(out).manifest.plan.tokens_per_batch
        else:
            fitting = plan_build(corpus, bound, keep_text=keep_text, code=code, limits=limits).tokens_per_batch
        bound = Bound.of(chosen, replace(reader, tokens_per_batch=fitting))
    return build_index(out, corpus, bound, resume=resume, keep_text=keep_text, code=code, on_progress=on_progress)


def plan(
    *,
    model: Model,
    data: Rows,
    method: str = "rise",
    settings: Mapping[str, Any] | None = None,
    loading: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    template: str | None = None,
    max_tokens: int = MAX_TOKENS,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    keep_text: bool = True,
    code: str | None = None,
    max_memory: int | None = None,
    max_disk: int | None = None,
) -> BuildPlan:
    """What `build` with the same arguments will take: disk, memory, time. Nothing is left behind.

    Raises:
        StoreError: it cannot be done within `max_memory` and `max_disk`; says what would fit.
    """
    chosen = find_method(method, settings)
    chosen.require_vectors()
    corpus = corpus_of(data, columns=columns)
    loaded = model_of(model, loading)
    reader = Reader.of(loaded, template=template, max_tokens=max_tokens, tokens_per_batch=tokens_per_batch)
    limits = Limits(max_memory, max_disk)
    return plan_build(corpus, Bound.of(chosen, reader), keep_text=keep_text, code=code, limits=limits)


def info(index: AnyIndex) -> dict[str, Any]:
    """What an index is, JSON-ready: rows, bytes a row, versions, coverage, fingerprints."""
    return describe(index_of(index))


def add(
    index: AnyIndex,
    data: Rows,
    *,
    columns: Mapping[str, str] | None = None,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> Added:
    """Add the rows of `data` that the index does not have yet, read as its own were.

    Args:
        index: the index.
        data: the rows; they may be the old ones grown.
        columns: role to column.
        model: the index's model, loaded or where it is now; None is where the index says.
        loading: options of `load_model` (`device`, `adapter`, ...), for a model that is not loaded yet.
        on_progress: called with rows done, rows in all and tokens read.

    Raises:
        DataError: a new row has the id of another row.
        StoreError: the index's build is unfinished, or another process is writing to it.
        MismatchError: the model or tokenizer is not the index's.
    """
    corpus = corpus_of(data, columns=columns)
    return maintain.add(session_of(index, model, loading), corpus, on_progress=on_progress)


def delete(
    index: AnyIndex, *, ids: Sequence[str] | None = None, where: str | None = None, rows: Rows | None = None
) -> int:
    """Take rows out of every search, and return how many: by ids, by an SQL condition, or by their text (`rows`).

    Nothing is deleted when an id or a text is not in the index. `compact` then takes the rows out of the files.
    """
    corpus = None if rows is None else corpus_of(rows)
    return maintain.delete(index_of(index), ids=ids, where=where, rows=corpus)


def compact(index: AnyIndex) -> Compacted:
    """Take deleted rows out of every file, and every earlier version with them."""
    return upkeep.compact(index_of(index))


def verify(
    index: AnyIndex,
    *,
    model: Model | None = None,
    recompute: int | None = None,
    loading: Mapping[str, Any] | None = None,
) -> list[Fault]:
    """Every fault of an index; none when it is sound.

    Args:
        index: the index; a path may lead to something damaged.
        model: read rows again with this model; None reads them only when `recompute` is given.
        recompute: how many rows to read again, `RECOMPUTED` with a model.
        loading: options of `load_model`, for a model that is not loaded yet.
    """
    if recompute is not None and recompute < 1:
        raise UsageError(f"{recompute} rows to read again", where="--recompute", remedy="1 or more")
    path = str(index) if isinstance(index, str | Path) else index_of(index).path
    faults = check_index(path)
    if (model is None and recompute is None) or any(f.kind in ("open", "schema", "storage") for f in faults):
        return faults
    try:
        session = session_of(index if isinstance(index, Session) else path, model, loading)
    except MismatchError as error:
        return [*faults, Fault("model", str(error), path)]
    return faults + maintain.recompute(session, recompute or RECOMPUTED)


def quantise(
    index: AnyIndex, out: str | Path, *, code: str, resume: bool = False, on_progress: OnProgress | None = None
) -> Index:
    """A new index of the same rows whose vectors are codes: `int8`, `sign` (1 KiB a row) or `sign:BITS`; no model."""
    return quantise_index(index_of(index), out, code=code, resume=resume, on_progress=on_progress)


def retention(
    coded: AnyIndex,
    queries: Rows,
    *,
    exact: AnyIndex | None = None,
    relevant: str | None = None,
    sample: int = 2000,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
) -> Retention:
    """What an index of codes keeps of exact search on the user's own queries.

    With `exact`, the index it was made from, all rows are searched; `relevant` is an SQL condition that says which
    rows are right, for P@10. Without, `sample` rows are read again with the model and searched both ways.
    """
    session = session_of(coded, model, loading)
    index = session.index
    probes = ask(session, read_queries(queries)).probes
    if exact is not None:
        return compare_indexes(index_of(exact), index, probes, relevant=relevant)
    if relevant is not None:
        raise UsageError("relevant rows are counted beside the exact index", where="relevant", remedy="give that index")
    if not index.count:
        raise StoreError("there are no rows to measure on", where=index.path)
    places = np.unique(np.linspace(0, index.count - 1, min(sample, index.count)).round().astype(int)).tolist()
    ids = index.take(places, ["id"]).column("id").to_pylist()
    rows = session.bound.encode(index.fetch(ids), "train")
    return compare_rows(rows.vectors, index.manifest.columns, probes)


def approximate_index(
    index: AnyIndex, column: str | None = None, *, kind: str = "ivf_sq", partitions: int | None = None
) -> str:
    """Build a vector index for approximate search (`trace(engine="ann")`); returns the column it is of."""
    return approximate.build_approximate(index_of(index), column, kind=kind, partitions=partitions)
