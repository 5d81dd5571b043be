"""Multiplying blocks out: the gradient matrix, norms and inner products, each in whichever way is cheaper.

⟨Σ_t l_t ⊗ r_t, Σ_u l'_u ⊗ r'_u⟩ = Σ_{t,u} (l_t · l'_u)(r_t · r'_u)      ("ghost" form: the matrix is not formed)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.data.sums import add_at
from headwater.sketch.blocks import Block, Dense, Gradient, Lookup, Outer, Packed, map_tensors

Normalization = Literal["tensor", "row", "none"]
"""What is scaled to norm 1: every tensor's gradient, the row's whole gradient, or nothing."""

FORMED_BYTES = 256 * 2**20
"""Largest size of what is formed at a time. A larger batch is split by its rows, a larger matrix by its own rows."""


def formed(gradient: Gradient, start: int = 0, stop: int | None = None) -> Float[Tensor, "rows out in"]:
    """Rows `start` to `stop` of the gradient matrix of each example, `(out, in)`; a vector is a matrix of one row."""
    stop = gradient.matrix[0] if stop is None else stop
    total: Tensor | None = None
    for block in gradient.blocks:
        if isinstance(block, Dense):
            return block.values.to(gradient.dtype)[:, None, :]
        if isinstance(block, Outer):
            left = block.left[..., start:stop].to(gradient.dtype)
            total = torch.bmm(left.mT, block.right.to(gradient.dtype))
        else:
            total = _looked_up(block, start, stop, total, gradient.dtype)
    assert total is not None
    return total


def dense(gradient: Gradient) -> Tensor:
    """The gradients in the parameter's own layout: `[rows, *parameter]`."""
    values = formed(gradient)
    if len(gradient.shape) == 1:
        return values[:, 0]
    return values.mT if gradient.transposed else values


def chunks(gradient: Gradient, limit: int = FORMED_BYTES) -> Iterator[tuple[slice, int, Float[Tensor, "rows out in"]]]:
    """The formed gradient in pieces of at most `limit` bytes: (rows, first row of the matrix, piece)."""
    out, width = gradient.matrix
    line = width * gradient.dtype.itemsize
    step = min(out, max(1, limit // line))
    rows = max(1, limit // (step * line))
    for first in range(0, gradient.rows, rows):
        some = slice(first, min(first + rows, gradient.rows))
        part = gradient.take(some)
        for start in range(0, out, step):
            yield some, start, formed(part, start, min(start + step, out))


def squared_norms(gradient: Gradient, *, wanted: bool = True) -> Float[Tensor, " rows"]:
    """‖gradient‖² of each example; zeros, at no cost, if it is not `wanted`."""
    total = torch.zeros(gradient.rows, dtype=gradient.dtype, device=gradient.device)
    if not wanted:
        return total
    if _ghost_is_cheaper(gradient):
        return sum_pairs(gradient)
    for rows, _, piece in chunks(gradient):
        total[rows] += torch.linalg.vector_norm(piece, dim=(1, 2)).square()
    return total


def unit_scale(squared: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """1 / norm of each row; 0 where the norm is 0, so that a zero gradient stays zero."""
    return squared.rsqrt().masked_fill(squared <= 0, 0.0)


def sum_pairs(gradient: Gradient) -> Float[Tensor, " rows"]:
    """‖gradient‖² from the factors alone, never negative in spite of rounding."""
    total = torch.zeros(gradient.rows, dtype=gradient.dtype, device=gradient.device)
    for position, block in enumerate(gradient.blocks):
        total += paired(block, block, gradient.dtype)
        for other in gradient.blocks[position + 1 :]:
            total += 2 * paired(block, other, gradient.dtype)
    return total.clamp_min(0.0)


def inner_products(a: Gradient, b: Gradient) -> Float[Tensor, "rows_a rows_b"]:
    """⟨a_i, b_k⟩ of every example of one batch with every example of another."""
    if _pairs_are_cheaper(a, b):
        return torch.stack([_with_one(a, b.take(slice(k, k + 1))) for k in range(b.rows)], dim=1)
    out, width = a.matrix
    total = torch.zeros(a.rows, b.rows, dtype=a.dtype, device=a.device)
    lines = max(1, FORMED_BYTES // (max(a.rows, b.rows) * width * a.dtype.itemsize))
    for start in range(0, out, lines):
        stop = min(start + lines, out)
        total += formed(a, start, stop).flatten(1) @ formed(b, start, stop).flatten(1).mT
    return total


def _with_one(a: Gradient, one: Gradient) -> Float[Tensor, " rows"]:
    total = torch.zeros(a.rows, dtype=a.dtype, device=a.device)
    for block in a.blocks:
        for other in one.blocks:
            repeated = map_tensors(other, lambda tensor: tensor.expand(a.rows, *tensor.shape[1:]))
            total += paired(block, repeated, a.dtype)
    return total


def _pairs_are_cheaper(a: Gradient, b: Gradient) -> bool:
    """Compares the multiplications of both ways; an embedding by itself is never formed."""
    out, width = a.matrix
    if all(isinstance(block, Lookup) for block in (*a.blocks, *b.blocks)):
        return True
    many_a, many_b = _tokens(a), _tokens(b)
    forming = (a.rows * (many_a + 8) + b.rows * (many_b + 8) + a.rows * b.rows) * out * width
    return a.rows * b.rows * many_a * many_b * (out + width) < forming


def _tokens(gradient: Gradient) -> int:
    return sum(1 if isinstance(block, Dense) else block.right.shape[1] for block in gradient.blocks)


def _ghost_is_cheaper(gradient: Gradient) -> bool:
    """Compares the multiplications of both ways; writing and reading a formed matrix counts as 8 per entry."""
    out, width = gradient.matrix
    tokens = sum(b.right.shape[1] for b in gradient.blocks if not isinstance(b, Dense))
    inner = [b for b in gradient.blocks if isinstance(b, Outer)]
    if not tokens or not inner:
        return bool(tokens)
    return tokens * tokens * (out + width) < (inner[0].right.shape[1] + 8) * out * width


def paired(a: Block, b: Block, dtype: torch.dtype) -> Float[Tensor, " rows"]:
    """⟨a_i, b_i⟩ for each row i, from the factors; some tokens of a at a time, so that no table of pairs is large."""
    if isinstance(a, Dense) and isinstance(b, Dense):
        return torch.einsum("rs,rs->r", a.values.to(dtype), b.values.to(dtype))
    assert not isinstance(a, Dense)
    assert not isinstance(b, Dense)
    rows, tokens, _ = b.right.shape
    step = max(1, FORMED_BYTES // max(rows * tokens * dtype.itemsize, 1))
    total = torch.zeros(rows, dtype=dtype, device=b.right.device)
    for start in range(0, a.right.shape[1], step):
        some = _some_tokens(a, slice(start, start + step))
        right = torch.bmm(some.right.to(dtype), b.right.to(dtype).mT)
        total += (right * _left_pairs(some, b, dtype)).sum((1, 2))
    return total


def _some_tokens(block: Outer | Lookup, tokens: slice) -> Outer | Lookup:
    if isinstance(block, Packed):
        return Packed(block.packed, *(values[:, tokens] for values in (block.slot, block.real, block.right)))
    if isinstance(block, Outer):
        return Outer(block.left[:, tokens], block.right[:, tokens])
    return Lookup(block.index[:, tokens], block.right[:, tokens])


def _left_pairs(a: Outer | Lookup, b: Outer | Lookup, dtype: torch.dtype) -> Float[Tensor, "rows tokens_a tokens_b"]:
    if isinstance(a, Outer) and isinstance(b, Outer):
        return torch.bmm(a.left.to(dtype), b.left.to(dtype).mT)
    if isinstance(a, Lookup) and isinstance(b, Lookup):
        return (a.index[:, :, None] == b.index[:, None, :]).to(dtype)
    if isinstance(a, Packed) and isinstance(b, Lookup):  # any finite number does for a token that the row lacks
        return a.packed[a.slot[:, :, None], b.index[:, None, :]].to(dtype)
    if isinstance(a, Outer) and isinstance(b, Lookup):
        index = b.index[:, None, :].expand(-1, a.left.shape[1], -1)
        return a.left.gather(2, index).to(dtype)
    return _left_pairs(b, a, dtype).mT


def _looked_up(block: Lookup, start: int, stop: int, total: Tensor | None, dtype: torch.dtype) -> Tensor:
    """`total` (or zeros) plus the looked-up rows between start and stop."""
    rows, _ = block.index.shape
    if total is None:
        total = torch.zeros(rows, stop - start, block.right.shape[2], dtype=dtype, device=block.right.device)
    row, token = ((block.index >= start) & (block.index < stop)).nonzero(as_tuple=True)
    place = row * (stop - start) + block.index[row, token] - start
    add_at(total.view(-1, block.right.shape[2]), place, block.right[row, token].to(dtype))
    return total
