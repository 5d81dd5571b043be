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
_FACTOR = 64
"""H of 2^k is a Kronecker product of Hadamard matrices of at most this size, each one small matrix product."""

_PIECE_BYTES = 1 << 20
"""About so many bytes of rows are transformed at once on a CPU: they stay in its cache (6 times faster)."""


def walsh_hadamard(x: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
    """H x for every row, H orthonormal, symmetric and its own inverse, in Sylvester's order; n a power of two."""
    rows, n = x.shape
    if n < 1 or n & (n - 1):
        raise UsageError(f"a Hadamard transform of {n} numbers", remedy="pad to a power of two")
    done = 1
    while done < n:
        size = min(_FACTOR, n // done)
        matrix = _hadamard(size).to(x)
        if done == 1:  # a batch of products of one shape, so that a row's bits do not depend on the other rows
            x = torch.bmm(x.reshape(rows, n // size, size), matrix.expand(rows, -1, -1))
        else:
            many = rows * n // (size * done)
            x = torch.bmm(matrix.expand(many, -1, -1), x.reshape(many, size, done))
        done *= size
    return x.reshape(rows, n)


def rotate(
    x: Float[Tensor, "rows dim"], seed: int, *names: str | int, kept: int | None = None
) -> Float[Tensor, "rows kept"]:
    """The first `kept` numbers of P x, the rotation called `names` under `seed`.

    P has n of them, the power of two at or above dim, which is what None keeps.
    """
    rows, dim = x.shape
    n = padded(dim)
    drawn = [_signs(n, seed, turn, names).to(x) for turn in range(ROUNDS)]
    piece = rows if x.is_cuda else max(1, _PIECE_BYTES // (n * x.element_size()))
    wanted = n if kept is None else kept
    found = torch.empty(rows, wanted, dtype=x.dtype, device=x.device)
    for start in range(0, rows, max(piece, 1)):
        some = torch.nn.functional.pad(x[start : start + piece], (0, n - dim))
        for turn, flips in enumerate(drawn):
            some = some * flips
            some = walsh_hadamard(some if turn + 1 < ROUNDS else _folded(some, padded(wanted)))
        found[start : start + piece] = some[:, :wanted]
    return found


def _folded(x: Float[Tensor, "rows n"], size: int) -> Float[Tensor, "rows size"]:
    """The sum of x's parts over √parts; a transform of it gives the first `size` numbers of H x."""
    parts = x.shape[1] // size
    return x if parts == 1 else x.view(len(x), parts, size).sum(dim=1) / parts**0.5


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
