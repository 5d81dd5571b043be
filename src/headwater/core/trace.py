"""A trace: each query, the rows that influenced it, and the tokens of both. Reports and JSON are made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from headwater.core.tables import Tabular

PUNCTUATION = " .,;:!?…'\"“”‘’()[]{}*_\n\t"
"""These are stripped from both ends of a word; the brackets of special tokens such as `</s>` are not."""


def bare_word(text: str) -> str:
    """A word without punctuation around it and without case: words that differ in nothing else are the same word."""
    return (text.strip(PUNCTUATION) or text.strip()).casefold()


@dataclass(frozen=True)
class TokenMap:
    """One number per token, in reading order.

    `values[i]` is None where the token has no number (the first token, padding of context, the masked prompt).
    A contribution has the sign of the score: positive tokens raise it.
    """

    tokens: tuple[str, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class TokenGrid:
    """Token × token influence: `values[i][j]` is that of row token i on query token j."""

    row_tokens: tuple[str, ...]
    query_tokens: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Hit:
    """One row found for one query.

    Attributes:
        rank: 1 is the first.
        id: the row's id.
        score: how much the row drove the response.
        row: its readable text: `prompt` and `response`, or `text`; of a chat, the last answer and all before it.
        metadata: all its other columns.
        record: the whole row as it was given, a chat as `messages`; commands that read it act on that very row.
        row_tokens, query_tokens: contributions of the row's tokens, and of the query's, to the score.
        grid: the row's tokens against the query's.
        modules: module name to its part of the score from whole gradients; the parts sum to that score.
    """

    rank: int
    id: str
    score: float
    row: Mapping[str, str]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    row_tokens: TokenMap | None = None
    query_tokens: TokenMap | None = None
    grid: TokenGrid | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    modules: Mapping[str, float] | None = None

    def as_record(self) -> dict[str, Any]:
        """The row as it was given, with its id and its metadata; without a `record`, the readable text."""
        return dict(self.record) or {**self.metadata, "id": self.id, **self.row}


@dataclass(frozen=True)
class QueryTrace:
    """One query: its text, its tokens with their losses (nats), and its hits, best first.

    `turns` are a chat's messages as (role, text), the answer last; empty for a query that is no chat.
    """

    id: str
    prompt: str | None
    response: str
    losses: TokenMap | None
    hits: tuple[Hit, ...]
    generated: bool = False
    turns: tuple[tuple[str, str], ...] = ()


def turns_of(messages: Sequence[Mapping[str, Any]] | None) -> tuple[tuple[str, str], ...]:
    """A chat's messages as (role, text); empty if there are none, or one has no text (parts, calls of tools)."""
    turns = tuple((str(m.get("role", "")), m.get("content")) for m in messages or ())
    return tuple((role, said) for role, said in turns if said) if all(isinstance(s, str) for _, s in turns) else ()


@dataclass(frozen=True)
class GroupEffect:
    """What a group of rows does to a query, in the units of a quadratic model of the training.

    Attributes:
        query, group: their names.
        rows: how many rows the group has.
        effect: how much the query's loss would rise without the group.
        summed: the same for each row left out alone, added up.
        interaction: effect − summed: positive if the rows stand in for one another.
    """

    query: str
    group: str
    rows: int
    effect: float
    summed: float
    interaction: float


@dataclass(frozen=True)
class Trace(Tabular):
    """The answer to a trace command.

    `about` states method, options, coverage, rows, model and sign in words, for the report's legend. `groups` is empty
    unless the effects of groups were asked for. `rarity` is how rare words (`bare_word`) are in the index, 0 for one
    that every row has; it is empty where nobody counted them.
    """

    method: str
    about: Mapping[str, str]
    queries: tuple[QueryTrace, ...]
    groups: tuple[GroupEffect, ...] = ()
    rarity: Mapping[str, float] = field(default_factory=dict)

    drawn: ClassVar[Callable[[Trace], str] | None] = None
    """How a notebook shows a trace; `headwater.api` sets it, because the report stands above this room."""

    def _repr_html_(self) -> str:
        """The report's page in a frame, for notebooks."""
        return super()._repr_html_() if Trace.drawn is None else Trace.drawn(self)

    def records(self) -> list[dict[str, Any]]:
        """The same as `hits`."""
        return self.hits()

    def hits(self) -> list[dict[str, Any]]:
        """One flat JSON-ready dictionary per hit: query, rank, id, score, and the row as it was given.

        Each can be read as a row again, as `unlearn(forget=...)` and `delete(rows=...)` do.
        """
        return list(self.each_hit())

    def each_hit(self) -> Iterator[dict[str, Any]]:
        """The dictionaries of `hits`, one after the other; of many queries they need not all be in memory."""
        for q in self.queries:
            for h in q.hits:
                own = {"query": q.id, "rank": h.rank, "id": h.id, "score": h.score, **_modules(h)}
                yield {**own, **_without_own(h.as_record())}


def _modules(hit: Hit) -> dict[str, Any]:
    return {} if hit.modules is None else {"modules": dict(hit.modules)}


def _without_own(record: dict[str, Any]) -> dict[str, Any]:
    """A row's record without the keys that its hit sets."""
    return {name: value for name, value in record.items() if name not in ("query", "rank", "id", "score")}
