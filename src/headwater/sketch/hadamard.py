"""A randomised Walsh–Hadamard rotation, which spreads every vector evenly over its coordinates in n log n steps.

    P x = H D₂ H D₁ x        H the orthonormal Hadamard matrix, D₁ and D₂ diagonals of random signs

Two rounds, because one leaves vectors of a few coordinates visibly structured (Andoni et al., 2015). x is padded with
zeros to a power of two; P keeps inner products exactly. Signs are hashed from names, as in every random map here.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import UsageError
from headwater.core.seeds import key, signs

ROUNDS = 2
_FACTOR = 32
"""H of 2^k is a Kronecker product of Hadamard matrices of at most this size, each one small matrix product."""


def walsh_hadamard(x: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
    """H x for every row, H orthonormal, symmetric and its own inverse, in Sylvester's order; n a power of two."""
    rows, n = x.shape
    if n < 1 or n & (n - 1):
        raise UsageError(f"a Hadamard transform of {n} numbers", remedy="pad to a power of two")
    done = 1
    while done < n:
        size = min(_FACTOR, n // done)
        matrix = _hadamard(size).to(x)
        x = torch.einsum("st,rptd->rpsd", matrix, x.reshape(rows, n // (done * size), size, done)).reshape(rows, n)
        done *= size
    return x


def rotate(x: Float[Tensor, "rows dim"], seed: int, *names: str | int) -> Float[Tensor, "rows n"]:
    """P x: the rotation called `names` under `seed`; n is the power of two at or above dim."""
    rows, dim = x.shape
    n = padded(dim)
    x = torch.cat([x, x.new_zeros(rows, n - dim)], dim=1)
    for turn in range(ROUNDS):
        x = walsh_hadamard(x * _signs(n, seed, turn, names).to(x))
    return x


def rotate_back(x: Float[Tensor, "rows n"], dim: int, seed: int, *names: str | int) -> Float[Tensor, "rows dim"]:
    """P⁻¹ x, without the padding."""
    for turn in reversed(range(ROUNDS)):
        x = walsh_hadamard(x) * _signs(x.shape[1], seed, turn, names).to(x)
    return x[:, :dim]


def padded(dim: int) -> int:
    """The power of two at or above dim."""
    return 1 << max(dim - 1, 0).bit_length()


def _signs(n: int, seed: int, turn: int, names: tuple[str | int, ...]) -> Tensor:
    drawn: Tensor = signs(torch.arange(n), key(seed, "hadamard", turn, *names))
    return drawn


def _hadamard(size: int) -> Tensor:
    """The orthonormal Hadamard matrix in Sylvester's order: H[s, t] = (−1)^popcount(s and t) / √size, float64."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    step = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.kron(matrix, step)
    scaled: Tensor = matrix / size**0.5
    return scaled
