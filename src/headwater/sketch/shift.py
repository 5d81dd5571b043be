"""The signed shift-sum: a count-sketch whose scatter is a matrix product (RapidIn's RapidGrad, arXiv 2405.11724).

RapidIn multiplies the whole gradient by random signs, shuffles it and sums equal blocks. Here the place of an entry
comes from a hash (`shift_plan`), chosen so that a tile of the gradient matrix lands on consecutive buckets: the signed
factors are multiplied and the product is added where it belongs, without a gather or a scatter over its entries.
Memory beyond the result: two tiles for each row at work, `WORK_BYTES` in all (one row's two tiles if those are larger).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.seeds import signs
from headwater.sketch.blocks import Block, Dense, Gradient, Lookup, Outer
from headwater.sketch.products import formed, unit_scale
from headwater.sketch.shift_plan import ShiftPlan, shift_plan

WORK_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}
"""How large the products formed at one time may be: on a processor, what stays in its cache."""


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
        if len(gradient.blocks) == 1 and isinstance(gradient.blocks[0], Lookup):
            return _accumulate_lookup(total, gradient, plan, unit)
        limit = WORK_BYTES.get(total.device.type, WORK_BYTES["cuda"])
        step = max(1, limit // (2 * plan.region * gradient.dtype.itemsize))
        squared = torch.empty(gradient.rows, dtype=gradient.dtype, device=total.device)
        for start in range(0, gradient.rows, step):
            rows = slice(start, min(start + step, gradient.rows))
            values, squared[rows] = _fold(gradient.take(rows), plan)
            scale = unit_scale(squared[rows]) if unit else torch.ones_like(squared[rows])
            _add_around(total[rows], values.flatten(1), scale, plan)
        return squared


def _fold(gradient: Gradient, plan: ShiftPlan) -> tuple[Float[Tensor, "rows height width"], Float[Tensor, " rows"]]:
    """All tiles of the gradients, signed, turned and summed; and the squared norms of what was summed."""
    squared = torch.zeros(gradient.rows, dtype=gradient.dtype, device=gradient.device)
    whole = plan.lines * plan.columns == 1
    size = (gradient.rows, plan.height, plan.width)
    folded = None if whole else torch.zeros(size, dtype=gradient.dtype, device=gradient.device)
    for column in range(plan.columns):
        blocks = [_sign_left(block, plan, column, gradient.dtype) for block in gradient.blocks]
        for line in range(plan.lines):
            tile = _tile(blocks, plan, line, column)
            squared += torch.linalg.vector_norm(tile.flatten(1), dim=1).square()
            if folded is None:
                return tile, squared
            _add_turned(folded, tile, plan.turns[line * plan.columns + column].tolist())
    assert folded is not None
    return folded, squared


def _sign_left(block: Block, plan: ShiftPlan, column: int, dtype: torch.dtype) -> Block:
    """The block with s1 of a column of tiles multiplied in, and only that column's part of the right factor."""
    some = slice(column * plan.width, (column + 1) * plan.width)
    first = plan.out * column
    if isinstance(block, Dense):
        sign = _signs(plan.left_stream, plan.out * plan.columns, block.values.device)[first].to(dtype)
        return Dense(block.values[:, some].to(dtype) * sign)
    sign = _signs(plan.left_stream, plan.out * plan.columns, block.right.device)[first : first + plan.out].to(dtype)
    if isinstance(block, Outer):
        return Outer(block.left * sign, block.right[..., some].to(dtype))
    return Lookup(block.index, block.right[..., some].to(dtype) * sign[block.index][..., None])


def _tile(blocks: list[Block], plan: ShiftPlan, line: int, column: int) -> Float[Tensor, "rows height width"]:
    """The product of one tile, signs on both sides; tiles at the far edges are smaller."""
    phase = int(plan.turns[line * plan.columns + column, 2])
    start, stop = line * plan.height, min((line + 1) * plan.height, plan.out)
    signed = [_sign_right(block, plan, phase) for block in blocks]
    return formed(Gradient("tile", (plan.out, plan.width), tuple(signed)), start, stop)


def _sign_right(block: Block, plan: ShiftPlan, phase: int) -> Block:
    values = block.values if isinstance(block, Dense) else block.right
    count = int(plan.turns[:, 2].max()) + plan.width
    sign = _signs(plan.right_stream, count, values.device)[phase : phase + values.shape[-1]].to(values.dtype)
    if isinstance(block, Dense):
        return Dense(values * sign)
    return Outer(block.left, values * sign) if isinstance(block, Outer) else Lookup(block.index, values * sign)


def _add_turned(folded: Tensor, tile: Tensor, turns: list[int]) -> None:
    """Add a tile, rotated down and right, wrapping around in both directions."""
    height, width = folded.shape[1:]
    for to_row, from_row in _wrapped(turns[0], tile.shape[1], height):
        for to_column, from_column in _wrapped(turns[1], tile.shape[2], width):
            folded[:, to_row, to_column] += tile[:, from_row, from_column]


def _wrapped(turn: int, count: int, size: int) -> list[tuple[slice, slice]]:
    """(to, from) of the one or two straight pieces in which `count` places go to a ring of `size`, turned."""
    straight = min(count, size - turn)
    pieces = [(slice(turn, turn + straight), slice(0, straight))]
    return pieces if straight == count else [*pieces, (slice(0, count - straight), slice(straight, count))]


def _add_around(total: Tensor, values: Tensor, scale: Tensor, plan: ShiftPlan) -> None:
    for to, source in _wrapped(plan.origin, values.shape[1], plan.dim):
        total[:, to].addcmul_(values[:, source], scale[:, None])


def _accumulate_lookup(total: Tensor, gradient: Gradient, plan: ShiftPlan, unit: bool) -> Tensor:
    """Embeddings: only the rows looked up are touched; equal ones within an example are added first."""
    block = gradient.blocks[0]
    assert isinstance(block, Lookup)
    width_in = plan.width_in
    owner = torch.arange(gradient.rows, device=total.device)[:, None] * plan.out
    entries, place = torch.unique(block.index + owner, return_inverse=True)
    found = torch.zeros(len(entries), width_in, dtype=gradient.dtype, device=total.device)
    found.index_add_(0, place.flatten(), block.right.flatten(0, 1).to(gradient.dtype))
    row, index = entries // plan.out, entries % plan.out
    squared = torch.zeros(gradient.rows, dtype=gradient.dtype, device=total.device)
    squared.index_add_(0, row, found.square().sum(1))
    if unit:
        found *= unit_scale(squared)[row][:, None]
    turns = torch.from_numpy(plan.turns).to(total.device)
    for column in range(plan.columns):
        some = slice(column * plan.width, min((column + 1) * plan.width, width_in))
        tile = turns[torch.div(index, plan.height, rounding_mode="floor") * plan.columns + column]
        across = torch.arange(some.stop - some.start, device=total.device)
        left = _signs(plan.left_stream, plan.out * plan.columns, total.device)[index + plan.out * column]
        right = _signs(plan.right_stream, int(plan.turns[:, 2].max()) + plan.width, total.device)
        sign = right[tile[:, 2:3] + across] * left[:, None]
        line = (index % plan.height + tile[:, 0]) % plan.height
        bucket = (plan.origin + line[:, None] * plan.width + (across + tile[:, 1:2]) % plan.width) % plan.dim
        spot = row[:, None] * plan.dim + bucket
        total.view(-1).index_add_(0, spot.flatten(), (found[:, some] * sign).flatten())
    return squared


@lru_cache(maxsize=8192)
def _signs(stream: int, count: int, device: torch.device) -> Tensor:
    """The first `count` signs of a stream, int8 `[count]`."""
    return signs(torch.arange(count, device=device), stream).to(torch.int8)
