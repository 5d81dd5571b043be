"""Sketches of the formed gradient: the plain count-sketch, dense random signs, and no sketch at all.

They are slower than the shift-sum, are the references it is compared with, and suit small widths.
Memory beyond the result: one piece of the formed gradient (`products.FORMED_BYTES`), and for `Rademacher` its signs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.seeds import buckets, key, signs
from headwater.data.sums import add_at
from headwater.sketch.blocks import Gradient
from headwater.sketch.products import FORMED_BYTES, chunks, squared_norms, unit_scale

_SIGNS = 1 << 22
"""How many entries of the dense sign matrix are made at a time."""


@dataclass(frozen=True)
class Hashed:
    """The count-sketch (Charikar, Chen and Farach-Colton, 2002): a bucket and a sign hashed for every entry.

    Unbiased; variance of ⟨S(a), S(b)⟩ is (1/dim)(‖a‖²‖b‖² + ⟨a,b⟩² − 2 Σ a_i² b_i²).
    """

    dim: int
    seed: int

    def accumulate(
        self, total: Float[Tensor, "rows dim"], gradient: Gradient, *, unit: bool, norms: bool = True
    ) -> Float[Tensor, " rows"]:
        """See `Sketch.accumulate`."""
        squared = squared_norms(gradient, wanted=unit or norms)
        for rows, first, piece in _scaled_pieces(gradient, squared, unit):
            index = torch.arange(first, first + piece.shape[1], device=total.device)
            bucket = buckets(index, key(self.seed, gradient.name, "bucket"), self.dim)
            sign = signs(index, key(self.seed, gradient.name, "sign"))
            add_at(total[rows].mT, bucket, (piece * sign).mT)
        return squared


@dataclass(frozen=True)
class Rademacher:
    """Dense random signs, S = R / √dim with R_ij = ±1: variance (1/dim)(‖a‖²‖b‖² + ⟨a,b⟩² − 2 Σ a_i² b_i²)."""

    dim: int
    seed: int

    def accumulate(
        self, total: Float[Tensor, "rows dim"], gradient: Gradient, *, unit: bool, norms: bool = True
    ) -> Float[Tensor, " rows"]:
        """See `Sketch.accumulate`."""
        squared = squared_norms(gradient, wanted=unit or norms)
        step = max(1, _SIGNS // self.dim)
        for rows, first, piece in _scaled_pieces(gradient, squared, unit):
            for start in range(0, piece.shape[1], step):
                some = piece[:, start : start + step]
                matrix = sign_matrix(some.shape[1], self.dim, key(self.seed, gradient.name), total, first + start)
                total[rows] += some @ matrix
        return squared


@dataclass(frozen=True)
class Identity:
    """No sketch: the gradients of all tensors side by side, in the order of `shapes`."""

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def dim(self) -> int:
        """Entries of all tensors together."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def accumulate(
        self, total: Float[Tensor, "rows dim"], gradient: Gradient, *, unit: bool, norms: bool = True
    ) -> Float[Tensor, " rows"]:
        """See `Sketch.accumulate`."""
        squared = squared_norms(gradient, wanted=unit or norms)
        before = takewhile(lambda name: name != gradient.name, self.shapes)
        start = sum(math.prod(self.shapes[name]) for name in before)
        for rows, first, piece in _scaled_pieces(gradient, squared, unit):
            total[rows, start + first : start + first + piece.shape[1]] += piece
        return squared


def sign_matrix(size: int, dim: int, stream: int, like: Tensor, first: int = 0) -> Float[Tensor, "size dim"]:
    """±1/√dim for entries `first` to `first + size`, in the type and on the device of `like`."""
    index = torch.arange(first * dim, (first + size) * dim, device=like.device)
    matrix: Tensor = signs(index, stream).to(like.dtype) / math.sqrt(dim)
    return matrix.view(size, dim)


def _scaled_pieces(
    gradient: Gradient, squared: Float[Tensor, " rows"], unit: bool
) -> Iterator[tuple[slice, int, Float[Tensor, "rows piece"]]]:
    """(rows, index of the first entry, entries) in the order `out × in`; with `unit`, rows are scaled to norm 1."""
    scale = unit_scale(squared) if unit else torch.ones_like(squared)
    for rows, line, piece in chunks(gradient, FORMED_BYTES):
        yield rows, line * gradient.matrix[1], piece.flatten(1) * scale[rows, None]
