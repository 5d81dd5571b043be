"""Trace what the model said to the rows that taught it, if wanted with token maps of both sides."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import UsageError, unknown_name
from headwater.core.trace import GroupEffect, Hit, QueryTrace, TokenGrid, TokenMap, Trace, turns_of
from headwater.data.records import as_record
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow, token_texts
from headwater.engines.blocks import Engine
from headwater.features.encoder import TokenScores
from headwater.index.checks import require_intact
from headwater.index.store import Index
from headwater.indexing.searching import top_k
from headwater.indexing.session import Session
from headwater.methods.bound import ModuleParts
from headwater.methods.method import Vectors
from headwater.search.approximate import measure_recall, top_k_approximate
from headwater.search.codes import read_vectors
from headwater.search.scan import DEFAULT_MEMORY, Found
from headwater.tracing.aims import Aim
from headwater.tracing.groups import group_effects
from headwater.tracing.queries import LAST, MAX_NEW_TOKENS, Asked, ask_in_parts
from headwater.tracing.rarity import rarity_of

ENGINES = ("exact", "ann")

OnProgress = Callable[[str, float], None]
"""Gets the name of a step, and the share of it that is done, 0 to 1."""

ADDITIVE = "a token's value is its part of the score; a side's values sum to the score, up to rounding"
SIMILARITY = "higher = more alike in the columns ranked by; the sign does not say whether a row helps or harms"
CODED = "a token's value is its part of the score of whole vectors, which the index's codes approximate"
RELATIVE = "a token's value says how much it counts compared with the others; a side's values do not sum to the score"


GROUPED = (
    "effect = how much the query's loss would rise without the whole group, in a quadratic model of the training in "
    "the space of the index's vectors; summed = each of its rows left out alone; interaction = the difference; damping"
)
"""What the effects of groups mean."""

ASKED = {
    "last": "the last answer of each query, or the whole text if it is a text",
    "response": "all answers of each query after its last user turn",
    "assistant": "all answers of each query",
    "all": "each query's whole text, the prompt included",
}
"""What the scores of a trace are about, by what of a query is asked about."""


@dataclass(frozen=True)
class TraceOptions:
    """How to trace. The attributes are arguments of `headwater.trace`, whose documentation describes them."""

    top: int = 20
    by: str | None = None
    tokens: bool = False
    lowest: bool = False
    where: str | None = None
    exact: int = 0
    grids: int | None = None
    engine: str = "exact"
    max_memory: int = DEFAULT_MEMORY
    targets: str = LAST
    by_module: bool = False
    group_by: str | None = None
    damping: float = 1.0
    spread: Engine | None = None
    """Where the rows are searched; None: in this process."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise unknown_name("engine", self.engine, ENGINES, where="--engine")
        if self.exact and (self.by is not None or self.exact < self.top):
            remedy = f"--exact {self.top} or more, and no --by"
            raise UsageError(f"a shortlist of {self.exact} rows ranked by {self.by or 'the method'}", remedy=remedy)

    @property
    def shown_grids(self) -> int:
        """For how many hits of each query a token × token grid is computed, where the method can."""
        return int(self.tokens) if self.grids is None else self.grids


def trace_rows(
    session: Session,
    queries: Sequence[Row] | Aim,
    options: TraceOptions,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    on_progress: OnProgress | None = None,
) -> Trace:
    """Trace `queries`, or what else is asked, over the session's index; missing responses are generated.

    `on_progress` gets the name of the step and the share of it that is done; what it raises ends the trace.

    Raises:
        UsageError: `options` asks for grids or exact scores that the method does not have, or for an unknown column.
        StoreError: the index was built without text, or `ann` finds no vector index.
    """
    if options.grids and not session.bound.form.grids:
        what = f"{session.bound.method.spec.name} cannot compare single tokens"
        raise UsageError(what, where="--grids", remedy="leave it out")
    session, tell = session.asking(options.targets), on_progress or _nothing
    seen: dict[int, _Shown] = {}
    traces: list[QueryTrace] = []
    groups: list[GroupEffect] = []
    notes: dict[str, str] = {}
    first: Asked | None = None
    aim = queries if isinstance(queries, Aim) else Aim(tuple(queries))
    how: dict[str, Any] = {"by": options.by, "max_new_tokens": max_new_tokens, "targets": options.targets}
    tell("reading the question", 0.0)
    for asked in ask_in_parts(session, aim, max_memory=options.max_memory, **how):
        found, engine = _search(session.index, asked, options, tell)
        first, notes = first or asked, notes or engine
        if options.exact:
            tell("scoring the shortlist exactly", 0.0)
            found = _ranked_exactly(session, asked, found, options)
        if options.tokens:
            tell("reading the rows that were found, token by token", 0.0)
        traces += _traced(session, asked, found, options, seen)
        if options.group_by is not None:
            by = (options.group_by, options.damping)
            groups += group_effects(session.index, asked.plain_vectors, asked.names, *by)
    about = _about(session, options, () if first is None else first.weights)
    about |= {"asked": aim.words} if aim.words else {}
    about |= notes
    if options.group_by is not None:
        about["groups"] = f"{GROUPED} {options.damping:g} times the mean eigenvalue"
    texts = [text for shown in seen.values() for text in shown.fields.values()] if options.tokens else []
    rarity = rarity_of(session.index, [*texts, *(query.response for query in traces)]) if texts else {}
    return Trace(session.bound.method.spec.name, about, tuple(traces), tuple(groups), rarity)


@dataclass(frozen=True)
class _Shown:
    """A row that is shown, in the forms in which hits have it; all hits of the row share them."""

    row: Row
    fields: Mapping[str, str]
    record: Mapping[str, Any]


def _traced(
    session: Session, asked: Asked, found: list[list[Found]], options: TraceOptions, seen: dict[int, _Shown]
) -> list[QueryTrace]:
    """The traces of some queries; `seen` keeps the rows that are shown, by address, for those of further queries."""
    shown = sorted({hit.address for hits in found for hit in hits})
    new = [address for address in shown if address not in seen]
    require_intact(session.index, new)
    for address, row in zip(new, session.index.rows(new), strict=True):
        seen[address] = _Shown(row, row.fields(), as_record(row))
    rows = {address: seen[address].row for address in shown}
    maps = _read_maps(session, asked, rows) if options.tokens and rows else None
    parts = _module_parts(session, asked, list(rows.values())) if options.by_module and rows else None
    known = _Known(session, asked, {address: seen[address] for address in shown}, maps, parts, options.shown_grids)
    return [_query_trace(i, asked, known.hits(i, found[i]), maps) for i in range(len(asked.names))]


@dataclass(frozen=True)
class _Known:
    """The rows found by address, with their token maps and modules where these were asked for."""

    session: Session
    asked: Asked
    rows: Mapping[int, _Shown]
    maps: _Maps | None
    parts: ModuleParts | None
    grids: int

    @cached_property
    def places(self) -> dict[int, int]:
        """Address to the row's place among the rows."""
        return {address: i for i, address in enumerate(self.rows)}

    def hits(self, number: int, found: Sequence[Found]) -> tuple[Hit, ...]:
        """What is shown of the rows found for one query; means and directions have no tokens of their own."""
        return tuple(self._hit(number, rank, hit) for rank, hit in enumerate(found, 1))

    def _hit(self, number: int, rank: int, hit: Found) -> Hit:
        shown, place, maps = self.rows[hit.address], self.places[hit.address], self.maps
        query = self.asked.rows[number] if self.asked.single else None
        return Hit(
            rank=rank,
            id=shown.row.id,
            score=hit.score,
            row=shown.fields,
            metadata=shown.row.metadata,
            row_tokens=_shares(*maps.rows[place], number) if maps else None,
            query_tokens=_shares(*maps.queries[number], place) if maps and query else None,
            grid=_grid(self.session, shown.row, query) if query and rank <= self.grids else None,
            record=shown.record,
            modules=self.parts.of(place, number) if self.parts else None,
        )


def _query_trace(number: int, asked: Asked, hits: tuple[Hit, ...], maps: _Maps | None) -> QueryTrace:
    """What is shown of a query; of a mean or a direction there are only the hits."""
    if not asked.single:
        return QueryTrace(asked.names[number], None, asked.aim.words, None, hits)
    query = asked.rows[number]
    losses = _map(maps.queries[number][0], maps.queries[number][1].losses.tolist()) if maps else None
    response = query.response if query.response is not None else (query.text or "")
    generated = query.id in asked.generated or query.said is not None
    return QueryTrace(query.id, query.prompt, response, losses, hits, generated, turns_of(query.messages))


def _module_parts(session: Session, asked: Asked, rows: Sequence[Row]) -> ModuleParts:
    if not asked.rows:
        raise UsageError("a direction has no modules", where="--by-module", remedy="leave it out")
    return session.bound.module_parts(rows, asked.rows).combined(asked.aim.combination)


def _nothing(step: str, share: float) -> None:
    """Tells nobody."""


def _search(
    index: Index, asked: Asked, options: TraceOptions, tell: OnProgress
) -> tuple[list[list[Found]], dict[str, str]]:
    """The rows found for each query, and a note on the search for `Trace.about`."""
    count = options.exact or options.top
    choice: dict[str, Any] = {"where": options.where, "lowest": options.lowest}
    tell("searching the rows", 0.0)
    if options.engine == "exact":
        rows = max(index.count, 1)
        choice |= {"on_rows": lambda done: tell("searching the rows", done / rows)}
        choice |= {"max_memory": options.max_memory, "metrics": asked.metrics, "engine": options.spread}
        found = top_k(index, asked.probes, count, **choice)
        return found, {}
    if asked.metrics:
        what = "this method's products have a metric, which a vector index cannot apply"
        raise UsageError(what, remedy="leave --engine out")
    found = top_k_approximate(index, asked.probes, count, **choice)
    recall = measure_recall(index, asked.probes, found, max_memory=options.max_memory, **choice)
    return found, {"engine": str(recall)}


def _ranked_exactly(
    session: Session, asked: Asked, found: list[list[Found]], options: TraceOptions
) -> list[list[Found]]:
    """Rank each query's shortlist by uncompressed scores and keep the top; equal scores keep the row order."""
    addresses = sorted({hit.address for hits in found for hit in hits})
    if not addresses:
        return found
    if not session.bound.form.exact:
        scores = _from_vectors(session, asked, addresses)
    elif not asked.rows:
        raise UsageError("a direction has no whole gradient", where="--exact", remedy="leave it out")
    else:
        scores = session.bound.exact_scores(session.index.rows(addresses), asked.rows) @ asked.aim.combination.mT
    place = {address: i for i, address in enumerate(addresses)}
    sign = 1.0 if options.lowest else -1.0
    rescored = [
        [Found(hit.address, float(scores[place[hit.address], query])) for hit in hits]
        for query, hits in enumerate(found)
    ]
    return [sorted(hits, key=lambda hit: (sign * hit.score, hit.address))[: options.top] for hits in rescored]


def _from_vectors(session: Session, asked: Asked, addresses: Sequence[int]) -> Float[Tensor, "rows queries"]:
    """Scores from the rows' vectors in float32, read again from their text: what an index of codes approximates."""
    read = session.bound.encode(session.index.rows(addresses), "train")
    total = torch.zeros(len(addresses), len(asked.names))
    for name, probes in asked.probes.items():
        part = read.vectors[name] @ probes.cpu().T
        if name in asked.metrics:
            part *= asked.metrics[name].row_scale(read.vectors[name], read.losses).cpu()[:, None]
        total += part
    return total


def _grid(session: Session, row: Row, query: Row) -> TokenGrid | None:
    """The grid of a row and a query, for target tokens only: the others have no influence."""
    grid = session.bound.token_grid(row, query)
    if grid is None:
        return None
    row_tokens, query_tokens, values = grid
    rows, columns = (tokens.response.nonzero()[0].tolist() for tokens in (row_tokens, query_tokens))
    row_texts, query_texts = token_texts(row_tokens), token_texts(query_tokens)
    cells = tuple(tuple(line) for line in values[rows][:, columns].tolist())
    return TokenGrid(tuple(row_texts[i] for i in rows), tuple(query_texts[j] for j in columns), cells)


@dataclass(frozen=True)
class _Maps:
    """Token contributions of each hit to its score with each query, and of each query to its score with each hit."""

    rows: Sequence[tuple[TokenRow, TokenScores]]
    queries: Sequence[tuple[TokenRow, TokenScores]]


def _read_maps(session: Session, asked: Asked, rows: Mapping[int, Row]) -> _Maps:
    """Read the hits again as rows scored on the queries, and the queries as rows scored on the hits' stored vectors.

    If a column has a metric, the token scores are scaled so that they still sum to the score under the metric.
    """
    stored = read_vectors(session.index, list(rows), list(asked.weights))
    losses = torch.tensor(session.index.at(list(rows), ["loss"])["loss"].to_pylist())
    towards = dict(stored)
    row_scale, query_scale = {}, dict(asked.weights)
    for name, metric in asked.metrics.items():
        row_scale[name] = metric.row_scale(stored[name], losses)
        if asked.read is not None:
            query_scale[name] = query_scale[name] * metric.query_scale(asked.read.vectors[name]).to(query_scale[name])
        towards[name] = metric.solve(stored[name]) * row_scale[name][:, None]
    of_rows = session.bound.token_scores(list(rows.values()), "train", asked.probes)
    of_queries = session.bound.token_scores(asked.rows, "query", towards) if asked.rows else []
    return _Maps(_scaled(of_rows, row_scale), _scaled(of_queries, query_scale))


def _scaled(
    found: Sequence[tuple[TokenRow, TokenScores]], scales: Mapping[str, Float[Tensor, " sides"]]
) -> list[tuple[TokenRow, TokenScores]]:
    """Multiply the i-th row's token scores by the i-th scale of their column."""

    def values(scores: TokenScores, i: int) -> dict[str, Tensor]:
        return {name: v * scales[name][i].to(v) if name in scales else v for name, v in scores.values.items()}

    return [(row, replace(scores, values=values(scores, i))) for i, (row, scores) in enumerate(found)]


def _shares(token_row: TokenRow, scores: TokenScores, probe: int) -> TokenMap:
    """A row's token contributions to its score with one probe, summed over the columns."""
    total = torch.stack([column[:, probe] for column in scores.values.values()]).sum(0)
    return _map(token_row, total.tolist())


def _map(token_row: TokenRow, values: Sequence[float]) -> TokenMap:
    texts = token_texts(token_row)
    # No position predicts the first token, so it has no value.
    numbers = [None if i == 0 or math.isnan(value) else float(value) for i, value in enumerate(values)]
    return TokenMap(tuple(texts), tuple(numbers))


def _ranked_by(form: Vectors, chosen: Collection[str]) -> str:
    """The columns that make the score."""
    added = form.agreement.columns if form.agreement is not None and set(form.agreement.columns) < set(chosen) else ()
    own = " + ".join(name for name in chosen if name not in added)
    return f"{own}, and {' and '.join(added)} as far as they agree with it" if added else own


def _token_values(session: Session, options: TraceOptions, chosen: Collection[str]) -> str:
    """What a token's value is of the score that is shown."""
    form, columns = session.bound.form, session.index.manifest.columns
    if not form.additive or (options.exact and form.exact):
        return RELATIVE
    coded = any(column.coded for column in columns if column.name in chosen)
    return CODED if coded and not options.exact else ADDITIVE


def _about(session: Session, options: TraceOptions, chosen: Collection[str]) -> dict[str, str]:
    manifest, method, form = session.index.manifest, session.bound.method, session.bound.form
    beside = options.by is not None and any(c.name in chosen and not c.weight for c in manifest.columns)
    settings = ", ".join(f"{name}={value}" for name, value in manifest.method.options.items())
    about = {
        "method": manifest.method.name,
        "ranked by": _ranked_by(form, chosen),
        "order": "lowest scores first" if options.lowest else "highest scores first",
        "sign": SIMILARITY if beside else method.meaning.text,
        "coverage": str(manifest.coverage),
        "token values": _token_values(session, options, chosen),
        "model": session.bound.reader.loaded.name,
        "asked about": ASKED[options.targets],
        "index": f"{session.index.path}, {session.index.count:,} rows",
        "options": settings,
        "headwater": manifest.library_version,
    }
    if options.exact:
        what = "whole gradients" if form.exact else "vectors that were read again"
        about["scores"] = f"from {what}, of the {options.exact} rows a query that the index scored highest"
    if options.where:
        met, rows = session.index.count_where(options.where), session.index.count
        about["rows"] = f"where {options.where}: {met:,} of {rows:,}"
    return about
