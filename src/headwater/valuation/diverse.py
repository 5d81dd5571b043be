"""Choose valuable rows that are not all alike: a facility location over the best rows.

    f(S) = Σ_i (v_i − min(0, v_min)) · max_{j ∈ S} sim(i, j)   i: the best rows, five times as many as are wanted

Each row's worth is counted as far as a chosen row says the same in similar words (cosine of word counts). Greedy choice
reaches at least 1 − 1/e of the best f, because f is monotone and submodular. Gains only fall, so a row whose old gain
is below another's new gain need not be measured again.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headwater.core.errors import UsageError

SPARE = 5
"""So many times as many rows as wanted are looked at."""

MOST = 20_000
"""At most so many rows are compared, each with each: 1.6 GB."""


def diverse(values: NDArray[np.float64], texts: Sequence[str], count: int) -> NDArray[np.int64]:
    """Positions of `count` rows, in the order in which they were chosen.

    Args:
        values: of the rows that may be chosen, float64 `[rows]`.
        texts: their texts.
        count: how many to choose; at most as many as there are.

    Raises:
        UsageError: too many rows to compare.
    """
    if len(texts) > MOST:
        remedy = f"choose at most {MOST // SPARE:,} rows, or leave --diverse out"
        raise UsageError(f"{len(texts):,} rows cannot be compared each with each", where="--diverse", remedy=remedy)
    alike = _similarities(texts)
    worth = (values - min(0.0, float(values.min()))).astype(np.float32)
    covered = np.zeros(len(texts), dtype=np.float32)
    queue = [(-float(worth @ alike[i]), i, 0) for i in range(len(texts))]
    heapq.heapify(queue)
    chosen: list[int] = []
    while queue and len(chosen) < count:
        _, place, measured = heapq.heappop(queue)
        if measured == len(chosen):
            chosen.append(place)
            covered = np.maximum(covered, alike[place])
            continue
        gain = float(worth @ np.maximum(alike[place] - covered, 0.0))
        heapq.heappush(queue, (-gain, place, len(chosen)))
    return np.array(chosen, dtype=np.int64)


def _similarities(texts: Sequence[str]) -> NDArray[np.float32]:
    """Cosines of word counts, `[rows, rows]`; a text without words is like itself alone."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(n_features=2**18, norm="l2", alternate_sign=False, dtype=np.float32)
    words = hashing.transform(texts)
    found: NDArray[np.float32] = np.asarray((words @ words.T).todense(), dtype=np.float32)
    np.fill_diagonal(found, 1.0)
    return found
