"""Prepare a trace for the template: format every number, choose every colour, cut every long text.

So the template needs no arithmetic. User text stays plain here; the page's environment escapes it on output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headwater.core.trace import Hit, QueryTrace, TokenMap, Trace
from headwater.report.colours import loss_class, signed_class
from headwater.report.grids import GridView, view_grid
from headwater.report.tables import number_text, signed_text
from headwater.report.tokens import Piece, by_word, checked, over_fields, require_finite, strongest_passage

LONG_TEXT = 900
"""A text with more characters is folded."""
WHOLE = "text as the model saw it"
"""Label of a token map that does not contain the row's texts word for word."""
PASSAGE = 60
"""How many tokens of a folded text are visible: its strongest passage."""
OPENING = 80
"""Characters of a query in the list of queries."""
WORDS = 6
"""How many words a query's summary names."""
FAINTEST = 0.1
"""A summary does not name words below this share of the strongest."""
SOURCES = ("provider", "source", "vendor", "dataset", "label")
"""Metadata keys that come first, and that a query's summary counts."""


@dataclass(frozen=True)
class Shaded:
    """One token on the page: text, CSS class, tooltip; `lead` is its leading space, which is not shaded."""

    text: str
    css: str
    title: str
    lead: str = ""


@dataclass(frozen=True)
class Field:
    """A text under a label; with a token map it has `tokens`; a long text shows its `excerpt` until it is opened."""

    label: str
    text: str
    tokens: tuple[Shaded, ...] = ()
    excerpt: tuple[Shaded, ...] = ()
    cut: tuple[bool, bool] = (False, False)
    size: str = ""


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
    fields: tuple[Field, ...]
    driven: tuple[Field, ...]
    row_sum: str
    query_sum: str
    grid: GridView | None


@dataclass(frozen=True)
class QueryView:
    """One query with its summary: the words of both sides, the sources of the rows, the ends of the colour scales."""

    anchor: str
    id: str
    opening: str
    fields: tuple[Field, ...]
    hits: tuple[HitView, ...]
    row_words: tuple[Shaded, ...]
    query_words: tuple[Shaded, ...]
    sources: tuple[tuple[str, str], ...]
    scale: str
    loss_scale: str
    has_negative: bool
    lowest: bool


@dataclass(frozen=True)
class _Scales:
    token: float
    loss: float
    score: float


def view_queries(trace: Trace) -> list[QueryView]:
    """One view a query. All queries share one loss scale; all token maps of a query share one token scale."""
    losses = [v for q in trace.queries if q.losses for v in q.losses.values if v is not None]
    top_loss = max(losses, default=0.0)
    return [_view_query(query, number, top_loss) for number, query in enumerate(trace.queries, start=1)]


def _view_query(query: QueryTrace, number: int, top_loss: float) -> QueryView:
    maps = [m for hit in query.hits for m in (hit.row_tokens, hit.query_tokens) if m]
    scales = _Scales(
        token=max((abs(v) for m in maps for v in m.values if v is not None), default=0.0),
        loss=top_loss,
        score=max((abs(hit.score) for hit in query.hits), default=0.0),
    )
    where = f"query {query.id}"
    lowest = bool(query.hits) and query.hits[0].score < query.hits[-1].score
    texts = _texts(query)
    rows = [_lay(h.row, h.row_tokens, where=f"{where}, row {h.id}") for h in query.hits if h.row_tokens]
    driven = [_lay(texts, h.query_tokens, where=f"{where}, row {h.id}") for h in query.hits if h.query_tokens]
    return QueryView(
        anchor=f"q{number}",
        id=query.id,
        opening=_opening(query.prompt or query.response),
        fields=_fields(texts, query.losses, scales, where=where, loss=True),
        hits=tuple(_view_hit(hit, query, scales, f"q{number}-{place}") for place, hit in enumerate(query.hits, 1)),
        row_words=_word_chips(rows, lowest),
        query_words=_word_chips(driven, lowest),
        sources=_sources(query.hits),
        scale=number_text(scales.token, digits=3) if maps else "",
        loss_scale=number_text(scales.loss, digits=3) if query.losses else "",
        has_negative=any(hit.score < 0 for hit in query.hits),
        lowest=lowest,
    )


def _view_hit(hit: Hit, query: QueryTrace, scales: _Scales, anchor: str) -> HitView:
    where = f"query {query.id}, row {hit.id}"
    require_finite(hit.score, where=where)
    driven = _fields(_texts(query), hit.query_tokens, scales, where=where) if hit.query_tokens else ()
    return HitView(
        anchor=anchor,
        rank=hit.rank,
        id=hit.id,
        score=signed_text(hit.score, padded=True),
        negative=hit.score < 0,
        bar=round(100 * abs(hit.score) / scales.score, 1) if scales.score else 0.0,
        chips=tuple((key, _chip(value)) for key, value in _in_order(hit.metadata)),
        fields=_fields(hit.row, hit.row_tokens, scales, where=where),
        driven=tuple(field for field in driven if any(token.title for token in field.tokens)),
        row_sum=_sum(hit.row_tokens),
        query_sum=_sum(hit.query_tokens),
        grid=view_grid(hit.grid, where=where) if hit.grid else None,
    )


def _opening(text: str) -> str:
    """The beginning of a text on one line, for the list of queries."""
    line = " ".join(text.split())
    return line if len(line) <= OPENING else line[:OPENING] + "…"


def _texts(query: QueryTrace) -> dict[str, str]:
    return {"prompt": query.prompt or "", "model’s answer" if query.generated else "response": query.response}


def _fields(
    texts: Mapping[str, str], tokens: TokenMap | None, scales: _Scales, *, where: str, loss: bool = False
) -> tuple[Field, ...]:
    """The texts, shaded by the map if it fits them; a map that does not fit becomes a field of its own."""
    laid = _lay(texts, tokens, where=where) if tokens else {}
    plain = tuple(_plain(label, text) for label, text in texts.items() if text and label not in laid)
    return (*plain, *(_shaded(label, pieces, scales, loss) for label, pieces in laid.items()))


def _lay(texts: Mapping[str, str], tokens: TokenMap, *, where: str) -> dict[str, tuple[Piece, ...]]:
    """The map's pieces by the labels of the texts if it fits them, else all under `WHOLE`."""
    pieces = checked(tokens, where=where)
    present = {label: text for label, text in texts.items() if text}
    parts = over_fields(pieces, list(present.values()))
    return {WHOLE: pieces} if parts is None else dict(zip(present, parts, strict=True))


def _plain(label: str, text: str) -> Field:
    if len(text) <= LONG_TEXT:
        return Field(label, text)
    head = Shaded(text[: LONG_TEXT // 3], "", "")
    return Field(label, text, excerpt=(head,), cut=(False, True), size=f"{len(text):,} characters")


def _shaded(label: str, pieces: Sequence[Piece], scales: _Scales, loss: bool) -> Field:
    """A shaded text; the template's own tokens are drawn only if they have a number."""
    pieces = [piece for piece in pieces if not piece.framing or piece.value is not None]
    tokens = tuple(_shade(piece, scales, loss) for piece in pieces)
    if len(pieces) <= 2 * PASSAGE and sum(len(piece.text) for piece in pieces) <= LONG_TEXT:
        return Field(label, "", tokens)
    start, stop = strongest_passage(pieces, PASSAGE)
    cut = (start > 0, stop < len(tokens))
    return Field(label, "", tokens, excerpt=tokens[start:stop], cut=cut, size=f"{len(tokens):,} tokens")


def _shade(piece: Piece, scales: _Scales, loss: bool) -> Shaded:
    css = loss_class(piece.value, scales.loss) if loss else signed_class(piece.value, scales.token)
    if piece.framing:
        css += " framing"
    if piece.text == "":
        css += " empty"
    elif "\n" in piece.text:
        css += " newline"
    text = piece.text.lstrip(" ") or piece.text
    lead = piece.text.removesuffix(text)
    if piece.value is None:
        return Shaded(text, css, "", lead)
    title = f"{number_text(piece.value, digits=6)} nats" if loss else signed_text(piece.value, digits=6)
    return Shaded(text, css, title, lead)


def _word_chips(maps: Iterable[Mapping[str, Sequence[Piece]]], lowest: bool) -> tuple[Shaded, ...]:
    words = by_word((part for laid in maps for part in laid.values()), WORDS, lowest=lowest)
    top = abs(words[0][1]) if words else 0.0
    words = [(word, value) for word, value in words if abs(value) >= FAINTEST * top]
    return tuple(Shaded(w, signed_class(value, top), signed_text(value, digits=3)) for w, value in words)


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
    return number_text(value) if isinstance(value, float) else str(value)


def _sum(tokens: TokenMap | None) -> str:
    """The sum of a map's values, to compare with the score."""
    return signed_text(sum(v for v in tokens.values if v is not None), padded=True) if tokens else ""
