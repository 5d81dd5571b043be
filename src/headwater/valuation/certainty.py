"""How sure values are, and what that does to payments.

    error       s_i = half the 95 % interval / 1.96
    certain     the interval lies above zero, and so many rows do that at most a twentieth of them is noise:
                p_i = 1 − Φ(v_i / s_i) ≤ 0.05 · (rows with such a p) / rows          (Benjamini and Hochberg)
    shrunk      m_p + (v_i − m_p) · τ_p² / (τ_p² + s_i²)                             (empirical Bayes)
    changeable  the share of redrawn values v_i + s_i · noise with which a provider's pay differs by more than a tenth

m_p is the mean of a provider's values, weighted by how sure they are, and τ_p² their spread without noise (Paule and
Mandel). Of 1,000 rows of no value, 25 have an interval above zero, which is why intervals alone do not tell noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SURE = 1.959964
"""Half a 95 % interval of a normal estimate, in standard errors."""

NOISE, CHANGED, DRAWS = 0.05, 0.1, 100


def certain(values: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values can be told from zero, bool `[rows]`: at most a twentieth of these is expected to be noise."""
    from scipy.special import ndtr

    chance = ndtr(-values / np.maximum(errors, 1e-300))
    order = np.argsort(chance, kind="stable")
    low_enough = np.flatnonzero(chance[order] <= NOISE * np.arange(1, len(order) + 1) / len(order))
    found = np.zeros(len(values), dtype=bool)
    if len(low_enough):
        found[order[: low_enough[-1] + 1]] = True
    sure: NDArray[np.bool_] = found & (values - SURE * errors > 0)
    return sure


def shrunk(values: NDArray[np.float64], errors: NDArray[np.float64], providers: Sequence[str]) -> NDArray[np.float64]:
    """Values drawn towards their provider's mean by their errors, float64 `[rows]`; a single row keeps its value."""
    found = values.astype(np.float64).copy()
    _, owner = np.unique(np.asarray(providers), return_inverse=True)
    for place in range(owner.max() + 1):
        own = np.flatnonzero(owner == place)
        value, noise = found[own], np.maximum(errors[own] ** 2, 1e-300)
        if len(own) > 1:
            spread = _spread(value, noise)
            sure = 1 / (noise + spread)
            mean = float(sure @ value / sure.sum())
            found[own] = mean + (value - mean) * spread * sure
    return found


def _spread(values: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    """τ² such that Σ (v − m)² / (s² + τ²) is the number of values less one; 0 if noise alone explains them."""

    def excess(spread: float) -> float:
        sure = 1 / (noise + spread)
        mean = sure @ values / sure.sum()
        return float(sure @ (values - mean) ** 2) - (len(values) - 1)

    low, high = 0.0, float(values.var(ddof=1))
    if high <= 0 or excess(0.0) <= 0:
        return 0.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def changeable(
    pay: NDArray[np.float64], redrawn: Sequence[NDArray[np.float64]], providers: Sequence[str]
) -> dict[str, float]:
    """Of each provider, the share of redrawn payments that differ from `pay` by more than a tenth.

    A provider who is paid nothing changes if it would be paid more than a thousandth of all.

    Args:
        pay: what every row is paid.
        redrawn: what every row would be paid in each draw, in the same unit.
        providers: of the rows.
    """
    names, owner = np.unique(np.asarray(providers), return_inverse=True)
    now = np.bincount(owner, pay, len(names))
    allowed = np.maximum(CHANGED * now, 0.001 * now.sum())
    drawn = np.array([np.bincount(owner, one, len(names)) for one in redrawn])
    moved = (np.abs(drawn - now) > allowed).mean(axis=0)
    return {str(name): float(share) for name, share in zip(names, moved, strict=True)}
