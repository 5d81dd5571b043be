"""Gradients estimated from losses at checkpoints alone (Z0-Inf, arXiv 2510.11832), by differences between them.

    ĝ_e(z) = (1/|N(e)|) Σ_{a ∈ N(e)} (l_a(z) − l_e(z)) (θ_a − θ_e) / ‖θ_a − θ_e‖²
    I(z, z') = (1/E) Σ_e ⟨ĝ_e(z), ĝ_e(z')⟩

l_e(z) is the loss at checkpoint e and N(e) its neighbours in the order of training. Of the weights only their
Gram matrix is needed. For a loss linear in the weights and one neighbour, ĝ is the gradient's projection on the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from headwater.core.errors import DataError, UsageError


@dataclass(frozen=True)
class Path:
    """The Gram matrix of the checkpoints' weights (relative to any common origin), and the number of neighbours.

    Attributes:
        gram: ⟨θ_a, θ_b⟩, float64 `[checkpoints, checkpoints]`.
        neighbours: how many nearest checkpoints in order are used (2: the ones before and after); 0: all.
    """

    gram: Float[np.ndarray, "checkpoints checkpoints"]
    neighbours: int = 2

    def __post_init__(self) -> None:
        if len(self.gram) < 2:
            raise DataError(f"{len(self.gram)} checkpoint", where="zoinf", remedy="at least 2 are needed to compare")
        if self.neighbours < 0:
            raise UsageError(f"{self.neighbours} neighbours", where="zoinf.neighbours", remedy="0 for all, or more")

    def influence(
        self, rows: Float[np.ndarray, "checkpoints rows"], queries: Float[np.ndarray, "checkpoints queries"]
    ) -> Float[np.ndarray, "rows queries"]:
        """I of each row on each query, from losses in nats at every checkpoint; positive = proponent."""
        count = len(self.gram)
        total = np.zeros((rows.shape[1], queries.shape[1]))
        for e in range(count):
            near, step_products = self._around(e)
            total += self._shares(e, near, rows).T @ step_products @ self._shares(e, near, queries)
        return total / count

    def self_influence(self, rows: Float[np.ndarray, "checkpoints rows"]) -> Float[np.ndarray, " rows"]:
        """I(z, z) of each row."""
        found = np.zeros(rows.shape[1])
        for e in range(len(self.gram)):
            near, step_products = self._around(e)
            shares = self._shares(e, near, rows)
            found += np.einsum("az,ab,bz->z", shares, step_products, shares)
        return found / len(self.gram)

    def _around(self, e: int) -> tuple[list[int], Float[np.ndarray, "near near"]]:
        """Neighbours of e, and ⟨θ_a − θ_e, θ_b − θ_e⟩ of them."""
        others = sorted((a for a in range(len(self.gram)) if a != e), key=lambda a: (abs(a - e), a))
        near = others[: self.neighbours or len(others)]
        g = self.gram
        return near, g[np.ix_(near, near)] - g[near, e][:, None] - g[e, near][None, :] + g[e, e]

    def _shares(
        self, e: int, near: list[int], losses: Float[np.ndarray, "checkpoints n"]
    ) -> Float[np.ndarray, "near n"]:
        """(l_a − l_e) / ‖θ_a − θ_e‖² / |N(e)| of each neighbour a."""
        squared = np.array([self.gram[a, a] - 2 * self.gram[a, e] + self.gram[e, e] for a in near])
        if (squared <= 0).any():
            raise DataError("two checkpoints have the same weights", where="zoinf", remedy="leave one of them out")
        shares: np.ndarray = (losses[near] - losses[e]) / squared[:, None] / len(near)
        return shares
