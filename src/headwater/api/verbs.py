"""The Python API: the command line's verbs as functions that take names, paths or values already open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from headwater.core.errors import UsageError
from headwater.core.scores import Scores
from headwater.core.trace import Trace
from headwater.data.corpus import Corpus, open_corpus
from headwater.index.store import Index, open_index
from headwater.indexing.build import build as build_index
from headwater.indexing.session import Session, open_session
from headwater.methods.catalog import find_method
from headwater.models.load import LoadedModel, load_model
from headwater.search.export import write_scores as export_scores
from headwater.search.metrics import Metrics
from headwater.search.scan import DEFAULT_MEMORY, score_all
from headwater.tracing import ranking
from headwater.tracing.queries import MAX_NEW_TOKENS, Queries, prompt_query, read_queries, with_responses
from headwater.tracing.trace import TraceOptions, trace_rows


def build(
    out: str | Path,
    *,
    model: str | LoadedModel,
    data: Any,
    method: str = "rise",
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Index:
    """Index `data` with `method` as `model` reads it.

    Args:
        out: folder or object-store URI of the index to make.
        model: folder or hub name, or a loaded model.
        data: anything `open_corpus` takes, or a corpus.
        method: a name from the catalog.
        settings: the method's options; `preset` names a starting point.
        options: `template`, `max_tokens`, `tokens_per_batch`, `resume`, `keep_text`, `progress`, as in
            `headwater.indexing.build.build`.
    """
    chosen = find_method(method, settings)
    corpus = data if isinstance(data, Corpus) else open_corpus(data)
    loaded = model if isinstance(model, LoadedModel) else load_model(model)
    return build_index(str(out), loaded=loaded, corpus=corpus, method=chosen, **options)


def trace(
    index: str | Path | Index,
    queries: Queries | None = None,
    *,
    prompt: str | None = None,
    response: str | None = None,
    span: str | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    model: LoadedModel | str | None = None,
    placement: Mapping[str, Any] | None = None,
    **options: Any,
) -> Trace:
    """Which rows of the index drove what the model said.

    Args:
        index: path or open index.
        queries: file or list of rows; a row without a response has one generated greedily.
        prompt: one query instead of `queries`.
        response: what the model said to `prompt`; None has it generated.
        span: words of the response to trace instead of all of it.
        max_new_tokens: where a generated response is cut.
        model: a loaded model, or where the index's model is now; None is where the index says.
        placement: `device`, `device_map`: where to load it.
        options: fields of `TraceOptions`.
    """
    if (queries is None) == (prompt is None):
        raise UsageError("give either queries or a prompt", where="trace")
    session = open_session(_open(index), model, **(placement or {}))
    rows = [prompt_query(prompt, response, span)] if prompt is not None else read_queries(queries or [])
    answered, generated = with_responses(rows, session, max_new_tokens=max_new_tokens)
    return trace_rows(session, answered, TraceOptions(**options), generated)


def score(
    index: str | Path | Index,
    queries: Queries,
    *,
    by: str | None = None,
    model: LoadedModel | str | None = None,
    placement: Mapping[str, Any] | None = None,
) -> Scores:
    """Every row of the index against every query, in memory; `headwater score` streams the same to a file."""
    session = open_session(_open(index), model, **(placement or {}))
    names, probes, metrics = query_probes(session, queries, by)
    return score_all(session.index, probes, queries=names, metrics=metrics)


def write_scores(
    index: str | Path | Index,
    queries: Queries,
    out: str | Path,
    *,
    by: str | None = None,
    model: LoadedModel | str | None = None,
    placement: Mapping[str, Any] | None = None,
    max_memory: int = DEFAULT_MEMORY,
) -> tuple[int, int]:
    """Every row against every query into the Parquet file `out`; returns how many rows and queries it holds.

    `max_memory` is what the scan may hold in blocks and scores, in bytes.
    """
    session = open_session(_open(index), model, **(placement or {}))
    names, probes, metrics = query_probes(session, queries, by)
    return export_scores(session.index, probes, names, out=out, metrics=metrics, max_memory=max_memory), len(names)


def query_probes(session: Session, queries: Queries, by: str | None) -> tuple[list[str], dict[str, Tensor], Metrics]:
    """The queries' ids, their probes, and the metrics a search by them needs."""
    answered, _ = with_responses(read_queries(queries), session)
    chosen = ranking.weights(session.index.manifest.columns, by)
    vectors = session.reader.encode(answered, "query").vectors
    probes, metrics = ranking.prepare(session.index, session.reader, vectors, chosen)
    return [row.id for row in answered], probes, metrics


def _open(index: str | Path | Index) -> Index:
    return index if isinstance(index, Index) else open_index(index)
