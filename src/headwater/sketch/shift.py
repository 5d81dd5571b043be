"""The signed shift-sum: a count-sketch whose scatter is a matrix product (RapidIn's RapidGrad, arXiv 2405.11724).

RapidIn multiplies the whole gradient by random signs, shuffles it and sums equal blocks. Here the place of an entry
comes from a hash (`shift_plan`), chosen so that a tile of the gradient matrix lands on consecutive buckets: the signed
factors are multiplied and the product is added where it belongs, without a gather or a scatter over its entries.
Memory beyond the result: the products and sums of the rows at work, `WORK_BYTES` (one row's tile and sum, if that is
more).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.seeds import signs
from headwater.sketch.blocks import Dense, Gradient, Lookup, Outer
from headwater.sketch.products import paired, unit_scale
from headwater.sketch.shift_plan import ShiftPlan, shift_plan

WORK_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}
"""How large the products formed at one time may be: on a processor, about what stays in its nearest large cache."""


@dataclass(frozen=True)
class ShiftSum:
    """The signed shift-sum into `dim` buckets; unbiased, with the variance of a count-sketch."""

    dim: int
    seed: int

    def plan(self, name: str, matrix: tuple[int, int]) -> ShiftPlan:
        """Where the entries of a tensor go."""
        return shift_plan(name, *matrix, self.dim, self.seed)

    def accumulate(self, total: Float[Tensor, "rows dim"], gradient: Gradient, *, unit: bool) -> Float[Tensor, " rows"]:
        """See `Sketch.accumulate`."""
        plan = self.plan(gradient.name, gradient.matrix)
        outer, lookup = _parts(gradient)
        squared = torch.zeros(gradient.rows, dtype=gradient.dtype, device=total.device)
        if lookup is not None:
            squared += paired(lookup, lookup, gradient.dtype)
        if outer is not None:
            if lookup is not None:
                squared += 2 * paired(outer, lookup, gradient.dtype)
            _accumulate_outer(total, outer, plan, squared, unit)
        if lookup is not None:
            _scatter(total, lookup, plan, unit_scale(squared) if unit else torch.ones_like(squared))
        return squared


def _parts(gradient: Gradient) -> tuple[Outer | None, Lookup | None]:
    """The product and the looked-up part; a flat gradient is a product with a left factor of 1."""
    outer: Outer | None = None
    lookup: Lookup | None = None
    for block in gradient.blocks:
        if isinstance(block, Lookup):
            lookup = block
        elif isinstance(block, Dense):
            outer = Outer(torch.ones_like(block.values[:, :1, None]), block.values[:, None, :])
        else:
            outer = block
    return outer, lookup


def _accumulate_outer(
    total: Tensor, outer: Outer, plan: ShiftPlan, squared: Float[Tensor, " rows"], unit: bool
) -> None:
    """Add the products to `total`, and their squared norms to `squared` before it is divided by."""
    left, right = outer.left.to(squared.dtype), outer.right.to(squared.dtype)
    limit = WORK_BYTES.get(total.device.type, WORK_BYTES["cuda"]) // squared.dtype.itemsize
    size = plan.out * plan.width_in
    # A small matrix is formed at once and added scaled; a large one is summed first, tile by tile.
    ghost = size > plan.dim and _ghost_is_cheaper(left.shape[1], plan)
    if ghost:
        squared += paired(outer, outer, squared.dtype)
    small = not ghost and plan.columns == plan.patterns == 1 and size <= limit
    if small:
        left, right = left * _left_signs(plan, 0, left), right * _right_signs(plan, 0, 0, right)
    step = max(1, limit // (size if small else 2 * plan.dim))
    for start in range(0, len(total), step):
        rows = slice(start, start + step)
        if small:
            product = torch.bmm(left[rows].mT, right[rows])
            squared[rows] += torch.linalg.vector_norm(product.flatten(1), dim=1).square_()
            _add_tiles(total[rows], product, plan, 0, _scale(squared[rows], unit))
        else:
            summed, norms = _summed(left[rows], right[rows], plan, norms=not ghost)
            squared[rows] += norms
            total[rows].addcmul_(summed, _scale(squared[rows], unit))


def _ghost_is_cheaper(tokens: int, plan: ShiftPlan) -> bool:
    """Whether norms cost less from the factors than from the products, which must then be written, read and added.

    That is worth some 50 operations a number; the norm alone some 10.
    """
    return 2 * tokens * tokens * (plan.out + plan.width_in) < 50 * plan.out * plan.width_in


def _summed(
    left: Tensor, right: Tensor, plan: ShiftPlan, *, norms: bool
) -> tuple[Float[Tensor, "rows dim"], Float[Tensor, " rows"]]:
    """The sketch of the products, not normalised, made tile by tile, and their squared norms if asked for, else 0."""
    summed = torch.zeros(len(left), plan.dim + plan.width, dtype=left.dtype, device=left.device)
    squared = torch.zeros_like(summed[:, 0])
    for column in range(plan.columns):
        signs = _left_signs(plan, column, left)
        some = right[..., column * plan.width : (column + 1) * plan.width]
        for pattern in range(plan.patterns):
            rights = some * _right_signs(plan, column, pattern, right)
            for line in range(pattern * plan.width, min((pattern + 1) * plan.width, plan.lines)):
                here = slice(line * plan.height, (line + 1) * plan.height)
                lefts = left[..., here] * signs[here]  # close together in memory: the product is much faster
                tile = line * plan.columns + column
                if norms:
                    product = torch.bmm(lefts.mT, rights)
                    squared += torch.linalg.vector_norm(product.flatten(1), dim=1).square()
                    _add_tiles(summed[:, : plan.dim], product, plan, tile, torch.ones_like(squared[:, None]))
                else:
                    _multiply_into(summed, lefts, rights, plan.dim, int(plan.origins[tile]))
    summed[:, : plan.width] += summed[:, plan.dim :]
    return summed[:, : plan.dim], squared


def _multiply_into(summed: Float[Tensor, "rows _padded"], lefts: Tensor, rights: Tensor, dim: int, origin: int) -> None:
    """Add a tile's product on the buckets from `origin` as it is made; a line that begins before `dim` may pass it."""
    lines, width = lefts.shape[2], rights.shape[2]
    before = min(lines, -(-(dim - origin) // width))
    for some, first in ((lefts[..., :before], origin), (lefts[..., before:], origin + before * width - dim)):
        if count := some.shape[2]:
            summed[:, first : first + count * width].unflatten(1, (count, width)).baddbmm_(some.mT, rights)


def _add_tiles(total: Tensor, product: Tensor, plan: ShiftPlan, tile: int, scale: Float[Tensor, "rows 1"]) -> None:
    """Add the tiles that make up `product`, from `tile` on, each scaled and on the buckets from its origin."""
    flat = product.flatten(1)
    size = plan.height * product.shape[2]
    for start in range(0, flat.shape[1], size):
        origin = int(plan.origins[tile])
        count = min(size, flat.shape[1] - start)
        straight = min(count, plan.dim - origin)
        total[:, origin : origin + straight].addcmul_(flat[:, start : start + straight], scale)
        if count > straight:
            total[:, : count - straight].addcmul_(flat[:, start + straight : start + count], scale)
        tile += 1


def _scatter(total: Tensor, lookup: Lookup, plan: ShiftPlan, scale: Float[Tensor, " rows"]) -> None:
    """Add looked-up rows, each a signed stretch of buckets of its own, to `total`."""
    rows, tokens = lookup.index.shape
    index = lookup.index.flatten()
    values = (lookup.right.to(total.dtype) * scale[:, None, None]).flatten(0, 1)
    first = torch.arange(rows, device=total.device).repeat_interleave(tokens) * plan.dim
    origins = torch.from_numpy(plan.origins).to(total.device)
    line = torch.div(index, plan.height, rounding_mode="floor")
    for column in range(plan.columns):
        some = values[:, column * plan.width : (column + 1) * plan.width]
        origin = origins[line * plan.columns + column] + index % plan.height * plan.width
        bucket = (origin[:, None] + torch.arange(some.shape[1], device=total.device)) % plan.dim
        patterns = torch.stack([_right_signs(plan, column, pattern, total) for pattern in range(plan.patterns)])
        sign = _left_signs(plan, column, total)[index][:, None] * patterns[line // plan.width]
        total.view(-1).index_add_(0, (bucket + first[:, None]).flatten(), (some * sign).flatten())


def _scale(squared: Float[Tensor, " rows"], unit: bool) -> Float[Tensor, "rows 1"]:
    return (unit_scale(squared) if unit else torch.ones_like(squared))[:, None]


def _left_signs(plan: ShiftPlan, column: int, like: Tensor) -> Float[Tensor, " out"]:
    first = plan.out * column
    return _signs(plan.left_stream, plan.out * plan.columns, like.device)[first : first + plan.out].to(like.dtype)


def _right_signs(plan: ShiftPlan, column: int, pattern: int, like: Tensor) -> Float[Tensor, " width"]:
    first = plan.width_in * pattern
    start, stop = column * plan.width, min((column + 1) * plan.width, plan.width_in)
    table = _signs(plan.right_stream, plan.width_in * plan.patterns, like.device)
    return table[first + start : first + stop].to(like.dtype)


@lru_cache(maxsize=8192)
def _signs(stream: int, count: int, device: torch.device) -> Tensor:
    """The first `count` signs of a stream, int8 `[count]`."""
    found: Tensor = signs(torch.arange(count, device=device), stream).to(torch.int8)
    return found
