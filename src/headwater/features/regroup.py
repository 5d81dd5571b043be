"""Regrouping tensors from the layout that a module computes in, items × tokens, to rows × tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from headwater.core.errors import ModelError
from headwater.data.batches import TokenBatch
from headwater.sketch.blocks import Outer, Packed


@dataclass(frozen=True)
class Regroup:
    """Assigns a batch's items and tokens to its rows. Padding needs no mask, because its output gradients are zero."""

    batch: TokenBatch

    def items(self, tensor: Tensor, where: str) -> Shaped[Tensor, "items tokens features"]:
        """`tensor` of shape `[items, ..., features]` or `[items · tokens, features]`, with one token axis.

        Raises:
            ModelError: the first axis is neither, so examples cannot be separated.
        """
        items, tokens = self.batch.input_ids.shape
        if tensor.shape[0] in (items, items * tokens):
            return tensor.reshape(items, -1, tensor.shape[-1])
        if tensor.shape[0] == 1:
            return tensor.expand(items, *tensor.shape[1:]).reshape(items, -1, tensor.shape[-1])
        what = f"the module sees {tuple(tensor.shape)} for {items} examples of {tokens} tokens: which is whose is lost"
        raise ModelError(what, where=where, remedy="leave it out with a glob over parameters")

    def rows(self, tensor: Tensor, where: str) -> Shaped[Tensor, "rows tokens features"]:
        """The same, with the windows of a row one after the other on the token axis."""
        by_item = self.items(tensor, where)
        if self.batch.one_window_each:
            return by_item
        spare = torch.cat([by_item, torch.zeros_like(by_item[:1])])
        return spare[self._windows].flatten(1, 2)

    def outer(self, left: Tensor, right: Tensor, where: str) -> Outer:
        """The outer products of two tensors' rows, summed over tokens."""
        return Outer(self.rows(left, where), self.rows(right, where))

    def shared(self, output: Tensor) -> bool:
        """Whether one output of a module serves all items, as learned positions do."""
        return output.ndim > 0 and output.shape[0] == 1 and self.batch.input_ids.shape[0] > 1

    def sum_rows(self, values: Float[Tensor, "items size"]) -> Float[Tensor, "rows size"]:
        """Sum over the items of each row."""
        return self.batch.sum_windows(values)

    def pack(
        self, values: Float[Tensor, "slots features"], token: Int[Tensor, " slots"]
    ) -> Float[Tensor, "rows most features"]:
        """Values of some tokens (indices in items × tokens) by row, padded with zeros to the longest row."""
        row = self.batch.item_row.to(values.device)[token // self.batch.input_ids.shape[1]]
        order = torch.argsort(row, stable=True)
        counts = torch.bincount(row, minlength=len(self.batch.rows))
        first = counts.cumsum(0) - counts
        slot = torch.arange(len(row), device=values.device) - first[row[order]]
        size = (len(counts), int(counts.max()), values.shape[1])
        packed = torch.zeros(size, dtype=values.dtype, device=values.device)
        packed[row[order], slot] = values[order]
        return packed

    @cached_property
    def _windows(self) -> Int[Tensor, "rows windows"]:
        """The items of each row; rows with fewer are filled up with the item after the last, which is zeros."""
        item_row = self.batch.item_row.tolist()
        owned: list[list[int]] = [[] for _ in self.batch.rows]
        for item, row in enumerate(item_row):
            owned[row].append(item)
        most = max(map(len, owned))
        table = [items + [len(item_row)] * (most - len(items)) for items in owned]
        return torch.tensor(table, device=self.batch.item_row.device)


@dataclass(frozen=True)
class PackedTargets(Regroup):
    """Assigns the target tokens to their rows, for modules that see them one after the other, as one item."""

    def outer(self, left: Tensor, right: Tensor, where: str) -> Outer:
        """The outer products of two tensors `[1, targets, features]`, whose left factors stay as they are."""
        counts = self.batch.target_counts.to(right.device)
        token = torch.arange(int(counts.max()), device=right.device)
        real = token < counts[:, None]
        slot = (counts.cumsum(0) - counts)[:, None] + torch.minimum(token, counts[:, None] - 1)
        return Packed(left[0], slot, real, right[0][slot] * real[..., None])

    def shared(self, output: Tensor) -> bool:
        """Never."""
        return False
