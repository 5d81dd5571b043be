"""Sketched residuals, made one tile of the vocabulary at a time, so that on a CPU no logit leaves its caches.

With e_v = exp(z_v / τ) of a token, T = Σ_v e_v, and y its target, row v of the matrix M being what v is sketched to:

    r @ M = (Σ_{v≠y} e_v M_v − (Σ_{v≠y} e_v) M_y) / T          loss = log Σ_v exp(z_v) − z_y

Each tile's logits are multiplied, made exponentials, summed and multiplied with M while they are there. At τ = 1 and
τ = 2 the loss follows from Σ e_v and Σ e_v². The target is left out of every sum over the others, so the small residual
of a well predicted token is not the difference of two large numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TOKENS = 2048
"""How many tokens are read at once: the head and the matrix are read from memory once for them all."""
COLUMNS = 512
"""Columns of the vocabulary in a tile. Its exponentials take 4 MiB in float32; half and twice as many are slower."""
_SMALL, _LARGE = 1e-12, 1e15
"""Between these, neither a sum of exponentials nor its square leaves the range of float32."""


@dataclass(frozen=True)
class SketchedResiduals:
    """What `sketched_residuals` gives; tokens that are not `safe` have exponentials that left float32's range."""

    product: Float[Tensor, "tokens sketched"]
    losses: Float[Tensor, " tokens"]
    safe: Bool[Tensor, " tokens"]


def sketched_residuals(
    states: Float[Tensor, "tokens width"],
    targets: Int[Tensor, " tokens"],
    weight: Float[Tensor, "vocab width"],
    matrix: Float[Tensor, "vocab sketched"],
    temperature: float,
) -> SketchedResiduals:
    """r @ matrix, and the loss at temperature 1 (nats), of each token, computed in the matrix's dtype.

    `states` are divided by the temperature already, which is 1 or 2: z / τ = states @ weight.T.
    """
    states, tokens = states.to(matrix.dtype), len(states)
    product = matrix.new_zeros(tokens, matrix.shape[1])
    others, squares, own = (matrix.new_zeros(tokens) for _ in range(3))
    held = matrix.new_empty(tokens * COLUMNS)
    ordered, token = targets.sort()
    bounds = torch.searchsorted(ordered, torch.arange(0, len(weight) + COLUMNS, COLUMNS)).tolist()
    for tile, first in enumerate(range(0, len(weight), COLUMNS)):
        rows = weight[first : first + COLUMNS].to(matrix.dtype)
        made = torch.mm(states, rows.T, out=held[: tokens * len(rows)].view(tokens, len(rows))).exp_()
        here = slice(bounds[tile], bounds[tile + 1])
        own_place = (token[here], ordered[here] - first)
        own[token[here]] = made[own_place]
        made[own_place] = 0.0
        others += made.sum(1)
        if temperature != 1.0:
            squares += torch.linalg.vector_norm(made, dim=1).square_()
        product.addmm_(made, matrix[first : first + COLUMNS])
    total = others + own
    product = product.sub_(others[:, None] * matrix[targets]).div_(total[:, None])
    norm = total if temperature == 1.0 else (squares + own.square()).sqrt()
    target_logits = temperature * (states * weight[targets].to(matrix.dtype)).sum(1)
    safe = (total > _SMALL) & (total < _LARGE)
    return SketchedResiduals(product, temperature * norm.log() - target_logits, safe)
