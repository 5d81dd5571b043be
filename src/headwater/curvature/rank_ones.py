"""DataInf's closed form (Kwon et al., 2310.00902): the mean of inverses in place of the inverse of the mean.

    (1/n) Σ_i (g_i g_iᵀ + λI)⁻¹ q = (1/λ) [ q − (1/n) Σ_i ( ⟨g_i, q⟩ / (λ + ‖g_i‖²) ) g_i ]       (Sherman–Morrison)

tensor by tensor, with λ = damping · (1/(n d)) Σ_i ‖g_i‖² and d the number of the tensor's entries. It takes two passes
over the rows, and memory for one gradient per query beside the queries' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.sketch.blocks import Gradient
from headwater.sketch.products import chunks, formed, squared_norms


@dataclass
class SquaredSizes:
    """The running sum Σ_i ‖g_i‖² by tensor, and λ computed from it."""

    total: dict[str, float] = field(default_factory=dict)
    entries: dict[str, int] = field(default_factory=dict)

    def add(self, gradient: Gradient) -> None:
        """Add one batch's rows of one tensor."""
        self.total[gradient.name] = self.total.get(gradient.name, 0.0) + float(squared_norms(gradient).double().sum())
        self.entries[gradient.name] = gradient.size

    def damping(self, share: float, rows: int) -> dict[str, float]:
        """λ by tensor; 1 if all its gradients are zero."""
        return {name: share * total / (rows * self.entries[name]) or 1.0 for name, total in self.total.items()}


@dataclass
class RankOnes:
    """The running sum of the closed form for some queries."""

    queries: Mapping[str, Float[Tensor, "queries _out _in"]]
    damping: Mapping[str, float]
    total: dict[str, Tensor] = field(default_factory=dict)
    rows: int = 0

    def add(self, gradient: Gradient) -> None:
        """Add one batch's rows of one tensor."""
        name, query = gradient.name, self.queries[gradient.name]
        total = self.total.setdefault(name, torch.zeros_like(query))
        for rows, _, _ in chunks(gradient):
            some = formed(gradient.take(rows)).float().flatten(1)
            shares = some @ query.flatten(1).mT / (self.damping[name] + some.square().sum(1))[:, None]
            total += (shares.mT @ some).view_as(total)

    def finish(self) -> dict[str, Tensor]:
        """The preconditioned queries; the caller must have set `rows` to the number of rows."""
        return {
            name: (query - self.total[name] / self.rows) / self.damping[name] if name in self.total else 0 * query
            for name, query in self.queries.items()
        }
