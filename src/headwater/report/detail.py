"""How much of a trace a page shows: all of it if the page stays small, else less of every row, in stated steps.

A browser needs a minute for a page of 100 MB, and a phone gives up. So a page has a size that it does not pass. What
gives way first is the shading of long texts outside their strongest passage, then the ends of long texts; rows and
scores stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from headwater.core.trace import TokenGrid, Trace
from headwater.report.grids import MOST_COLUMNS, MOST_ROWS
from headwater.report.texts import LONGEST_TEXT

LARGEST_PAGE = 2_000_000
"""Bytes of a page of up to 1,000 hits."""
LARGEST_HIT = 2_000
"""Bytes of each hit on a page of more."""
MOST_HITS = 5_000
"""Hits on one page; of a trace with more, the first queries are shown."""
FOLDED_ABOVE = 30
"""On a page of more hits, only the first `OPEN_HITS` of each query are open."""
OPEN_HITS = 3
_ALL = 10**9
_TOKEN_BYTES, _HIT_BYTES, _FOLDED_BYTES, _CELL_BYTES = 42, 1600, 650, 50
"""Roughly the bytes of a token with its value, an open and a folded hit without texts, and a cell of a grid."""


@dataclass(frozen=True)
class Detail:
    """The limits of a page.

    Attributes:
        tokens: a text with more tokens has values only in its strongest passage of at most this many tokens.
        characters: most characters of one text.
        folded: the same two limits for hits that are folded; these lack the query's tokens unless all is shown.
        chips: most values of metadata beside a hit.
        grids: whether token × token grids are shown.
        open: how many hits of a query are open.
    """

    tokens: int = _ALL
    characters: int = LONGEST_TEXT
    folded: tuple[int, int] = (_ALL, LONGEST_TEXT)
    chips: int = 12
    grids: bool = True
    open: int = _ALL

    @property
    def whole(self) -> bool:
        """Whether every token of every text has its value."""
        return self.tokens == self.folded[0] == _ALL

    @property
    def of_folded(self) -> Detail:
        """The limits of a folded hit."""
        return replace(self, tokens=self.folded[0], characters=self.folded[1])


_STEPS = (
    Detail(),
    Detail(grids=False),
    Detail(400, 8_000, (120, 4_000), grids=False),
    Detail(200, 4_000, (60, 2_000), grids=False),
    Detail(120, 2_000, (40, 1_200), 8, grids=False),
    Detail(80, 1_200, (24, 900), 8, grids=False),
    Detail(60, 1_000, (20, 700), 6, grids=False),
    Detail(60, 800, (16, 500), 6, grids=False),
    Detail(40, 600, (12, 350), 4, grids=False),
    Detail(24, 400, (12, 200), 4, grids=False),
    Detail(16, 200, (8, 100), 2, grids=False),
)


def details(trace: Trace) -> Iterator[Detail]:
    """The details to try in turn, from all to least; those that clearly make too large a page are left out."""
    hits = sum(len(query.hits) for query in trace.queries)
    shown = OPEN_HITS if hits > FOLDED_ABOVE else _ALL
    for detail in (replace(step, open=shown) for step in _STEPS):
        if detail.chips == _STEPS[-1].chips or _about_bytes(trace, detail) <= 1.1 * largest(trace):
            yield detail


def largest(trace: Trace) -> int:
    """Bytes that the page of this trace may have."""
    return max(LARGEST_PAGE, LARGEST_HIT * sum(len(query.hits) for query in trace.queries))


def first_queries(trace: Trace) -> Trace:
    """The trace's first queries with at most `MOST_HITS` hits together, at least one query; its `about` says so."""
    kept, hits = 0, 0
    for query in trace.queries:
        hits += len(query.hits) + 1
        if kept and hits > MOST_HITS:
            break
        kept += 1
    if kept == len(trace.queries):
        return trace
    said = f"the first {kept:,} of {len(trace.queries):,} queries; the file of --out has all hits"
    return replace(trace, queries=trace.queries[:kept], about={**trace.about, "shown on this page": said})


def _about_bytes(trace: Trace, detail: Detail) -> int:
    """Roughly the bytes of the page."""
    total = 0
    for query in trace.queries:
        losses = len(query.losses.tokens) if query.losses else 0
        total += _HIT_BYTES + _TOKEN_BYTES * min(losses, detail.tokens)
        for place, hit in enumerate(query.hits):
            folded = place >= detail.open
            own = detail.of_folded if folded else detail
            maps = [hit.row_tokens, hit.query_tokens if detail.whole or not folded else None]
            total += _FOLDED_BYTES if folded else _HIT_BYTES
            total += sum(_TOKEN_BYTES * min(len(m.tokens), own.tokens) for m in maps if m)
            total += sum(len(text[: own.characters].encode("utf-8", "replace")) for text in hit.row.values())
            total += _CELL_BYTES * _cells(hit.grid) if detail.grids and hit.grid else 0
    return total


def _cells(grid: TokenGrid) -> int:
    return min(len(grid.row_tokens), MOST_ROWS) * min(len(grid.query_tokens), MOST_COLUMNS)
