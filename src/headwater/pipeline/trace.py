"""Trace: from what the model said to the rows that taught it, with the tokens on both sides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.trace import Hit, QueryTrace, TokenMap, Trace
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow, token_texts
from headwater.features.encoder import TokenScores
from headwater.pipeline import ranking
from headwater.pipeline.session import Session
from headwater.search.codes import read_vectors
from headwater.search.scan import top_k

SIGN = "positive = proponent: training more on the row lowers the loss of the query"


@dataclass(frozen=True)
class TraceOptions:
    """How to trace.

    Attributes:
        top: hits a query.
        by: vector columns to rank by (`embedding`, `rise+embedding`); None is the method's own score.
        tokens: compute token maps of both sides, by re-running the queries and the shown rows.
        lowest: the lowest-scored rows instead of the highest.
        where: SQL condition over the index's columns.
    """

    top: int = 20
    by: str | None = None
    tokens: bool = False
    lowest: bool = False
    where: str | None = None


def trace_rows(session: Session, queries: Sequence[Row], options: TraceOptions, generated: set[str]) -> Trace:
    """The trace of `queries` (rows with responses) over the session's index."""
    encoded = session.reader.encode(queries, "query")
    chosen = ranking.weights(session.index.manifest.columns, options.by)
    probes = ranking.weigh(encoded.vectors, chosen)
    found = top_k(session.index, probes, options.top, where=options.where, lowest=options.lowest)
    shown = sorted({hit.address for hits in found for hit in hits})
    rows = dict(zip(shown, session.index.rows(shown), strict=True))
    maps = _read_maps(session, queries, rows, probes, chosen) if options.tokens and rows else None
    places = {address: i for i, address in enumerate(shown)}
    traces = []
    for i, (query, token_row) in enumerate(zip(queries, encoded.tokens, strict=True)):
        hits = [
            Hit(
                rank=rank,
                id=rows[hit.address].id,
                score=hit.score,
                row=rows[hit.address].fields(),
                metadata=rows[hit.address].metadata,
                row_tokens=_shares(*maps.rows[places[hit.address]], i) if maps else None,
                query_tokens=_shares(*maps.queries[i], places[hit.address]) if maps else None,
            )
            for rank, hit in enumerate(found[i], 1)
        ]
        losses = _map(token_row, maps.queries[i][1].losses.tolist()) if maps else None
        said = query.response if query.response is not None else (query.text or "")
        traces.append(QueryTrace(query.id, query.prompt, said, losses, tuple(hits), query.id in generated))
    return Trace(session.reader.method.spec.name, _about(session, options, chosen), tuple(traces))


@dataclass(frozen=True)
class _Maps:
    """Token contributions: of each shown row to each query, and of each query to each shown row."""

    rows: Sequence[tuple[TokenRow, TokenScores]]
    queries: Sequence[tuple[TokenRow, TokenScores]]


def _read_maps(
    session: Session,
    queries: Sequence[Row],
    rows: Mapping[int, Row],
    probes: Mapping[str, Float[Tensor, "queries _dim"]],
    chosen: Mapping[str, float],
) -> _Maps:
    """Shown rows re-run against the queries, and queries re-run against the shown rows' stored vectors."""
    vectors = read_vectors(session.index, list(rows), list(chosen))
    return _Maps(
        session.reader.token_scores(list(rows.values()), "train", probes),
        session.reader.token_scores(queries, "query", ranking.weigh(vectors, chosen)),
    )


def _shares(token_row: TokenRow, scores: TokenScores, probe: int) -> TokenMap:
    """A row's contributions to one probe, summed over the columns that make the score."""
    total = torch.stack([column[:, probe] for column in scores.values.values()]).sum(0)
    return _map(token_row, total.tolist())


def _map(token_row: TokenRow, values: Sequence[float]) -> TokenMap:
    texts = token_texts(token_row)
    # The first token is predicted by nothing, so it has no number.
    numbers = [None if i == 0 or math.isnan(value) else float(value) for i, value in enumerate(values)]
    return TokenMap(tuple(texts), tuple(numbers))


def _about(session: Session, options: TraceOptions, chosen: Mapping[str, float]) -> dict[str, str]:
    manifest = session.index.manifest
    settings = ", ".join(f"{name}={value}" for name, value in manifest.method.options.items())
    about = {
        "method": manifest.method.name,
        "ranked by": " + ".join(chosen),
        "order": "lowest scores first" if options.lowest else "highest scores first",
        "sign": SIGN,
        "coverage": str(manifest.coverage),
        "token values": "a token's value is its part of the score; a side's values sum to the score, up to rounding",
        "model": session.reader.loaded.name,
        "index": f"{session.index.path}, {session.index.count:,} rows",
        "options": settings,
        "headwater": manifest.library_version,
    }
    return {**about, "rows": f"where {options.where}"} if options.where else about
