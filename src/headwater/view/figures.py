"""Distributions as bars, which a template draws as SVG."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from headwater.report.tables import number_text

BINS, WIDTH, HEIGHT = 41, 1000, 230
"""Bars of a distribution, and the box they stand in."""


def distribution(numbers: Float[np.ndarray, " rows"], own: Float[np.ndarray, " some"] | None = None) -> dict[str, Any]:
    """A distribution as bars in a box of 1000 × 240: place, height and words of each, and where zero is.

    With `own`, the numbers of a group, `bars` are the group's, and `behind` those of all numbers, on one axis. Each
    of the two is drawn to its own height, so that their shapes can be compared.
    """
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return {"bars": [], "behind": [], "low": "", "high": "", "zero": None}
    counts, edges = np.histogram(finite, BINS)
    bars = _bars(counts, edges)
    behind: list[dict[str, Any]] = []
    if own is not None:
        behind, bars = bars, _bars(np.histogram(own, edges)[0], edges)
    span = float(edges[-1] - edges[0])
    zero = round(WIDTH * float(-edges[0]) / span, 1) if span and edges[0] < 0 < edges[-1] else None
    ends = {"low": number_text(float(edges[0])), "high": number_text(float(edges[-1]))}
    return {"bars": bars, "behind": behind, "zero": zero, **ends}


def _bars(counts: Any, edges: Any) -> list[dict[str, Any]]:
    most, width = max(int(counts.max()), 1), WIDTH / BINS
    return [
        {
            "x": round(n * width + 1, 1),
            "width": round(width - 2, 1),
            "height": round(HEIGHT * int(count) / most, 1),
            "negative": bool(edges[n + 1] <= 0),
            "title": f"{int(count):,} rows from {number_text(float(edges[n]))} to {number_text(float(edges[n + 1]))}",
        }
        for n, count in enumerate(counts)
    ]
