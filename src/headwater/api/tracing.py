"""Trace a model's answers to the rows that taught them, and score rows against queries.

trace = hw.trace("runs/mine.lance", prompt="howdy! What is a verb?", top=5, tokens=True)
trace.to_pandas(); hw.write_report("report.html", trace)

session = hw.open_session("runs/mine.lance")          # the model stays loaded
for prompt in prompts: hw.trace(session, prompt=prompt)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.api.sources import AnyIndex, Model, Rows, index_of, session_of
from headwater.core.arguments import parse_bytes
from headwater.core.errors import UsageError
from headwater.core.scores import Scores
from headwater.core.trace import Trace
from headwater.data.rows import Row
from headwater.engines.blocks import Engine
from headwater.index.checks import require_all_intact
from headwater.indexing.searching import score_all
from headwater.indexing.searching import write_scores as export_scores
from headwater.models.generate import Answer
from headwater.report.page import framed
from headwater.search.scan import DEFAULT_MEMORY
from headwater.tracing.aims import Aim, read_direction
from headwater.tracing.queries import (
    LAST,
    MAX_NEW_TOKENS,
    answer_of,
    ask,
    ask_in_parts,
    prompt_query,
    read_queries,
    weights,
)
from headwater.tracing.trace import OnProgress, TraceOptions, trace_rows
from headwater.tracing.words import trace_by_words

Trace.drawn = staticmethod(framed)


def trace(
    index: AnyIndex,
    queries: Rows | None = None,
    *,
    prompt: str | Sequence[Mapping[str, Any]] | None = None,
    response: str | Answer | None = None,
    span: str | Sequence[str] | None = None,
    top: int = 20,
    by: str | None = None,
    tokens: bool = False,
    lowest: bool = False,
    where: str | None = None,
    exact: int = 0,
    grids: int | None = None,
    engine: str | Engine = "exact",
    max_memory: int | str = DEFAULT_MEMORY,
    max_new_tokens: int = MAX_NEW_TOKENS,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    targets: str = LAST,
    against: Rows | None = None,
    mean: bool = False,
    direction: Any = None,
    by_module: bool = False,
    group_by: str | None = None,
    damping: float = 1.0,
    verify: bool = False,
    on_progress: OnProgress | None = None,
) -> Trace:
    """Find the rows of the index that drove a response of the model.

    Args:
        index: an index, or an open session.
        queries: rows to trace; a row without a response, or a chat that does not end with an answer, gets one generated
            greedily.
        prompt: one query instead of `queries`: a text, or a chat's messages, which end with a question.
        response: the model's response to `prompt`, as text or as `answer` gave it; None generates it.
        span: words of the response to trace instead of all of it; a list of several takes each.
        top: hits a query.
        by: vector columns to rank by (`embedding`, `rise+embedding`); None is the method's own score.
        tokens: compute token maps of both sides, by reading the queries and the shown rows again.
        lowest: return the lowest-scored rows instead of the highest.
        where: SQL condition over the index's columns.
        exact: take this many rows a query that the index scores highest, score them again from whole gradients, or
            (methods without) from vectors read again and not coded, and rank them by that; 0 ranks by the index alone.
        grids: for this many hits a query, score every token of the row against every token of the query, if the method
            can; None is 1 with `tokens`, else 0.
        engine: `exact` reads every row; `ann` searches the vector index that you built, and measures its recall; an
            engine such as `headwater.RayPool(...)` reads every row in its workers, and gives what `exact` gives.
        max_memory: bytes the search may hold in blocks and scores, as a number or as `2GiB`.
        max_new_tokens: most tokens of a generated response.
        model: the index's model, loaded or by its present place; None takes the place that the index names.
        loading: options of `load_model` (`device`, `adapter`, ...), for a model that is not loaded yet.
        columns: role to column, for queries whose columns have other names than the roles: `{"prompt": "ask"}`.
        targets: what of a query is traced: `last`, its last answer, which is the one that is shown; `assistant`, every
            answer of a chat, as in training; `response`, all answers after the last user turn; or `all`.
        against: rows whose scores are subtracted: one for each query, or one for all. With `prompt`, text is another
            response to it.
        mean: ask about the mean of the queries, and of `against`: their difference is a concept.
        direction: a vector to search with instead of queries, for the column ranked by: a `.npy` file or an array, or
            with a vector for each column a `.safetensors` file or a mapping.
        by_module: divide each hit's score from whole gradients by module, if the method reads gradients.
        group_by: a metadata column; the effect of all rows with one value of it is computed, with their interaction.
        damping: of `group_by`, as a share of the mean eigenvalue.
        verify: first hold every row of the index against its checksum, which reads all of it once more; without it,
            the rows that are shown are checked.
        on_progress: called with the name of the step and the share of it that is done, 0 to 1; what it raises ends
            the trace.

    Raises:
        UsageError: not one of queries, a prompt and a direction; or options that do not go together.
        MismatchError: the model or tokenizer is not the index's.
    """
    if sum(given is not None for given in (queries, prompt, direction)) != 1:
        given = [name for name, value in (("queries", queries), ("a prompt", prompt)) if value is not None]
        given += [] if direction is None else ["a direction"]
        what = f"{' and '.join(given)} are given" if given else "there is nothing to trace"
        raise UsageError(what, where="trace", remedy="give one: queries, a prompt or a direction")
    options = TraceOptions(
        top=top,
        by=by,
        tokens=tokens,
        lowest=lowest,
        where=where,
        exact=exact,
        grids=grids,
        engine=engine if isinstance(engine, str) else "exact",
        spread=None if isinstance(engine, str) else engine,
        max_memory=parse_bytes(max_memory, where="max_memory") or DEFAULT_MEMORY,
        targets=targets,
        by_module=by_module,
        group_by=group_by,
        damping=damping,
    )
    session = session_of(index, model, loading)
    if verify:
        require_all_intact(session.index)
    if direction is not None:
        stored = session.index.manifest.columns
        aim = Aim(direction=read_direction(direction, stored, list(weights(stored, by))), mean=mean)
    else:
        rows = [prompt_query(prompt, response, span)] if prompt is not None else read_queries(queries, columns)
        aim = Aim(tuple(rows), _against(against, prompt, columns), mean)
    return trace_rows(session, aim, options, max_new_tokens=max_new_tokens, on_progress=on_progress)


def _against(given: Rows | None, prompt: Any, columns: Mapping[str, str] | None) -> tuple[Row, ...]:
    """The rows that queries are held against; with a prompt, text is another response to it."""
    if given is None:
        return ()
    if prompt is not None and isinstance(given, str):
        if not given.strip():
            remedy = "give the response that the model's own is compared with"
            raise UsageError("the other response is empty", where="--against", remedy=remedy)
        return (prompt_query(prompt, given),)
    return tuple(read_queries(given, columns))


def answer(
    index: AnyIndex,
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    on_text: Callable[[str], None] | None = None,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
) -> Answer:
    """What the index's model answers to a prompt, greedily, as `trace` asks it: text, whether it ended, token ids.

    Args:
        index: an index, or an open session.
        prompt: a text, or a chat's messages, which end with a question.
        max_new_tokens: most tokens of the answer.
        on_text: called after each token with the answer so far; what it raises ends the generation.
        model: as in `trace`.
        loading: as in `trace`.
    """
    session = session_of(index, model, loading)
    return answer_of(session, prompt, max_new_tokens=max_new_tokens, on_text=on_text)


def trace_words(
    index: AnyIndex,
    prompt: str | Sequence[Mapping[str, Any]],
    response: str,
    *,
    span: str | Sequence[str] | None = None,
    top: int = 20,
    where: str | None = None,
    generated: bool = False,
    on_progress: OnProgress | None = None,
) -> Trace:
    """Find the rows whose answers share the rarest words with a response: BM25, for which no model is needed.

    Look at it beside `trace`: similar words are not influence.

    Args:
        index: an index with text.
        prompt: as in `trace`.
        response: what was answered.
        span: as in `trace`.
        top: hits.
        where: as in `trace`.
        generated: whether a model generated the response, for the page.
        on_progress: as in `trace`.

    Raises:
        StoreError: the index was built without text.
        DataError: the response has no word.
    """
    options = {"span": span, "top": top, "where": where}
    return trace_by_words(
        index_of(index), prompt, response, options=options, generated=generated, on_progress=on_progress
    )


def score(
    index: AnyIndex,
    queries: Rows,
    *,
    by: str | None = None,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    targets: str = LAST,
    engine: Engine | None = None,
) -> Scores:
    """Score every row of the index against every query, in memory; `write_scores` streams the same to a file.

    Args:
        index: an index, or an open session.
        queries: rows to score against; a row without a response gets one generated greedily.
        by: vector columns to score by; None is the method's own score.
        model: as in `trace`.
        loading: as in `trace`.
        columns: as in `trace`.
        targets: as in `trace`.
        engine: where rows are scored, `headwater.RayPool(...)` or None: in this process.
    """
    session = session_of(index, model, loading)
    asked = ask(session, read_queries(queries, columns), by=by, targets=targets)
    return score_all(session.index, asked.probes, queries=asked.names, metrics=asked.metrics, engine=engine)


def write_scores(
    index: AnyIndex,
    queries: Rows,
    out: str | Path,
    *,
    by: str | None = None,
    max_memory: int | str = DEFAULT_MEMORY,
    model: Model | None = None,
    loading: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    targets: str = LAST,
    verify: bool = False,
    engine: Engine | None = None,
) -> tuple[int, int]:
    """Write the scores of every row against every query to a Parquet file; return its numbers of (rows, queries).

    Other arguments as in `score`. Queries whose vectors do not fit in the memory are scored one part after another.

    Args:
        out: the file: `id`, then one float32 column a query.
        max_memory: bytes the scan may hold in query vectors, blocks and scores, as a number or as `2GiB`.
        verify: as in `trace`.
    """
    session = session_of(index, model, loading)
    if verify:
        require_all_intact(session.index)
    rows = read_queries(queries, columns)
    memory = parse_bytes(max_memory, where="max_memory") or DEFAULT_MEMORY
    asked = ask_in_parts(session, Aim(tuple(rows)), max_memory=memory, by=by, targets=targets)
    parts = ((part.probes, part.metrics) for part in asked)
    names = [row.id for row in rows]
    how: dict[str, Any] = {"out": out, "max_memory": memory, "engine": engine}
    return export_scores(session.index, parts, names, **how), len(names)
