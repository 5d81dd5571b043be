"""Where the signed shift-sum puts each entry of a tensor: the map itself, in integer arithmetic.

An `out × in` matrix is cut into tiles of `height × width` entries, where `height · width` is as near `dim` as it can
be. All tiles of a tensor lie on the same stretch of buckets, each rotated by its own amounts in both directions, and
the stretch begins at the tensor's own random bucket, wrapping around:

    row(i)       = (i mod height + row_turn) mod height
    column(j)    = (j mod width + column_turn) mod width
    bucket(i, j) = (origin + row(i) · width + column(j)) mod dim
    sign(i, j)   = s1(i + out · column tile) · s2(phase + j mod width)

origin is hashed from the tensor; turns and phase from its tile (a single tile is not turned). Two entries of one tile
never meet; two entries of different tiles meet with probability 1 / (height · width) over seeds, with independent
signs. So a tensor with fewer entries than buckets loses nothing by itself, and a larger one as much as in a
count-sketch. Both signs belong to a factor of the outer product, which therefore is signed before it is multiplied
out, and no entry is moved on its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from headwater.core.seeds import buckets, key, signs

_PHASES = 1 << 16
"""Length of the sign sequence the tiles' column signs start in: what two tiles share by accident is 1 / 65,536."""
_ENOUGH = 0.97
"""Share of the buckets a tile should cover; variance grows by the inverse."""


@dataclass(frozen=True)
class ShiftPlan:
    """The map of one tensor.

    Attributes:
        out: rows of the matrix (1 for a vector).
        width_in: columns of the matrix.
        dim: number of buckets.
        width: columns of a tile.
        height: rows of a tile.
        origin: first bucket of the tensor's stretch.
        turns: int64 `[tiles, 3]`: row turn, column turn and phase of each tile;
            tile = row tile · column tiles + column tile.
        stream: the tensor's key, from which signs are hashed.
    """

    out: int
    width_in: int
    dim: int
    width: int
    height: int
    origin: int
    turns: Any
    stream: int

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return -(-self.width_in // self.width)

    @property
    def lines(self) -> int:
        """Tiles one below the other."""
        return -(-self.out // self.height)

    @property
    def region(self) -> int:
        """Buckets the tensor's tiles cover."""
        return self.height * self.width

    @property
    def left_stream(self) -> int:
        """The key of s1."""
        return key(self.stream, "left")

    @property
    def right_stream(self) -> int:
        """The key of s2."""
        return key(self.stream, "right")

    def place(self, i: Any, j: Any) -> tuple[Any, Any]:
        """Bucket and sign of entries (i, j): the definition, for int64 NumPy arrays."""
        tile = (i // self.height) * self.columns + j // self.width
        row = (i % self.height + self.turns[tile, 0]) % self.height
        column = (j % self.width + self.turns[tile, 1]) % self.width
        bucket = (self.origin + row * self.width + column) % self.dim
        left = signs(i + self.out * (j // self.width), self.left_stream)
        return bucket, left * signs(self.turns[tile, 2] + j % self.width, self.right_stream)


@lru_cache(maxsize=4096)
def shift_plan(name: str, out: int, width_in: int, dim: int, seed: int) -> ShiftPlan:
    """The plan of the tensor called `name`, of shape `out × width_in`."""
    width, height = _tile(out, width_in, dim)
    stream = key(seed, name, "shift")
    tiles = np.arange(-(-out // height) * -(-width_in // width), dtype=np.int64)
    turns = np.stack(
        [
            buckets(tiles, key(stream, "row"), height),
            buckets(tiles, key(stream, "column"), width),
            buckets(tiles, key(stream, "phase"), _PHASES),
        ],
        axis=1,
    )
    if len(tiles) == 1:
        turns[:] = 0
    origin = int(buckets(np.zeros(1, dtype=np.int64), key(stream, "origin"), dim)[0])
    return ShiftPlan(out, width_in, dim, width, height, origin, turns, stream)


def _tile(out: int, width_in: int, dim: int) -> tuple[int, int]:
    """Width and height of a tile: the fewest columns of tiles that waste next to no buckets, or the least waste."""
    best, choice = 0.0, (1, 1)
    for parts in range(-(-width_in // dim), min(width_in, -(-width_in // dim) + 64) + 1):
        width = -(-width_in // parts)
        height = min(out, dim // width)
        tiles = -(-out // height) * -(-width_in // width)
        used = 1.0 if tiles == 1 else height * width / dim
        if used > best:
            best, choice = used, (width, height)
        if used >= _ENOUGH:
            break
    return choice
