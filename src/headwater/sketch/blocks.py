"""Blocks: the factors of per-example gradients, which are passed on before they are multiplied out.

The gradient of a linear layer's weight is a sum over tokens of outer products, `Σ_t left_t ⊗ right_t`. The factors are
small, and norms, inner products, two-sided projections and the gradient itself can be computed from them. An embedding
has a one-hot left factor, kept as an index. All other gradients are flat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Dense:
    """A flat gradient: a bias, a norm's scale, any small parameter."""

    values: Float[Tensor, "rows size"]


@dataclass(frozen=True)
class Outer:
    """`Σ_t left_t ⊗ right_t`: `left` is the gradient at the layer's output, `right` the layer's input."""

    left: Float[Tensor, "rows tokens out"]
    right: Float[Tensor, "rows tokens in"]


class Packed(Outer):
    """An `Outer` whose left factors lie one after the other, without places for the tokens that some rows lack.

    `left`, which has such places, is made when it is asked for.

    Attributes:
        packed: the left factors of all rows' tokens, in the order of rows.
        slot: which of them is a token's; one of the row's own where it has no token.
        real: whether the row has this token; where not, `right` is zero, and so is `left`.
    """

    packed: Float[Tensor, "positions out"]
    slot: Int[Tensor, "rows tokens"]
    real: Bool[Tensor, "rows tokens"]

    def __init__(
        self,
        packed: Float[Tensor, "positions out"],
        slot: Int[Tensor, "rows tokens"],
        real: Bool[Tensor, "rows tokens"],
        right: Float[Tensor, "rows tokens in"],
    ) -> None:
        for name, value in {"packed": packed, "slot": slot, "real": real, "right": right}.items():
            object.__setattr__(self, name, value)

    @property
    def left(self) -> Float[Tensor, "rows tokens out"]:
        """The left factors with a place for every token of the longest row."""
        return self.packed[self.slot].masked_fill_(~self.real[..., None], 0.0)


@dataclass(frozen=True)
class Lookup:
    """`Σ_t onehot(index_t) ⊗ right_t`: `index` is the row looked up, `right` the gradient at the lookup's output."""

    index: Int[Tensor, "rows tokens"]
    right: Float[Tensor, "rows tokens in"]


Block = Dense | Outer | Lookup


@dataclass(frozen=True)
class Gradient:
    """The gradients of one parameter for the rows of a batch: the sum of its blocks.

    Attributes:
        name: the parameter's name; a slice of a fused expert tensor is `name[expert]`.
        shape: `(out, in)` of a matrix, `(size,)` of any other parameter.
        blocks: one `Dense`, or at most one `Outer` and one `Lookup` (both for an embedding tied to the head).
        transposed: the parameter is stored as `(in, out)`.
    """

    name: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    transposed: bool = False

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        """Number of rows of the batch."""
        block = self.blocks[0]
        return len(block.values if isinstance(block, Dense) else block.right)

    @property
    def matrix(self) -> tuple[int, int]:
        """The shape as `(out, in)`; a vector has one row."""
        return (1, self.shape[0]) if len(self.shape) == 1 else (self.shape[0], self.shape[1])

    @property
    def made_in(self) -> torch.dtype:
        """The dtype in which the model computed the factors."""
        block = self.blocks[0]
        return block.values.dtype if isinstance(block, Dense) else block.right.dtype

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which products are formed and summed: at least float32."""
        return torch.promote_types(self.made_in, torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the blocks are."""
        block = self.blocks[0]
        return (block.values if isinstance(block, Dense) else block.right).device

    def take(self, rows: slice) -> Gradient:
        """The gradients of some rows only."""
        taken = tuple(map_tensors(block, lambda tensor: tensor[rows]) for block in self.blocks)
        return Gradient(self.name, self.shape, taken, self.transposed)


def map_tensors(block: Block, change: Callable[[Tensor], Tensor]) -> Block:
    """The block with `change` applied to each of its tensors."""
    if isinstance(block, Dense):
        return Dense(change(block.values))
    if isinstance(block, Outer):
        return Outer(change(block.left), change(block.right))
    return Lookup(change(block.index), change(block.right))


def merge(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """The same sum with at most one block of each kind, for a parameter that is used several times in a pass."""
    parts = list(blocks)
    dense = [b.values for b in parts if isinstance(b, Dense)]
    outer = [b for b in parts if isinstance(b, Outer)]
    lookup = [b for b in parts if isinstance(b, Lookup)]
    merged: list[Block] = []
    if dense:
        merged.append(Dense(torch.stack(dense).sum(0) if len(dense) > 1 else dense[0]))
    if outer:
        joined = Outer(_join([b.left for b in outer]), _join([b.right for b in outer])) if len(outer) > 1 else outer[0]
        merged.append(joined)
    if lookup:
        merged.append(Lookup(_join([b.index for b in lookup]), _join([b.right for b in lookup])))
    return tuple(merged)


def multiplied_out(block: Outer, before: Tensor | None = None) -> Float[Tensor, "_rows _in _out"]:
    """Σ_t right_t ⊗ left_t, float32 at least, added to `before` in place."""
    wide = torch.promote_types(block.right.dtype, torch.float32)
    left, right = block.left.to(wide), block.right.mT.to(wide)
    return torch.bmm(right, left) if before is None else before.baddbmm_(right, left)


def as_outer(summed: Float[Tensor, "_rows _in _out"]) -> Outer:
    """What `multiplied_out` gave, as a sum over its columns instead of tokens: Σ_j summed_j ⊗ e_j."""
    unit = torch.eye(summed.shape[1], dtype=summed.dtype, device=summed.device)
    return Outer(summed, unit.expand(len(summed), -1, -1))


def _join(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)
