"""BM25 written as its formula, one document and one word at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence


def naive_bm25(documents: Sequence[str], query: str, *, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Lucene's variant: Σ_words idf · f / (f + k1 (1 − b + b |d| / mean|d|)), idf = ln(1 + (N − n + ½) / (n + ½))."""
    texts = [re.findall(r"\b\w\w+\b", document.lower()) for document in documents]
    mean_length = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for word in re.findall(r"\b\w\w+\b", query.lower()):
            containing = sum(word in other for other in texts)
            idf = math.log(1 + (len(texts) - containing + 0.5) / (containing + 0.5))
            frequency = text.count(word)
            score += idf * frequency / (frequency + k1 * (1 - b + b * len(text) / mean_length))
        scores.append(score)
    return scores
