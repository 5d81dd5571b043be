"""How rare words are in an index, so that a summary names the words that say something, and not `the` and `of`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from headwater.core.trace import bare_word
from headwater.index.store import Index

SAMPLE = 2_000
"""Rows that are read, evenly spread over the index."""


def rarity_of(index: Index, texts: Iterable[str]) -> Mapping[str, float]:
    """Each word of the texts (as `bare_word` writes it) to log((rows + 1) / (rows with it + 1)), over a sample of rows.

    0 is a word that every row has. The mapping is empty for an index without text.
    """
    fields = [name for name in ("text", "prompt", "response") if name in index.plain]
    count = index.count
    if not fields or not count or not index.manifest.keeps_text:
        return {}
    words = {bare_word(piece) for text in texts for piece in text.split()}
    places = (
        sorted({round(i * (count - 1) / max(SAMPLE - 1, 1)) for i in range(SAMPLE)}) if count > SAMPLE else range(count)
    )
    columns = [column.to_pylist() for column in index.take(list(places), fields).columns]
    having: Counter[str] = Counter()
    for texts_of_row in zip(*columns, strict=True):
        having.update(words & {bare_word(piece) for text in texts_of_row if text for piece in text.split()})
    return {word: math.log((len(places) + 1) / (having[word] + 1)) for word in words}
