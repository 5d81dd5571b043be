"""Rows that may be the hits of a trace: opening them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwater.data.corpus import Corpus
from headwater.data.readers import open_source
from headwater.data.records import HIT_KEYS


def open_rows_or_hits(source: Any, *, pairs: str | None = None) -> Corpus:
    """The rows of a file, a frame or records; of hits, a row that several queries found is taken once, as ranked best.

    A corpus that is open already is returned as it is. `pairs` as in `open_corpus`.
    """
    if isinstance(source, Corpus):
        return source
    opened = open_source(source)
    best: dict[Any, tuple[int, int]] = {}
    worse = set()
    for number, record in opened.attempts():
        if isinstance(record, Mapping) and record.keys() >= set(HIT_KEYS):
            mine = (record["rank"], number)
            known = best.get(record["id"], mine)
            best[record["id"]] = min(mine, known)
            worse |= {max(mine, known)[1]} if known != mine else set()
    return Corpus(opened, {}, None, left_out=frozenset(worse), pairs=pairs)
