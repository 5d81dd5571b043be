"""Rank the rows of an index by the words they share with an answer: BM25, without a model, in one pass over the text.

The formula and the words are those of `headwater.methods.lexical` (Lucene's BM25 as bm25s computes it); only the words
of the query are counted, so that memory holds a few numbers a row that has one of them, and no text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.core.errors import DataError, StoreError
from headwater.core.trace import Hit, QueryTrace, Trace, turns_of
from headwater.data.records import as_record
from headwater.index.store import Index
from headwater.methods.lexical import K1, WORDS, B
from headwater.tracing.queries import prompt_query
from headwater.tracing.trace import OnProgress

_WORD = re.compile(r"(?u)\b\w\w+\b")
"""bm25s' own rule: two or more word characters."""


def rank_by_words(
    index: Index, asked: str, *, top: int, where: str | None = None, on_progress: OnProgress | None = None
) -> list[tuple[int, float]]:
    """The addresses and scores of the rows whose response (or text) shares most with `asked`, best first.

    How rare a word is, is counted over all rows, also if `where` leaves some out. Rows that share no word are left out;
    of equal scores the earlier row comes first.

    Raises:
        StoreError: the index was built without text.
        DataError: `asked` has no word of two or more letters.
    """
    times = Counter(_WORD.findall(asked.lower()))
    if not times:
        raise DataError("no word of two or more letters", where="bm25", remedy="select more words")
    fields = [name for name in ("response", "text") if name in index.plain]
    if not index.manifest.keeps_text or not fields:
        raise StoreError("the index was built without text, so words cannot be compared", where="bm25")
    words = {word: place for place, word in enumerate(times)}
    addresses, lengths, counts, rows, total = _counted(index, fields, words, on_progress)
    if where is not None:
        kept = [batch.column("_rowaddr").to_numpy() for batch in index.batches([], where=where)]
        chosen = np.isin(addresses, np.concatenate([np.empty(0, np.uint64), *kept]).astype(np.int64))
    else:
        chosen = np.ones(len(addresses), bool)
    having = (counts > 0).sum(axis=0)
    rarity = np.log(1 + (rows - having + 0.5) / (having + 0.5)) * np.array(list(times.values()))
    scale = K1 * (1 - B + B * lengths / max(total / max(rows, 1), 1e-9))
    scores = (counts / (counts + scale[:, None]) * rarity).sum(axis=1)
    places = np.flatnonzero(chosen)
    best = places[np.lexsort((places, -scores[places]))[:top]]
    return [(int(addresses[i]), float(scores[i])) for i in best]


def trace_by_words(
    index: Index,
    prompt: str | Sequence[Mapping[str, Any]],
    response: str,
    *,
    options: Mapping[str, Any],
    generated: bool = False,
    on_progress: OnProgress | None = None,
) -> Trace:
    """A trace whose scores are BM25; `options` are `span`, `where` and `top`, as in `headwater.trace`."""
    query = prompt_query(prompt, response, options["span"])
    asked, where = " ".join(query.hotwords) or response, options["where"]
    found = rank_by_words(index, asked, top=options["top"], where=where, on_progress=on_progress)
    rows = index.rows([address for address, _ in found])
    hits = tuple(
        Hit(rank, row.id, score, row.fields(), row.metadata, record=as_record(row))
        for rank, ((_, score), row) in enumerate(zip(found, rows, strict=True), 1)
    )
    about = {
        "method": "bm25",
        "ranked by": "words that the row's answer shares with the query's",
        "order": "highest scores first",
        "sign": WORDS.text,
        "index": f"{index.path}, {index.count:,} rows",
    }
    if where:
        about["rows"] = f"where {where}: {index.count_where(where):,} of {index.count:,}"
    shown = QueryTrace(query.id, query.prompt, response, None, hits, generated, turns_of(query.messages))
    return Trace("bm25", about, (shown,))


def _counted(
    index: Index, fields: Sequence[str], words: Mapping[str, int], on_progress: OnProgress | None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], int, int]:
    """Addresses, lengths and word counts of the rows that have one of the words; the number of rows, and of words."""
    addresses: list[int] = []
    lengths: list[int] = []
    counts: list[NDArray[np.int32]] = []
    rows = total = 0
    for batch in index.batches(list(fields)):
        columns = [batch.column(name).to_pylist() for name in fields]
        for address, *texts in zip(batch.column("_rowaddr").to_pylist(), *columns, strict=True):
            found = _WORD.findall(next((text for text in texts if text), "").lower())
            rows, total = rows + 1, total + len(found)
            own = np.bincount([words[word] for word in found if word in words], minlength=len(words))
            if own.any():
                addresses.append(address)
                lengths.append(len(found))
                counts.append(own.astype(np.int32))
        if on_progress is not None:
            on_progress("comparing words", rows / max(index.count, 1))
    table = np.array(counts, dtype=np.float64).reshape(len(counts), len(words))
    return np.array(addresses, np.int64), np.array(lengths, np.float64), table, rows, total
