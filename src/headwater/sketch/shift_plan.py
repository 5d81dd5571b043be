"""The buckets and signs of a tensor's entries in the signed shift-sum, in integer arithmetic.

An `out × in` matrix is cut into tiles of whole rows (and into columns of tiles, if a row is longer than `dim`), as
many rows as fit into `dim` buckets. Each tile lies on consecutive buckets from its origin on, wrapping around:

    bucket(i, j) = (origin(tile) + (i mod height) · width + j mod width) mod dim
    sign(i, j)   = s1(i + out · column tile) · s2(j + in · (row tile div width))

Origins are hashed and spread over all buckets; those of tiles below each other differ modulo `width` (a hashed
permutation, which repeats after `width` tiles with another s2). Two entries of one tile never share a bucket. Two of
different tiles do with probability about 1 / dim over seeds, with independent signs; and since equal columns never
do, the signs of all collisions of two tiles are pairwise independent. So a tensor with fewer entries than buckets loses
nothing by itself, and a larger one no more than in a count-sketch. Each of the two signs belongs to one factor of the
outer product, so the factors are signed before they are multiplied, and no entry is moved by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from headwater.core.seeds import buckets, hash32, key, signs


@dataclass(frozen=True)
class ShiftPlan:
    """The map of one tensor.

    Attributes:
        out: rows of the matrix (1 for a vector).
        width_in: columns of the matrix.
        dim: number of buckets.
        width: columns of a tile.
        height: rows of a tile.
        origins: int64 `[tiles]`, first bucket of each tile; tile = row tile · column tiles + column tile.
        stream: the tensor's key, from which signs are hashed.
    """

    out: int
    width_in: int
    dim: int
    width: int
    height: int
    origins: Any
    stream: int
    _on_device: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return -(-self.width_in // self.width)

    @property
    def lines(self) -> int:
        """Tiles one below the other."""
        return -(-self.out // self.height)

    @property
    def patterns(self) -> int:
        """Number of patterns of column signs."""
        return -(-self.lines // self.width)

    def origins_on(self, device: torch.device) -> Int[Tensor, " tiles"]:
        """The origins on a device; copied once, because a copy makes the device wait."""
        if device not in self._on_device:
            self._on_device[device] = torch.from_numpy(self.origins).to(device)
        return self._on_device[device]

    @cached_property
    def left_stream(self) -> int:
        """The key of s1."""
        return key(self.stream, "left")

    @cached_property
    def right_stream(self) -> int:
        """The key of s2."""
        return key(self.stream, "right")

    def place(self, i: Any, j: Any) -> tuple[Any, Any]:
        """Bucket and sign of entries (i, j), by the definition above; for int64 NumPy arrays."""
        line, column = i // self.height, j // self.width
        inside = i % self.height * self.width + j % self.width
        bucket = (self.origins[line * self.columns + column] + inside) % self.dim
        left = signs(i + self.out * column, self.left_stream)
        return bucket, left * signs(j + self.width_in * (line // self.width), self.right_stream)


@lru_cache(maxsize=4096)
def shift_plan(name: str, out: int, width_in: int, dim: int, seed: int) -> ShiftPlan:
    """The plan of the tensor called `name`, of shape `out × width_in`."""
    columns = -(-width_in // dim)
    width = -(-width_in // columns)
    height = min(out, dim // width)
    lines = -(-out // height)
    stream = key(seed, name, "shift")
    anywhere = buckets(np.arange(lines * columns, dtype=np.int64), key(stream, "origin"), dim).reshape(lines, columns)
    residues = [_permutation(width, key(stream, "residue", c))[np.arange(lines) % width] for c in range(columns)]
    origins = (anywhere - anywhere % width + np.stack(residues, axis=1)) % dim
    return ShiftPlan(out, width_in, dim, width, height, origins.flatten(), stream)


def _permutation(size: int, stream: int) -> Any:
    """The numbers below `size`, sorted by their hashes."""
    return np.argsort(hash32(np.arange(size, dtype=np.int64), stream), kind="stable")
