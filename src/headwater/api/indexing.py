"""Build an index and maintain it.

index = hw.build("runs/mine.lance", model="my-model", data="train.jsonl", method="rise")
hw.add(index, "more.jsonl"); hw.delete(index, where="provider = 'a'"); hw.compact(index); hw.verify(index)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headwater.api.sources import (
    AnyIndex,
    Model,
    Rows,
    corpus_of,
    index_of,
    placing,
    preference,
    reader_for,
    session_of,
)
from headwater.core.arguments import named, parse_bytes
from headwater.core.errors import MismatchError, StoreError, UsageError
from headwater.data.hits import open_rows_or_hits
from headwater.data.inspection import require_usable
from headwater.data.tokens import MAX_TOKENS
from headwater.engines.blocks import Engine, OnProgress
from headwater.index import upkeep
from headwater.index.checks import Fault, check_index
from headwater.index.info import build_approximate, describe
from headwater.index.store import Index, exists, open_index, require_vacant
from headwater.index.upkeep import Compacted
from headwater.indexing import maintain
from headwater.indexing.build import build as build_index
from headwater.indexing.choosing import AUTO, choose_method, named_method, planned
from headwater.indexing.maintain import Added
from headwater.indexing.plan import BuildPlan, Limits, plan_build
from headwater.indexing.prepared import prepared_beside
from headwater.indexing.quantise import quantise_index
from headwater.indexing.session import Session
from headwater.indexing.shards import build_shard, commit_shards, parse_shard
from headwater.methods.bound import Bound
from headwater.methods.kept import expected
from headwater.models.reader import TOKENS_PER_BATCH
from headwater.search.retention import Retention, Searched, compare_indexes, compare_rows, own_queries
from headwater.tracing.queries import ask, read_queries

RECOMPUTED = 16
"""How many rows `verify` reads again with the model by default."""


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
    targets: str | None = None,
    beta: float | None = None,
    reference: str | Path | None = None,
    keep_text: bool = True,
    code: str | None = None,
    block_rows: int | None = None,
    max_memory: int | str | None = None,
    max_disk: int | str | None = None,
    resume: bool = False,
    engine: Engine | None = None,
    shard: str | None = None,
    on_progress: OnProgress | None = None,
) -> Index:
    """Read every row of `data` with `model`, and store the vectors of `method` in a new index.

    Args:
        out: folder or object-store URI of the index to make.
        model: folder or hub name, or a loaded model.
        data: the rows; `open_corpus(..., skip_unusable=True)` leaves out those that cannot be used.
        method: a name from `headwater methods` that can fill an index, or `auto`, which chooses one by a rule.
        settings: the method's options; `preset` names a starting point.
        loading: options of `load_model`, for a model given by name.
        columns: role to column, for data whose columns have other names than the roles: `{"prompt": "ask"}`.
        template: how prompt and response become one text; None uses the tokenizer's own.
        max_tokens: a longer row is cut at its end.
        tokens_per_batch: padded tokens in one forward pass.
        targets: what a row's loss is over: `all`, `assistant`, `response` or `last`; None is all of a text, and the
            assistant's turns.
        beta: β of the DPO loss, for data opened with `open_corpus(..., pairs="dpo")`; None is 0.1.
        reference: folder or hub name of the model that DPO began with; None is the model without its adapter.
        keep_text: store the rows' text beside their vectors.
        code: how vectors are stored: `none` (as numbers), `int8`, `sign`, `int2`, `int4` (1 KiB a row and column;
            `sign:4096` and so on are 4,096 bits), `factors` or `factors:2`; None is the method's own.
        block_rows: rows that are computed and committed together; None is about 64 MiB of vectors. With several
            workers there should be several blocks for each.
        max_memory: bytes the process may take, as a number or as `8GiB`; batches are made to fit.
        max_disk: bytes the index may take, as a number or as `100GB`.
        resume: continue an unfinished build, or start one if there is none.
        engine: where blocks of rows are computed, `headwater.RayPool(...)` or None: in this process.
        shard: `3/16` computes the third of 16 parts of the index alone; `commit` then puts all parts together.
        on_progress: called with rows done, rows in all and tokens read.

    Raises:
        UsageError: an unknown method or option, or a method that cannot fill an index.
        EngineError: the engine's workers cannot be reached, or die.
        StoreError: something is at `out` already, the index would not fit, or another process writes there.
        MismatchError: on resume, model, method or data are not those the build began with.
        DataError: a row cannot be used.
        NumericError: a row's vector is not finite.
    """
    chosen = named_method(method, settings)
    limits = _limits(max_memory, max_disk)
    part = None if shard is None else parse_shard(shard, limited=limits != Limits())
    require_vacant(str(out), resume=resume or part is not None)
    how: dict[str, Any] = {"template": template, "max_tokens": max_tokens, "tokens_per_batch": tokens_per_batch}
    rows = corpus_of(data, columns=columns, compared=True)
    how |= preference(rows, beta, reference, loading)
    here = _loading_here(engine, model, loading)
    reader, corpus = reader_for(rows, model, here, method=chosen, targets=targets, **how)
    kept: dict[str, Any] = {"keep_text": keep_text, "code": code, "block_rows": block_rows}
    if method == AUTO:
        begun = open_index(out) if resume and exists(str(out)) else None
        chosen = choose_method(reader, corpus, settings or {}, limits, begun, **kept)
    chosen = prepared_beside(chosen, reader, corpus, str(out), resume=resume or part is not None)
    bound = Bound.of(chosen, reader)
    if limits != Limits():
        if resume and exists(str(out)):
            fitting = open_index(out).manifest.plan.tokens_per_batch
        else:
            fitting = plan_build(corpus, bound, **kept, limits=limits).tokens_per_batch
        bound = Bound.of(chosen, replace(reader, tokens_per_batch=fitting))
    further: dict[str, Any] = {"resume": resume, "keep_text": keep_text, "code": code, "on_progress": on_progress}
    further |= {"engine": engine, "loading": placing(loading), "block_rows": block_rows}
    if part is not None:
        return build_shard(out, corpus, bound, part, **further)
    return build_index(out, corpus, bound, **further)


def commit(index: AnyIndex) -> Index:
    """Put together an index that was built in shards (`build(..., shard="3/16")`), and return it finished.

    Raises:
        StoreError: shards are missing or unfinished (the message names them), or there are none.
        MismatchError: the shards were computed with different settings, data or versions of headwater.
    """
    return commit_shards(index_of(index))


def _loading_here(engine: Engine | None, model: Model | None, loading: Mapping[str, Any] | None) -> dict[str, Any]:
    """How this process loads the model: on the CPU where other processes compute, which have the accelerators."""
    given = named(loading, where="loading", example={"device": "cpu"})
    by_name = model is None or isinstance(model, str | Path)
    if engine is None or not engine.elsewhere or not by_name:
        return given
    return {**{name: value for name, value in given.items() if name != "device_map"}, "device": "cpu"}


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
    targets: str | None = None,
    beta: float | None = None,
    reference: str | Path | None = None,
    keep_text: bool = True,
    code: str | None = None,
    block_rows: int | None = None,
    max_memory: int | str | None = None,
    max_disk: int | str | None = None,
) -> BuildPlan:
    """Estimate what `build` with the same arguments needs: disk, memory and time. No files are left behind.

    Raises:
        StoreError: the build does not fit into `max_memory` and `max_disk`; the message says what would.
    """
    chosen = named_method(method, settings)
    how: dict[str, Any] = {"template": template, "max_tokens": max_tokens, "tokens_per_batch": tokens_per_batch}
    rows = corpus_of(data, columns=columns, compared=True)
    how |= preference(rows, beta, reference, loading)
    reader, corpus = reader_for(rows, model, loading, method=chosen, targets=targets, **how)
    limits = _limits(max_memory, max_disk)
    kept: dict[str, Any] = {"keep_text": keep_text, "code": code, "block_rows": block_rows}
    if method == AUTO:
        chosen = choose_method(reader, corpus, settings or {}, limits, **kept)
    return planned(chosen, reader, corpus, limits, **kept)


def _limits(memory: int | str | None, disk: int | str | None) -> Limits:
    return Limits(parse_bytes(memory, where="max_memory"), parse_bytes(disk, where="max_disk"))


def info(index: AnyIndex) -> dict[str, Any]:
    """Describe an index, JSON-ready: rows, bytes a row, versions, coverage, fingerprints.

    `kept` is the share of the full vectors' quality that the index's code kept where it was measured, None elsewhere.
    """
    opened = index_of(index)
    return {**describe(opened), "kept": expected(opened.manifest.method.name, opened.manifest.columns)}


def add(
    index: AnyIndex,
    data: Rows,
    *,
    columns: Mapping[str, str] | None = None,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
    on_progress: OnProgress | None = None,
) -> Added:
    """Add the rows of `data` that the index does not have yet; they are read with the index's own settings.

    Args:
        index: the index.
        data: the rows, as in `build`; this may be the old data with new rows in it. Rows that are not open yet are
            read as preference pairs if the index holds pairs under the DPO loss.
        columns: role to column.
        model: the index's model, loaded or by its present place; None takes the place that the index names.
        loading: options of `load_model` (`device`, `adapter`, ...), for a model that is not loaded yet.
        engine: as in `build`.
        on_progress: called with rows done, rows in all and tokens read.

    Raises:
        DataError: rows cannot be used, or a new row has the id of another row.
        StoreError: the index's build is unfinished, or another process is writing to it.
        MismatchError: the model or tokenizer is not the index's.
        UsageError: the data was opened as preference pairs and the index holds none, or the other way round.
    """
    pairs = index_of(index).manifest.pairs
    corpus = corpus_of(data, columns=columns, compared=True, pairs=pairs)
    if (corpus.pairs == "dpo") != (pairs == "dpo"):
        what = f"the index holds {'preference pairs' if pairs else 'rows'} and the data was opened as others"
        raise UsageError(what, where="--pairs", remedy="leave it out: the data is then read as the index's own was")
    if not isinstance(index, Session) and (model is None or isinstance(model, str | Path)):
        corpus = require_usable(corpus)  # what can be seen before the model is loaded
    here = loading if isinstance(index, Session) else _loading_here(engine, model, loading)
    session = session_of(index, model, here)
    corpus = require_usable(corpus, session.bound.reader.tokenization)
    return maintain.add(session, corpus, engine=engine, loading=placing(loading), on_progress=on_progress)


def delete(
    index: AnyIndex, *, ids: Sequence[str] | None = None, where: str | None = None, rows: Rows | None = None
) -> int:
    """Delete rows, and return how many: searches no longer find them, and `compact` then removes them from the files.

    If an id or a text is not in the index, nothing is deleted.

    Args:
        index: the index.
        ids: ids of rows, or one id.
        where: SQL condition over the index's columns.
        rows: rows, or hits of a trace; the index's rows with the same text are deleted, whatever their id.
    """
    opened = index_of(index)
    corpus = None if rows is None else open_rows_or_hits(rows, pairs=opened.manifest.pairs)
    ids = [ids] if isinstance(ids, str) else ids
    return maintain.delete(opened, ids=ids, where=where, rows=corpus)


def compact(index: AnyIndex) -> Compacted:
    """Rewrite the index's files without the deleted rows, and remove all earlier versions."""
    return upkeep.compact(index_of(index))


def verify(
    index: AnyIndex,
    *,
    model: Model | None = None,
    recompute: int | None = None,
    loading: Mapping[str, Any] | None = None,
) -> list[Fault]:
    """Look for faults in an index and return them all; the list is empty if the index is sound.

    Args:
        index: the index; what a path leads to may be damaged.
        model: also read some rows again with this model and compare their vectors.
        recompute: how many rows to read again: 16 if there is a model. Without `model`, the index's own is loaded.
        loading: options of `load_model`, for a model that is not loaded yet.
    """
    if recompute is not None and recompute < 1:
        raise UsageError(f"cannot read {recompute} rows again", where="--recompute", remedy="give 1 or more")
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
    index: AnyIndex,
    out: str | Path,
    *,
    code: str,
    resume: bool = False,
    engine: Engine | None = None,
    on_progress: OnProgress | None = None,
) -> Index:
    """Make a new index of the same rows with quantised vectors; no model is needed.

    Args:
        index: the index.
        out: folder or object-store URI of the index to make.
        code: as in `build`.
        resume: continue an interrupted run, or start one if there is none.
        engine: as in `build`.
        on_progress: called with rows done, rows in all, and 0 (no tokens are read).
    """
    return quantise_index(index_of(index), out, code=code, resume=resume, engine=engine, on_progress=on_progress)


def retention(
    coded: AnyIndex,
    queries: Rows | None = None,
    *,
    exact: AnyIndex | None = None,
    relevant: str | None = None,
    sample: int = 2000,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
) -> Retention:
    """Measure how well a quantised index agrees with exact search on your own queries.

    Args:
        coded: the quantised index.
        queries: the queries to search for; None takes, with `exact`, some of the index's own rows, and no model.
        exact: the index it was made from; then all rows are compared. None reads `sample` rows again with the model
            and compares those.
        relevant: with `exact`, an SQL condition for the rows that count as right, for P@10.
        sample: how many rows to read again.
        model: as in `add`.
        loading: as in `add`.

    Raises:
        UsageError: `relevant` without `exact`, or neither queries nor `exact`, or no `exact` for a method whose metric
            is fitted on the index.
        StoreError: the index has no rows.
    """
    if queries is None:
        if exact is None or relevant is not None:
            remedy = "give queries, or the exact index and nothing about relevant rows"
            raise UsageError("there are no queries to measure on", where="queries", remedy=remedy)
        own = own_queries(index_of(exact))
        return compare_indexes(own, replace(own, index=index_of(coded)))
    session = session_of(coded, model, loading)
    index = session.index
    asked = ask(session, read_queries(queries))
    if exact is not None:
        plain = Session(index_of(exact), session.bound)
        there = ask(plain, read_queries(queries)) if asked.metrics else asked
        sides = (Searched(side, one.probes, one.metrics) for side, one in ((plain.index, there), (index, asked)))
        return compare_indexes(*sides, relevant=relevant)
    if relevant is not None or asked.metrics:
        what = "relevant rows can be counted only with the exact index"
        if asked.metrics:
            what = (
                f"the metric of '{session.bound.method.spec.name}' is fitted on the rows, and can be compared only so"
            )
        raise UsageError(what, where="exact", remedy="give that index, the one it was made from")
    if not index.count:
        raise StoreError("the index has no rows to measure on", where=index.path)
    places = np.unique(np.linspace(0, index.count - 1, min(sample, index.count)).round().astype(int)).tolist()
    ids = index.take(places, ["id"]).column("id").to_pylist()
    rows = session.bound.encode(index.fetch(ids), "train")
    return compare_rows(rows.vectors, index.manifest.columns, asked.probes)


def approximate_index(
    index: AnyIndex, column: str | None = None, *, kind: str = "ivf_sq", partitions: int | None = None
) -> str:
    """Build a vector index for approximate search (`trace(engine="ann")`), and return the name of its column.

    Args:
        index: the index.
        column: the vector column; None is the first.
        kind: `ivf_sq`, `ivf_flat` or `ivf_hnsw_sq`.
        partitions: number of cells; None is about the square root of the number of rows.
    """
    return build_approximate(index_of(index), column, kind=kind, partitions=partitions)
