"""Two-sided sketches: both factors of a gradient are projected and only the small product is formed.

    S(Σ_t l_t ⊗ r_t) = Σ_t (P l_t) ⊗ (Q r_t),  E⟨S(a), S(b)⟩ = ⟨a, b⟩

with P and Q of random signs (LoGra's layout, arXiv 2405.13954, without its fitted directions). Each tensor has its own
places in the vector, so tensors never mix. Much cheaper than a flat sketch, but with a larger error for gradients of
low rank, because the same few directions are projected for every token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import UsageError
from headwater.core.seeds import key
from headwater.sketch.blocks import Dense, Gradient, Outer
from headwater.sketch.dense import sign_matrix
from headwater.sketch.products import squared_norms, unit_scale


@dataclass(frozen=True)
class TwoSided:
    """Every tensor gets an equal share of `dim` places, as near a square as its shape allows."""

    shapes: Mapping[str, tuple[int, ...]]
    dim: int
    seed: int
    _places: Mapping[str, tuple[int, int, int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        share = self.dim // max(1, len(self.shapes))
        if share < 1:
            what = f"{self.dim} places for {len(self.shapes)} tensors"
            raise UsageError(what, remedy="more places, or fewer tensors")
        places, start = {}, 0
        for name, shape in self.shapes.items():
            height, width = _sides(shape, share)
            places[name] = (start, height, width)
            start += height * width
        object.__setattr__(self, "_places", places)

    @property
    def blocks(self) -> tuple[int, ...]:
        """The number of each tensor's places in the vector, in order, then the number of unused places."""
        lengths = [height * width for _, height, width in self._places.values()]
        rest = self.dim - sum(lengths)
        return (*lengths, *((rest,) if rest else ()))

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each tensor's sketch, in the order of their places."""
        return tuple((height, width) for _, height, width in self._places.values())

    def accumulate(
        self, total: Float[Tensor, "rows dim"], gradient: Gradient, *, unit: bool, norms: bool = True
    ) -> Float[Tensor, " rows"]:
        """See `Sketch.accumulate`."""
        start, height, width = self._places[gradient.name]
        out, width_in = gradient.matrix
        left = self._side(gradient.name, "left", out, height, total)
        right = self._side(gradient.name, "right", width_in, width, total)
        squared = squared_norms(gradient, wanted=unit or norms)
        scale = unit_scale(squared) if unit else torch.ones_like(squared)
        for block in gradient.blocks:
            if isinstance(block, Dense):
                small = (block.values.to(total.dtype) @ right)[:, None, :]
            else:
                lefts = block.left.to(total.dtype) @ left if isinstance(block, Outer) else left[block.index]
                small = torch.bmm(lefts.mT, block.right.to(total.dtype) @ right)
            total[:, start : start + height * width].addcmul_(small.flatten(1), scale[:, None].to(total.dtype))
        return squared

    def _side(self, name: str, side: str, size: int, small: int, like: Tensor) -> Tensor:
        return _projection(size, small, key(self.seed, name, side), like.dtype, like.device)


def _sides(shape: tuple[int, ...], share: int) -> tuple[int, int]:
    """Height and width of a tensor's sketch: at most `share` places, no side longer than the tensor's own."""
    if len(shape) == 1:
        return 1, min(share, shape[0])
    out, width_in = shape
    side = math.isqrt(share)
    if out < width_in:
        height = min(out, side)
        return height, min(width_in, share // height)
    width = min(width_in, side)
    return min(out, share // width), width


@lru_cache(maxsize=4096)
def _projection(size: int, small: int, stream: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Random signs / √small; the identity where the side is not shortened."""
    like = torch.empty(0, dtype=dtype, device=device)
    return torch.eye(size, dtype=dtype, device=device) if size == small else sign_matrix(size, small, stream, like)


def matrices_of(sketch: object) -> tuple[tuple[int, int], ...]:
    """Height and width of the matrices that the sketch's vectors consist of; none of a sketch without matrices."""
    return sketch.matrices if isinstance(sketch, TwoSided) else ()
