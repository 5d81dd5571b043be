"""Queries: what the model said, as rows. If a query has no response, the model generates one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.arguments import named
from headwater.core.errors import DataError, UsageError, unknown_name
from headwater.core.spec import Column
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row, with_response
from headwater.indexing.session import Session
from headwater.methods.bound import EncodedRows
from headwater.models.generate import Answer, generate_answers
from headwater.models.reader import Reader
from headwater.search.products import Metrics, QueryVectors, apply_metrics, fit_metrics
from headwater.tracing.aims import Aim

MAX_NEW_TOKENS = 128
"""By default a generated response is cut after this many tokens."""

LAST = "last"
"""By default the last answer of a query is asked about."""

_SHARE = 4
"""A quarter of the memory of a search may hold query vectors; of more queries, some are asked after the others."""

_COPIES, _FEWEST = 4, 16
"""How many copies of the query vectors a search holds, and how many queries are asked at once at least."""

Weights = Mapping[str, Float[Tensor, " rows"]]
"""Column name to the weight of its inner product for each row that is asked about."""

Queries = Any
"""Whatever `open_corpus` accepts: a file of rows, a frame, or rows."""


def read_queries(source: Queries, columns: Mapping[str, str] | None = None) -> list[Row]:
    """The query rows of a file or a list; rows may lack a response. `columns` maps roles to columns' names."""
    mapping = named(columns, where="columns", example={"prompt": "ask"})
    return list(open_corpus(source, mapping=mapping or None, need_response=False))


def prompt_query(
    prompt: str | Sequence[Mapping[str, Any]],
    response: str | Answer | None = None,
    span: str | Sequence[str] | None = None,
) -> Row:
    """A query made of one prompt; a `response` of None is generated later; `span` is a part of it to trace alone.

    Of an `Answer`, the tokens are read that the model wrote.
    """
    if not prompt:
        raise UsageError("the prompt is empty", where="--prompt", remedy="give what the model was asked")
    words = (span,) if isinstance(span, str) else tuple(span or ())
    if isinstance(prompt, str):
        asked = Row(id="prompt", ordinal=0, prompt=prompt)
    else:
        record = {"id": "prompt", "messages": [dict(message) for message in prompt]}
        (asked,) = open_corpus([record], need_response=False)
        if asked.response is not None:
            raise UsageError("the chat ends with an answer", where="prompt", remedy="leave it out; give it as response")
    if response is None:
        return replace(asked, hotwords=words) if words else asked
    text = response if isinstance(response, str) else response.text
    if not text.strip():
        remedy = "give the response, or leave it out and one is generated"
        raise UsageError("the response is empty", where="--response", remedy=remedy)
    said = None if isinstance(response, str) else response.ids
    return replace(with_response(asked, text), said=said, hotwords=words)


def answer_of(
    session: Session,
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    on_text: Callable[[str], None] | None = None,
) -> Answer:
    """What the model answers, greedily; `on_text` gets the answer so far after each token."""
    question = session.bound.reader.tokenization.question(prompt_query(prompt))
    loaded = session.bound.reader.loaded
    (found,) = generate_answers(loaded, [question], max_new_tokens=max_new_tokens, on_text=on_text)
    return found


def with_responses(
    rows: Sequence[Row], reader: Reader, *, max_new_tokens: int = MAX_NEW_TOKENS
) -> tuple[list[Row], set[str]]:
    """Generate every missing response greedily; returns the rows and the ids of those whose response was generated.

    A chat is answered as a whole. What the model said is kept as its token ids, so the targets are exactly these: the
    closing token is one of them only if the model wrote it.
    """
    missing = [i for i, row in enumerate(rows) if row.text is None and row.response is None]
    questions = [reader.tokenization.question(rows[i]) for i in missing]
    done = list(rows)
    answers = generate_answers(reader.loaded, questions, max_new_tokens=max_new_tokens) if questions else []
    for i, answer in zip(missing, answers, strict=True):
        if not answer.text.strip():
            raise DataError("the model answered nothing", where=f"query '{rows[i].id}'", remedy="give a response")
        done[i] = replace(rows[i], response=answer.text, said=answer.ids)
    return done, {rows[i].id for i in missing}


@dataclass(frozen=True)
class Asked:
    """Queries with everything a search needs.

    Attributes:
        aim: what is asked.
        rows: the queries, each with a response, and those that they are held against.
        generated: ids of the queries whose response the model generated.
        read: their tokens, vectors and losses; None for a direction.
        weights: column name to the weight of its inner product in a score, one for each row that is read (or
            direction).
        probes: the vectors that rows' vectors are multiplied with, weighted and under the metrics: one a name.
        metrics: the metric of each column that has one, fitted on the index.
    """

    aim: Aim
    rows: list[Row]
    generated: set[str]
    read: EncodedRows | None
    weights: Weights
    probes: QueryVectors
    metrics: Metrics

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what is asked about: the queries' ids, but for means and directions."""
        return self.aim.names

    @property
    def plain_vectors(self) -> QueryVectors:
        """The vectors of what is asked about, weighted, without the method's own metric."""
        if self.read is None:
            return weigh(self.aim.direction, self.weights)
        weighed = weigh(self.read.vectors, self.weights)
        return {name: self.aim.combination @ vectors for name, vectors in weighed.items()}

    @property
    def single(self) -> bool:
        """Whether each name stands for a query of its own, which can be shown."""
        return bool(self.rows) and not self.aim.mean


def ask(
    session: Session,
    queries: Sequence[Row] | Aim,
    *,
    by: str | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    targets: str = LAST,
    metrics: Metrics | None = None,
) -> Asked:
    """Prepare queries for a search: generate missing responses, read vectors, fit the method's metrics on the index.

    Args:
        session: the index and its method on a model.
        queries: what the model said, or what else is asked; rows may lack a response.
        by: vector columns to rank by (`embedding`, `rise+embedding`); None for the method's own score.
        max_new_tokens: a generated response is cut after this many tokens.
        targets: what of a query is asked about, a name of `TARGETS`; `last` is the answer that is shown.
        metrics: those of other queries of the same call; None fits them.

    Raises:
        UsageError: `by` names a column that the index does not have.
        DataError: the model generates an empty response.
    """
    session = session.asking(targets)
    index, bound = session.index, session.bound
    chosen = weights(index.manifest.columns, by)
    aim = queries if isinstance(queries, Aim) else Aim(tuple(queries))
    if metrics is None:
        wanted = {} if bound.form.metrics is None else bound.form.metrics(bound.encoder)
        wanted = {name: metric for name, metric in wanted.items() if name in chosen}
        device = bound.reader.loaded.device
        metrics = fit_metrics(index, wanted, device if device.type == "cuda" else "cpu")  # others lack float64
    if aim.direction:
        fixed = repeated(chosen, len(aim.names))
        return Asked(aim, [], set(), None, fixed, weigh(apply_metrics(metrics, aim.direction), fixed), metrics)
    answered, generated = with_responses(aim.rows, bound.reader, max_new_tokens=max_new_tokens)
    read = bound.encode(answered, "query")
    known = repeated(chosen, len(answered))
    if by is None and bound.form.agreement is not None:
        every = {name: read.vectors[name] for name in bound.form.agreement.columns} | weigh(read.vectors, known)
        known |= bound.form.agreement.weights(index, every)
    probes = weigh(apply_metrics(metrics, {name: read.vectors[name] for name in known}), known)
    if aim.words:
        probes = {name: aim.combination.to(vectors) @ vectors for name, vectors in probes.items()}
    return Asked(aim, answered, generated, read, known, probes, metrics)


def ask_in_parts(session: Session, aim: Aim, *, max_memory: int, **how: Any) -> Iterator[Asked]:
    """The same for many queries, in parts that fit in memory, each made when it is drawn; metrics are fitted once."""
    metrics: Metrics | None = None
    for part in in_parts(session, aim, max_memory // _SHARE):
        asked = ask(session, part, **how, metrics=metrics)
        metrics = asked.metrics
        yield asked


def in_parts(session: Session, aim: Aim, max_memory: int) -> Iterator[Aim]:
    """Single queries in parts whose vectors fit in about `max_memory` bytes; whatever else is asked, as it is."""
    if aim.words:
        yield aim
        return
    each = _COPIES * 4 * sum(column.dim for column in session.bound.encoder.columns)
    rows = max(max_memory // each, _FEWEST)
    yield from (Aim(aim.queries[start : start + rows]) for start in range(0, len(aim.queries), rows))


def weights(columns: Sequence[Column], by: str | None) -> dict[str, float]:
    """Column name to weight, for the columns named in `by` (`rise+embedding`), or if it is None for the method's score.

    Raises:
        UsageError: `by` names a column that the index does not have.
    """
    own = {c.name: c.weight for c in columns if c.weight}
    if by is None:
        return own
    known = {c.name: c for c in columns}
    chosen = {}
    for name in by.split("+"):
        if name not in known:
            raise unknown_name("vector column", name, known, where=f"--by {by}")
        chosen[name] = known[name].weight or 1.0
    return chosen


def repeated(chosen: Mapping[str, float], rows: int) -> dict[str, Float[Tensor, " rows"]]:
    """The same weights for every row."""
    return {name: torch.full((rows,), weight) for name, weight in chosen.items()}


def weigh(vectors: Mapping[str, Float[Tensor, "rows _dim"]], chosen: Weights) -> dict[str, Float[Tensor, "rows _dim"]]:
    """Multiply vectors by their columns' weights, so that a score is the plain sum of the columns' inner products."""
    return {name: vectors[name] * weight.to(vectors[name])[:, None] for name, weight in chosen.items()}
