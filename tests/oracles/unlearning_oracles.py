"""Slow and obvious: the four views and the published mapping as plain loops over lists."""

from __future__ import annotations

import math
import statistics


def naive_view(block: list[list[float]], *, k: int | None, skip_self: bool) -> list[float]:
    """a(i) = median over t of I(i, t), entries below the k largest of their column set to zero."""
    middles = []
    for i, row in enumerate(block):
        entries = []
        for t in range(len(row)):
            if skip_self and i == t and len(block) > 1:
                continue
            column = sorted((block[j][t] for j in range(len(block))), reverse=True)
            kept = k is None or row[t] >= column[min(k, len(column)) - 1]
            entries.append(row[t] if kept else 0.0)
        middles.append(statistics.median(entries))
    return middles


def published_weights(scores: list[float], *, tau: float, low: float = 0.2, high: float = 3.0) -> list[float]:
    """RapidUn's order: z with an absolute floor, exponential, clip, divide by the mean."""
    middle = statistics.median(scores)
    spread = max(1.4826 * statistics.median([abs(s - middle) for s in scores]), 1e-3)
    raw = [math.exp(min(max((s - middle) / spread / tau, math.log(low)), math.log(high))) for s in scores]
    mean = sum(raw) / len(raw)
    return [w / mean for w in raw]
