"""Vectors of matrices as the factors of their best approximations of low rank (LoRIF).

    X ≈ U Vᵀ,  U = X V,  V an orthonormal basis of the `rank` leading right singular directions

V is found by subspace iteration from a fixed start, which needs nothing but small matrix products of all rows at once.
The factors share the singular values evenly, so that neither leaves float16's range before the matrix does.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.seeds import key, signs
from headwater.core.spec import Column, Sides

_TURNS = 6
"""Steps of the subspace iteration."""

_TINY = 1e-30


def factors_of(vectors: Float[Tensor, "rows dim"], column: Column) -> Float[Tensor, "rows width"]:
    """What the column stores of these vectors: for each matrix U and then V, or the matrix where that is no longer."""
    return torch.cat(
        [
            _factors(part, column.rank) if column.factored(sides) else part.flatten(1)
            for sides, part in _matrices(vectors, column)
        ],
        dim=1,
    )


def vectors_of(stored: Float[Tensor, "rows width"], column: Column) -> Float[Tensor, "rows dim"]:
    """The vectors that stored factors stand for, in float32."""
    total = torch.zeros(len(stored), column.dim, device=stored.device)
    start = place = 0
    for high, wide in column.matrices:
        there = total[:, start : start + high * wide]
        if column.factored((high, wide)):
            ends = place + column.rank * high, place + column.rank * (high + wide)
            left = stored[:, place : ends[0]].float().unflatten(1, (column.rank, high))
            right = stored[:, ends[0] : ends[1]].float().unflatten(1, (column.rank, wide))
            there.copy_(torch.einsum("nrh,nrw->nhw", left, right).flatten(1))
            place = ends[1]
        else:
            there.copy_(stored[:, place : place + high * wide])
            place += high * wide
        start += high * wide
    return total


def _matrices(vectors: Float[Tensor, "rows dim"], column: Column) -> Iterator[tuple[Sides, Tensor]]:
    start = 0
    for high, wide in column.matrices:
        yield (high, wide), vectors[:, start : start + high * wide].unflatten(1, (high, wide))
        start += high * wide


def _factors(matrices: Float[Tensor, "rows high wide"], rank: int) -> Float[Tensor, "rows _"]:
    wide = matrices.shape[2]
    start = signs(torch.arange(wide * rank), key(0, "factors")).to(matrices).view(wide, rank)
    size = matrices.flatten(1).norm(dim=1).clamp_min(_TINY)[:, None, None]
    scaled = matrices / size
    basis = start.expand(len(matrices), -1, -1)
    for _ in range(_TURNS):
        basis = torch.linalg.qr(scaled.mT @ (scaled @ basis)).Q
    left = matrices @ basis
    share = left.norm(dim=1, keepdim=True).clamp_min(_TINY).sqrt()
    return torch.cat([(left / share).mT.flatten(1), (basis * share).mT.flatten(1)], dim=1)
