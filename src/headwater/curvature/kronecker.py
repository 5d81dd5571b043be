"""EK-FAC: Kronecker-factored curvature with corrected eigenvalues (arXiv 1806.03884; for language models 2308.03296).

For a linear layer with gradient g = Σ_t δ_t ⊗ a_t of a row's loss:

    A = E[a aᵀ] = Q_A D_A Q_Aᵀ,   S = E[δ δᵀ] = Q_S D_S Q_Sᵀ        over tokens that carry a gradient
    Λ = E[(Q_Sᵀ g Q_A)²]                                            over rows, entry by entry: the corrected eigenvalues
    (F + λI)⁻¹ q = Q_S [ (Q_Sᵀ q Q_A) / (Λ + λ) ] Q_Aᵀ,             λ = damping · mean(Λ), layer by layer

Factors are running sums over batches. Memory is 2 (out² + in²) + out · in numbers per layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import DataError
from headwater.sketch.blocks import Gradient, Outer
from headwater.sketch.products import chunks


@dataclass
class Covariances:
    """Running sums of A and S by layer; call `add` with every batch's gradients."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)

    def add(self, gradient: Gradient) -> None:
        """Add one batch's tokens of one layer, except those without gradient (padding, tokens no loss depends on)."""
        (block,) = gradient.blocks
        assert isinstance(block, Outer), gradient.name
        carries = block.left.ne(0).any(-1)
        for sums, side in ((self.inputs, block.right[carries]), (self.outputs, block.left[carries])):
            wide = side.float()
            sums[gradient.name] = sums.get(gradient.name, 0) + (wide.mT @ wide).double()

    def bases(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(Q_S, Q_A) by layer, float32; raises `DataError` if nothing was added."""
        if not self.inputs:
            raise DataError("no gradient to fit curvature on", where="EK-FAC", remedy="give rows with targets")
        return {name: (_eigenvectors(self.outputs[name]), _eigenvectors(self.inputs[name])) for name in self.inputs}


SHARES: tuple[float, ...] = tuple(10.0 ** float(power) for power in np.arange(-4, 1.01, 0.5))
"""The dampings that are tried where none is given."""


@dataclass
class Eigenvalues:
    """Running sum of Λ by layer in given bases, for two halves of the rows."""

    bases: Mapping[str, tuple[Tensor, Tensor]]
    total: dict[str, Float[Tensor, "2 out in"]] = field(default_factory=dict)
    rows: int = 0

    def add(self, gradient: Gradient) -> None:
        """Add one batch's rows of one layer, every second one to the second half."""
        left, right = self.bases[gradient.name]
        (block,) = gradient.blocks
        assert isinstance(block, Outer), gradient.name
        factors = Outer(block.left.float() @ left, block.right.float() @ right)
        turned = Gradient(gradient.name, gradient.shape, (factors,))
        found = self.total.setdefault(gradient.name, torch.zeros(2, *gradient.shape, device=gradient.device))
        for rows, first, piece in chunks(turned):
            for half in (0, 1):
                some = piece[(rows.start + half) % 2 :: 2]
                found[half, first : first + piece.shape[1]] += some.square().sum(0)

    def finish(self, damping: float) -> Ekfac:
        """The preconditioner; the caller must have set `rows` to the number of rows.

        A damping of 0 is chosen by `agreed_damping`.
        """
        chosen = damping or agreed_damping([2 * total / self.rows for total in self.total.values()])
        factors = {}
        for name, total in self.total.items():
            values = total.sum(0) / self.rows
            factors[name] = Factor(*self.bases[name], values, float(chosen * values.mean()) or 1.0)
        return Ekfac(factors, chosen)


def agreed_damping(halves: Iterable[Float[Tensor, "2 _out _in"]]) -> float:
    """The share of `SHARES` with which the inverse fitted on one half of the rows fits the other half best.

    A layer's eigenvalues from the halves are a and b. A row's gradient g of half b has, in expectation, the squared
    entries b, and x = g / (a + λ) should minimise ½ xᵀ diag(b) x − gᵀ x, whose least value is at x = g / b:

        J(λ) = Σ b (½ b s² − s),   s = 1 / (a + λ),   summed over layers, and over both orders of the halves

    It needs no query and no retraining. Without damping a small a that is small by chance makes J large; with too much
    every direction is treated alike.
    """
    costs = np.zeros(len(SHARES))
    for one in halves:
        for a, b in ((one[0].double(), one[1].double()), (one[1].double(), one[0].double())):
            for place, share in enumerate(SHARES):
                s = 1 / (a + share * a.mean()).clamp_min(torch.finfo(torch.float64).tiny)
                costs[place] += float((b * s * (b * s / 2 - 1)).sum())
    return SHARES[int(np.argmin(costs))]


@dataclass(frozen=True)
class Factor:
    """One layer: eigenvectors of S and A, corrected eigenvalues Λ `[out, in]`, and λ."""

    left: Float[Tensor, "out out"]
    right: Float[Tensor, "in in"]
    values: Float[Tensor, "out in"]
    damping: float


@dataclass(frozen=True)
class Ekfac:
    """The fitted preconditioner, by layer; `damping` is λ as a share of a layer's mean eigenvalue."""

    factors: Mapping[str, Factor]
    damping: float = 0.0

    def solve(self, gradients: Mapping[str, Float[Tensor, "_rows _out _in"]]) -> dict[str, Tensor]:
        """(F + λI)⁻¹ of each row's gradient; zero for a layer in which no fitted row had a gradient."""
        return {
            name: _solve(self.factors[name], g) if name in self.factors else torch.zeros_like(g)
            for name, g in gradients.items()
        }


def _solve(factor: Factor, gradients: Float[Tensor, "rows out in"]) -> Float[Tensor, "rows out in"]:
    turned = factor.left.mT @ gradients @ factor.right
    solved: Tensor = factor.left @ (turned / (factor.values + factor.damping)) @ factor.right.mT
    return solved


def _eigenvectors(total: Float[Tensor, "side side"]) -> Float[Tensor, "side side"]:
    vectors: Tensor = torch.linalg.eigh(total).eigenvectors.float()
    return vectors
