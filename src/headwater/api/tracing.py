"""Trace what a model said to the rows that taught it, and score rows against queries.

trace = hw.trace("runs/mine.lance", prompt="howdy! What is a verb?", top=5, tokens=True)
trace.to_pandas(); hw.write_report("report.html", trace)

session = hw.open_session("runs/mine.lance")          # the model stays loaded
for prompt in prompts: hw.trace(session, prompt=prompt)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headwater.api.sources import AnyIndex, Model, Rows, session_of
from headwater.core.errors import UsageError
from headwater.core.scores import Scores
from headwater.core.trace import Trace
from headwater.search.scan import DEFAULT_MEMORY, score_all
from headwater.search.scan import write_scores as export_scores
from headwater.tracing.queries import MAX_NEW_TOKENS, ask, prompt_query, read_queries
from headwater.tracing.trace import TraceOptions, trace_rows


def trace(
    index: AnyIndex,
    queries: Rows | None = None,
    *,
    prompt: str | None = None,
    response: str | None = None,
    span: str | None = None,
    top: int = 20,
    by: str | None = None,
    tokens: bool = False,
    lowest: bool = False,
    where: str | None = None,
    exact: int = 0,
    grids: int | None = None,
    engine: str = "exact",
    max_memory: int = DEFAULT_MEMORY,
    max_new_tokens: int = MAX_NEW_TOKENS,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
) -> Trace:
    """Which rows of the index drove what the model said.

    Args:
        index: an index, or an open session.
        queries: rows to trace; a row without a response has one generated greedily.
        prompt: one query instead of `queries`.
        response: what the model said to `prompt`; None has it generated.
        span: words of the response to trace instead of all of it.
        top: hits a query.
        by: vector columns to rank by (`embedding`, `rise+embedding`); None is the method's own score.
        tokens: compute token maps of both sides, by re-running the queries and the shown rows.
        lowest: the lowest-scored rows instead of the highest.
        where: SQL condition over the index's columns.
        exact: score this many rows a query once more, those the index scores highest, from whole gradients, and rank
            them by that; 0 ranks by the index alone.
        grids: for this many hits a query, hold every token of the row against every token of the query, where the
            method can; None is one if `tokens`, else none.
        engine: `exact` reads every row; `ann` asks the vector index the user built, and measures its recall.
        max_memory: bytes the search may hold in blocks and scores.
        max_new_tokens: where a generated response is cut.
        model: the index's model, loaded or where it is now; None is where the index says.
        loading: options of `load_model` (`device`, `adapter`, ...), for a model that is not loaded yet.
    """
    if (queries is None) == (prompt is None):
        raise UsageError("give either queries or a prompt", where="trace")
    options = TraceOptions(
        top=top,
        by=by,
        tokens=tokens,
        lowest=lowest,
        where=where,
        exact=exact,
        grids=grids,
        engine=engine,
        max_memory=max_memory,
    )
    session = session_of(index, model, loading)
    rows = [prompt_query(prompt, response, span)] if prompt is not None else read_queries(queries)
    return trace_rows(session, rows, options, max_new_tokens=max_new_tokens)


def score(
    index: AnyIndex,
    queries: Rows,
    *,
    by: str | None = None,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
) -> Scores:
    """Every row of the index against every query, in memory; `write_scores` streams the same to a file.

    Args:
        index: an index, or an open session.
        queries: what to score against; a row without a response has one generated greedily.
        by: vector columns to score by; None is the method's own score.
        model: the index's model, loaded or where it is now; None is where the index says.
        loading: options of `load_model`, for a model that is not loaded yet.
    """
    session = session_of(index, model, loading)
    asked = ask(session, read_queries(queries), by=by)
    return score_all(session.index, asked.probes, queries=asked.names, metrics=asked.metrics)


def write_scores(
    index: AnyIndex,
    queries: Rows,
    out: str | Path,
    *,
    by: str | None = None,
    max_memory: int = DEFAULT_MEMORY,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
) -> tuple[int, int]:
    """Every row against every query into the Parquet file `out`; returns how many rows and queries it holds.

    Arguments as in `score`; `max_memory` is what the scan may hold in blocks and scores, in bytes.
    """
    session = session_of(index, model, loading)
    asked = ask(session, read_queries(queries), by=by)
    probes, names, metrics = asked.probes, asked.names, asked.metrics
    rows = export_scores(session.index, probes, names, out=out, metrics=metrics, max_memory=max_memory)
    return rows, len(names)
