"""Prepare a trace for the template: format every number, choose every colour, cut every long text.

So the template needs no arithmetic. User text stays plain here; the page's environment escapes it on output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from headwater.core.trace import Hit, QueryTrace, TokenMap, Trace, turns_of
from headwater.report.colours import signed_class
from headwater.report.detail import Detail
from headwater.report.fields import Field, Layout, Painter, Shaded
from headwater.report.grids import GridView, view_grid
from headwater.report.tables import number_text, signed_text
from headwater.report.texts import IN_INDEX, IN_QUERY, LONGEST_NAME, shortened
from headwater.report.tokens import LONGEST_WORD, Piece, by_word, require_finite

OPENING = 80
"""Characters of a query in the list of queries."""
WORDS = 6
"""How many words a query's summary names."""
FAINTEST = 0.1
"""A summary does not name words below this share of the strongest."""
SOURCES = ("provider", "source", "vendor", "dataset", "label")
"""Metadata keys that come first, and that a query's summary counts."""


@dataclass(frozen=True)
class HitView:
    """One hit; `bar` is its score in percent of the largest |score| of the query."""

    anchor: str
    rank: int
    id: str
    score: str
    negative: bool
    bar: float
    chips: tuple[tuple[str, str], ...]
    more_chips: int
    fields: tuple[Field, ...]
    driven: tuple[Field, ...]
    row_sum: str
    query_sum: str
    grid: GridView | None


@dataclass(frozen=True)
class QueryView:
    """One query with its summary: the words of both sides, the sources of the rows, the ends of the colour scales;
    `folded` are the hits that a long page shows when asked."""

    anchor: str
    id: str
    opening: str
    fields: tuple[Field, ...]
    hits: tuple[HitView, ...]
    folded: tuple[HitView, ...]
    row_words: tuple[Shaded, ...]
    query_words: tuple[Shaded, ...]
    sources: tuple[tuple[str, str], ...]
    scale: str
    loss_scale: str
    has_negative: bool
    lowest: bool


@dataclass(frozen=True)
class _Painters:
    """What draws the texts of a query: its own text by loss, and rows and query by influence."""

    loss: Painter
    row: Painter
    folded: Painter
    driven: Painter
    highest: float


def view_queries(trace: Trace, detail: Detail, layout: Layout) -> list[QueryView]:
    """One view a query. All queries share one loss scale; all token maps of a query share one token scale."""
    losses = [v for q in trace.queries if q.losses for v in q.losses.values if v is not None]
    top_loss = max(losses, default=0.0)
    return [
        _view_query(query, number, partial(Painter, detail=detail, layout=layout), top_loss, trace.rarity)
        for number, query in enumerate(trace.queries, start=1)
    ]


def _view_query(
    query: QueryTrace, number: int, painter: Callable[..., Painter], top_loss: float, rarity: Mapping[str, float]
) -> QueryView:
    maps = [m for hit in query.hits for m in (hit.row_tokens, hit.query_tokens) if m]
    scale = max((abs(v) for m in maps for v in m.values if v is not None), default=0.0)
    row = painter(scale, whole=IN_INDEX)
    detail, lay = row.detail, row.layout.lay
    painters = _Painters(
        loss=painter(top_loss, whole=IN_QUERY, loss=True),
        row=row,
        folded=replace(row, detail=detail.of_folded),
        driven=replace(row, whole=IN_QUERY, bare=not detail.whole),
        highest=max((abs(hit.score) for hit in query.hits), default=0.0),
    )
    where = f"query {shortened(query.id, LONGEST_NAME)}"
    lowest = bool(query.hits) and query.hits[0].score < query.hits[-1].score
    texts = _texts(query)
    rows = [lay(_row_texts(h), h.row_tokens, where=f"{where}, row {h.id}") for h in query.hits if h.row_tokens]
    driven = [lay(texts, h.query_tokens, where=f"{where}, row {h.id}") for h in query.hits if h.query_tokens]
    hits = tuple(
        _view_hit(hit, query, painters, f"q{number}-{place}", folded=place > detail.open)
        for place, hit in enumerate(query.hits, 1)
    )
    return QueryView(
        anchor=f"q{number}",
        id=shortened(query.id, LONGEST_NAME),
        opening=_opening(query.prompt or query.response),
        fields=painters.loss.fields(texts, query.losses, where=where),
        hits=hits[: detail.open],
        folded=hits[detail.open :],
        row_words=_word_chips(rows, lowest, rarity),
        query_words=_word_chips(driven, lowest, rarity),
        sources=_sources(query.hits),
        scale=number_text(scale, digits=3) if maps else "",
        loss_scale=number_text(top_loss, digits=3) if query.losses else "",
        has_negative=any(hit.score < 0 for hit in query.hits),
        lowest=lowest,
    )


def _view_hit(hit: Hit, query: QueryTrace, painters: _Painters, anchor: str, *, folded: bool) -> HitView:
    where = f"query {query.id}, row {hit.id}"
    require_finite(hit.score, where=where)
    painter, detail = painters.folded if folded else painters.row, painters.row.detail
    metadata, driven = list(_in_order(hit.metadata)), tuple[Field, ...]()
    if hit.query_tokens and (detail.whole or not folded):
        driven = painters.driven.fields(_texts(query), hit.query_tokens, where=where)
    return HitView(
        anchor=anchor,
        rank=hit.rank,
        id=shortened(hit.id, LONGEST_NAME),
        score=signed_text(hit.score, padded=True),
        negative=hit.score < 0,
        bar=round(100 * abs(hit.score) / painters.highest, 1) if painters.highest else 0.0,
        chips=tuple((shortened(key, LONGEST_NAME), _chip(value)) for key, value in metadata[: detail.chips]),
        more_chips=max(len(metadata) - detail.chips, 0),
        fields=painter.fields(_row_texts(hit), hit.row_tokens, where=where),
        driven=tuple(field for field in driven if any(t.title for t in (*field.tokens, *field.excerpt))),
        row_sum=_sum(hit.row_tokens),
        query_sum=_sum(hit.query_tokens),
        grid=view_grid(hit.grid, where=where) if hit.grid and detail.grids else None,
    )


def _opening(text: str) -> str:
    """The beginning of a text on one line, for the list of queries."""
    line = " ".join(text.split())
    return line if len(line) <= OPENING else line[:OPENING] + "…"


def _texts(query: QueryTrace) -> dict[str, str]:
    answer = "model’s answer" if query.generated else "response"
    return _turns(query.turns, answer) or {"prompt": query.prompt or "", answer: query.response}


def _row_texts(hit: Hit) -> Mapping[str, str]:
    """The texts of a row; a chat of more than a question and an answer is shown turn by turn, as the model saw it."""
    messages = hit.record.get("messages")
    return (_turns(turns_of(messages), "response") if isinstance(messages, list) else {}) or hit.row


def _turns(turns: Sequence[tuple[str, str]], answer: str) -> dict[str, str]:
    """The texts of a chat by who says them, numbered if somebody speaks again; empty for a question and its answer."""
    if not turns or [role for role, _ in turns] == ["user", "assistant"]:
        return {}
    found: dict[str, str] = {}
    for place, (role, said) in enumerate(turns, 1):
        last = place == len(turns) and role == "assistant"
        label = answer if last else role
        found[label if label not in found else f"{label}, turn {place}"] = said
    return found


def _word_chips(
    maps: Iterable[Mapping[str, Sequence[Piece]]], lowest: bool, rarity: Mapping[str, float]
) -> tuple[Shaded, ...]:
    words = by_word((part for laid in maps for part in laid.values()), WORDS, lowest=lowest, rarity=rarity)
    top = max((abs(value) for _, value in words), default=0.0)
    words = [(word, value) for word, value in words if abs(value) >= FAINTEST * top]
    return tuple(
        Shaded(shortened(w, LONGEST_WORD), signed_class(value, top), signed_text(value, digits=3)) for w, value in words
    )


def _sources(hits: Sequence[Hit]) -> tuple[tuple[str, str], ...]:
    """For each key of `SOURCES`, its three most frequent values and how many hits have them."""
    counts = {key: Counter(_chip(h.metadata[key]) for h in hits if key in h.metadata) for key in SOURCES}
    return tuple(
        (key, ", ".join(f"{value} ({n} of {len(hits)})" for value, n in counter.most_common(3)))
        for key, counter in counts.items()
        if counter
    )


def _in_order(metadata: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    first = [(key, metadata[key]) for key in SOURCES if key in metadata]
    return [*first, *((key, value) for key, value in metadata.items() if key not in SOURCES)]


def _chip(value: Any) -> str:
    """A value of metadata as the page shows it; truth values are written as in JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    return number_text(value) if isinstance(value, float) else shortened(str(value), LONGEST_NAME)


def _sum(tokens: TokenMap | None) -> str:
    """The sum of a map's values, to compare with the score."""
    return signed_text(sum(v for v in tokens.values if v is not None), padded=True) if tokens else ""
