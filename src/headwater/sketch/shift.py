"""The signed shift-sum: a count-sketch whose scatter is a matrix product (RapidIn's RapidGrad, arXiv 2405.11724).

RapidIn multiplies the whole gradient by random signs, shuffles it and sums equal blocks. Here the place of an entry
comes from a hash (`shift_plan`), chosen so that a tile of the gradient matrix lands on consecutive buckets: the signed
factors are multiplied and the product is added there, without a gather or a scatter over its entries.
Memory beyond the result: the products and sums of some rows at a time, `WORK_BYTES` (one row's tile and sum, if that is
more), and their signed factors. On a CPU this memory is kept for the next tensor.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.seeds import signs
from headwater.data.sums import add_at
from headwater.sketch.blocks import Dense, Gradient, Lookup, Outer, Packed
from headwater.sketch.precision import half_products, multiplies_half
from headwater.sketch.products import paired, unit_scale
from headwater.sketch.shift_plan import ShiftPlan, shift_plan

WORK_BYTES = {"cpu": 8 * 2**20, "cuda": 256 * 2**20}
"""Largest size of the products formed at a time: on a CPU, about what stays in its nearest large caches."""

MANY_TILES = {"cpu": False, "cuda": True}
"""Whether many tiles are formed by one product and added in one step. A GPU would spend its time starting kernels
otherwise; on a CPU a tile is best added while it is in a cache."""

AT_LEAST = 8
"""A matrix is formed whole if this many examples fit; for fewer, calls take as long as the arithmetic in them."""


@dataclass(frozen=True)
class ShiftSum:
    """The signed shift-sum into `dim` buckets; unbiased, with the variance of a count-sketch."""

    dim: int
    seed: int

    def plan(self, name: str, matrix: tuple[int, int]) -> ShiftPlan:
        """Where the entries of a tensor go."""
        return shift_plan(name, *matrix, self.dim, self.seed)

    def accumulate(
        self, total: Float[Tensor, "rows dim"], gradient: Gradient, *, unit: bool, norms: bool = True
    ) -> Float[Tensor, " rows"]:
        """See `Sketch.accumulate`."""
        plan = self.plan(gradient.name, gradient.matrix)
        if isinstance(gradient.blocks[0], Dense):
            return _accumulate_flat(total, gradient.blocks[0], plan, unit=unit, norms=unit or norms)
        outer, lookup = _parts(gradient)
        squared = torch.zeros(gradient.rows, dtype=gradient.dtype, device=total.device)
        measured = unit or norms
        if lookup is not None and measured:
            squared += paired(lookup, lookup, gradient.dtype)
        if outer is not None:
            if lookup is not None and measured:
                squared += 2 * paired(outer, lookup, gradient.dtype)
            _accumulate_outer(total, outer, plan, squared, unit=unit, norms=measured)
        if lookup is not None:
            _scatter(total, lookup, plan, unit_scale(squared) if unit else torch.ones_like(squared))
        return squared


def _parts(gradient: Gradient) -> tuple[Outer | None, Lookup | None]:
    """The outer product and the lookup of a matrix."""
    outer = next((block for block in gradient.blocks if isinstance(block, Outer)), None)
    return outer, next((block for block in gradient.blocks if isinstance(block, Lookup)), None)


def _accumulate_flat(total: Tensor, flat: Dense, plan: ShiftPlan, *, unit: bool, norms: bool) -> Float[Tensor, " rows"]:
    """A matrix of one row: nothing is multiplied out, and its entries are signed and added as they are."""
    values = flat.values.to(torch.promote_types(flat.values.dtype, torch.float32))
    squared = torch.linalg.vector_norm(values, dim=1).square_() if norms else torch.zeros_like(values[:, 0])
    scale = _scale(squared, unit)
    for column in range(plan.columns):
        some = values[:, column * plan.width : (column + 1) * plan.width]
        signs = _left_signs(plan, column, values) * _right_signs(plan, column, 0, values)
        _add_tiles(total, (some * signs)[:, None, :], plan, range(column, column + 1), scale)
    return squared


def _accumulate_outer(
    total: Tensor, outer: Outer, plan: ShiftPlan, squared: Float[Tensor, " rows"], *, unit: bool, norms: bool
) -> None:
    """Add the products to `total`; with `norms`, their squared norms are added to `squared` before they are scaled."""
    outer = _for_products(outer, squared.dtype)
    limit = WORK_BYTES.get(total.device.type, WORK_BYTES["cuda"]) // squared.dtype.itemsize
    size = plan.out * plan.width_in
    # A small matrix is formed whole, so its norm is known when it is added; a large one is summed first, then scaled.
    small = plan.columns == plan.patterns == 1 and AT_LEAST * size <= limit
    step = max(1, limit // (size if small else 2 * plan.dim))
    work = _work(outer.right, squared.dtype)
    for start in range(0, len(total), step):
        rows = slice(start, start + step)
        left, right = work.factors(outer, rows)
        if small:
            lefts = left(slice(0, plan.out), _left_signs(plan, 0, right))
            product = work.product(lefts, work.signed("right", right, _right_signs(plan, 0, 0, right)))
            if norms:
                squared[rows] += torch.linalg.vector_norm(product.flatten(1), dim=1).square_()
            _add_tiles(total[rows], product, plan, range(plan.lines), _scale(squared[rows], unit))
        else:
            summed, found = _summed(left, right, plan, work, norms=norms)
            squared[rows] += found
            total[rows].addcmul_(summed, _scale(squared[rows], unit))


def _for_products(outer: Outer, dtype: torch.dtype) -> Outer:
    """The factors in a dtype whose products are formed in `dtype`."""
    left = outer.packed if isinstance(outer, Packed) else outer.left
    if multiplies_half(left, outer.right):
        return outer
    left, right = left.to(dtype), outer.right.to(dtype)
    return Packed(left, outer.slot, outer.real, right) if isinstance(outer, Packed) else Outer(left, right)


_Lefts = Callable[[slice, Tensor], Tensor]
"""The left factors of some rows, of the outputs in a slice, times the signs of these outputs."""


class _Work:
    """Memory that is used again for every tile, every few rows and every tensor.

    New memory is slower: it must be cleared and is in no cache, and the system maps a large block at every request.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._empty = partial(torch.empty, device=device)
        self.dtype = dtype
        self._held: dict[str, Tensor] = {}

    def signed(self, name: str, factor: Tensor, signs: Tensor) -> Tensor:
        """`factor` times its signs, in contiguous memory, which makes its products much faster."""
        return torch.mul(factor, signs, out=self.shaped(name, factor.dtype, *factor.shape))

    def factors(self, outer: Outer, rows: slice) -> tuple[_Lefts, Tensor]:
        """The left factors of some rows, which are signed when they are asked for, and the right ones."""
        if not isinstance(outer, Packed):
            return lambda here, signs: self.signed("left", outer.left[rows, :, here], signs), outer.right[rows]
        longest = int(outer.real[rows].sum(1).max())
        slot = outer.slot[rows, :longest]
        first, last = int(slot.min()), int(slot.max())
        places = (slot - first).flatten()

        def left(here: slice, signs: Tensor) -> Tensor:
            packed = self.signed("packed", outer.packed[first : last + 1, here], signs)
            spread = self.shaped("left", packed.dtype, len(places), packed.shape[1])
            return torch.index_select(packed, 0, places, out=spread).view(*slot.shape, -1)

        return left, outer.right[rows, :longest]

    def product(self, left: Tensor, right: Tensor) -> Float[Tensor, "rows out in"]:
        """The products; the next call overwrites them."""
        size = (len(left), left.shape[2], right.shape[2])
        if left.dtype == self.dtype:
            return torch.bmm(left.mT, right, out=self.shaped("product", self.dtype, *size))
        return half_products(left.mT, right)

    def shaped(self, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        """Memory of this shape, with arbitrary contents."""
        count = math.prod(shape)
        if name not in self._held or len(self._held[name]) < count:
            self._held[name] = self._empty(count, dtype=dtype)
        return self._held[name][:count].view(shape)


_SPARE = threading.local()


def _work(like: Tensor, dtype: torch.dtype) -> _Work:
    """The memory to use: on a CPU one is kept for each thread and dtype; CUDA's allocator keeps freed memory itself."""
    if like.device.type != "cpu":
        return _Work(dtype, like.device)
    kept: dict[torch.dtype, _Work] = _SPARE.__dict__.setdefault("work", {})
    return kept.setdefault(dtype, _Work(dtype, like.device))


def _summed(
    left: _Lefts, right: Tensor, plan: ShiftPlan, work: _Work, *, norms: bool
) -> tuple[Float[Tensor, "rows dim"], Float[Tensor, " rows"]]:
    """The sketch of the products, not normalised, and their squared norms (0 without `norms`)."""
    summed = work.shaped("summed", work.dtype, len(right), plan.dim).zero_()
    squared = torch.zeros_like(summed[:, 0])
    for column in range(plan.columns):
        signs = _left_signs(plan, column, right)
        some = right[..., column * plan.width : (column + 1) * plan.width]
        for pattern in range(plan.patterns):
            rights = work.signed("right", some, _right_signs(plan, column, pattern, right))
            last = min((pattern + 1) * plan.width, plan.lines)
            step = _lines_at_once(some, plan)
            for line in range(pattern * plan.width, last, step):
                lines = range(line, min(line + step, last))
                here = slice(lines.start * plan.height, lines.stop * plan.height)
                tiles = work.product(left(here, signs[here]), rights)
                if norms:
                    squared += torch.linalg.vector_norm(tiles.flatten(1), dim=1).square_()
                first, behind = line * plan.columns + column, lines.stop * plan.columns
                _add_tiles(summed, tiles, plan, range(first, behind, plan.columns), None)
    return summed, squared


def _lines_at_once(right: Tensor, plan: ShiftPlan) -> int:
    """How many tiles below each other are formed by one product."""
    if not MANY_TILES.get(right.device.type, True):
        return 1
    limit = WORK_BYTES.get(right.device.type, WORK_BYTES["cuda"]) // torch.float32.itemsize
    return max(1, limit // (len(right) * plan.height * right.shape[2]))


def _add_tiles(
    total: Tensor, product: Tensor, plan: ShiftPlan, tiles: range, scale: Float[Tensor, "rows 1"] | None
) -> None:
    """Add the tiles in `product`, whose numbers are given, to the buckets from their origins on, times any `scale`."""
    flat = product.flatten(1)
    size = plan.height * product.shape[2]
    whole = flat.shape[1] // size if MANY_TILES.get(total.device.type, True) else 0
    if whole > 1:
        moved = _moved(flat[:, : whole * size].unflatten(1, (whole, size)), plan, tiles[:whole])
        total.add_(moved) if scale is None else total.addcmul_(moved, scale)
    else:
        whole = 0
    for tile, start in zip(tiles[whole:], range(whole * size, flat.shape[1], size), strict=True):
        origin = int(plan.origins[tile])
        count = min(size, flat.shape[1] - start)
        straight = min(count, plan.dim - origin)
        for first, begin, length in ((origin, start, straight), (0, start + straight, count - straight)):
            place, values = total[:, first : first + length], flat[:, begin : begin + length]
            if length:
                place.add_(values) if scale is None else place.addcmul_(values, scale)


def _moved(entries: Float[Tensor, "rows tiles size"], plan: ShiftPlan, tiles: range) -> Float[Tensor, "rows dim"]:
    """Whole tiles, each moved to its buckets, and summed: bucket b takes entry (b − origin) mod dim of every tile."""
    rows, _, size = entries.shape
    origins = plan.origins_on(entries.device)[tiles.start : tiles.stop : tiles.step]
    entry = (torch.arange(plan.dim, device=entries.device) - origins[:, None]) % plan.dim
    moved = entries.gather(2, entry.clamp_max(size - 1).expand(rows, -1, -1))
    if size < plan.dim:
        beyond = (origins[:, None] + torch.arange(size, plan.dim, device=entries.device)) % plan.dim
        moved.scatter_(2, beyond.expand(rows, -1, -1), 0.0)
    return moved.sum(1)


def _scatter(total: Tensor, lookup: Lookup, plan: ShiftPlan, scale: Float[Tensor, " rows"]) -> None:
    """Add looked-up rows to `total`; each, times its signs, goes to consecutive buckets."""
    rows, tokens = lookup.index.shape
    index = lookup.index.flatten()
    values = lookup.right.to(total.dtype).flatten(0, 1)
    scales = scale.repeat_interleave(tokens)
    first = torch.arange(rows, device=total.device).repeat_interleave(tokens) * plan.dim
    origins = plan.origins_on(total.device)
    line = torch.div(index, plan.height, rounding_mode="floor")
    for column in range(plan.columns):
        some = values[:, column * plan.width : (column + 1) * plan.width]
        origin = origins[line * plan.columns + column] + index % plan.height * plan.width
        bucket = origin[:, None] + torch.arange(some.shape[1], device=total.device)
        bucket = _wrapped(bucket, plan.dim).add_(first[:, None])
        signed = some * (scales * _left_signs(plan, column, total)[index])[:, None]
        patterns = torch.stack([_right_signs(plan, column, pattern, total) for pattern in range(plan.patterns)])
        signed *= patterns if plan.patterns == 1 else patterns[line // plan.width]
        add_at(total.view(-1), bucket.flatten(), signed.flatten())


def _wrapped(bucket: Tensor, dim: int) -> Tensor:
    """`bucket` mod `dim`, in place. A power of two, the usual number of buckets, needs no division."""
    return bucket.bitwise_and_(dim - 1) if dim & (dim - 1) == 0 else bucket.remainder_(dim)


def _scale(squared: Float[Tensor, " rows"], unit: bool) -> Float[Tensor, "rows 1"]:
    return (unit_scale(squared) if unit else torch.ones_like(squared))[:, None]


def _left_signs(plan: ShiftPlan, column: int, like: Tensor) -> Float[Tensor, " out"]:
    first = plan.out * column
    return _signs(plan.left_stream, plan.out * plan.columns, like.device, like.dtype)[first : first + plan.out]


def _right_signs(plan: ShiftPlan, column: int, pattern: int, like: Tensor) -> Float[Tensor, " width"]:
    first = plan.width_in * pattern
    start, stop = column * plan.width, min((column + 1) * plan.width, plan.width_in)
    table = _signs(plan.right_stream, plan.width_in * plan.patterns, like.device, like.dtype)
    return table[first + start : first + stop]


@lru_cache(maxsize=8192)
def _signs(stream: int, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The first `count` signs of a stream, `[count]`."""
    found: Tensor = signs(torch.arange(count, device=device), stream).to(dtype)
    return found
