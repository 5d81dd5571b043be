"""A trace: each query, the rows that influenced it, and the tokens of both. Reports and JSON are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headwater.core.tables import Tabular


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
    """One row found for one query: `row` holds its `prompt` and `response` or its `text`, `metadata` the rest."""

    rank: int
    id: str
    score: float
    row: Mapping[str, str]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    row_tokens: TokenMap | None = None
    query_tokens: TokenMap | None = None
    grid: TokenGrid | None = None


@dataclass(frozen=True)
class QueryTrace:
    """One query: its text, its tokens with their losses (nats), and its hits, best first."""

    id: str
    prompt: str | None
    response: str
    losses: TokenMap | None
    hits: tuple[Hit, ...]
    generated: bool = False


@dataclass(frozen=True)
class Trace(Tabular):
    """The answer to a trace command.

    `about` states method, options, coverage, rows, model and sign in words, for the report's legend.
    """

    method: str
    about: Mapping[str, str]
    queries: tuple[QueryTrace, ...]

    def records(self) -> list[dict[str, Any]]:
        """The same as `hits`."""
        return self.hits()

    def hits(self) -> list[dict[str, Any]]:
        """One flat JSON-ready dictionary per hit: query, rank, id, score, the row's text and its metadata."""
        return [
            {**h.metadata, "query": q.id, "rank": h.rank, "id": h.id, "score": h.score, **h.row}
            for q in self.queries
            for h in q.hits
        ]
