"""Batches of token windows: padded tensors with the shift already applied."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headwater.data.tokens import TokenRow


@dataclass(frozen=True)
class TokenBatch:
    """Windows of rows, right-padded. A row that fits its window is one item; a longer one is several.

    Attributes:
        input_ids: int64 `[items, tokens]`.
        attention: bool `[items, tokens]`, True on real tokens.
        targets: int64 `[items, tokens]`; `targets[i, t] = input_ids[i, t + 1]`, 0 where there is no next token.
        valid: bool `[items, tokens]`; position t has a next token inside the window.
        response: bool `[items, tokens]`; position t predicts a target token (a subset of `valid`), counted once: where
            windows overlap, only the first window's position is True.
        item_row: int64 `[items]`, which entry of `rows` an item belongs to.
        start: int64 `[items]`, index in the row's tokens at which the window starts.
        rows: the rows, in the order of the batch's results.
    """

    input_ids: Int[Tensor, "items tokens"]
    attention: Bool[Tensor, "items tokens"]
    targets: Int[Tensor, "items tokens"]
    valid: Bool[Tensor, "items tokens"]
    response: Bool[Tensor, "items tokens"]
    item_row: Int[Tensor, " items"]
    start: Int[Tensor, " items"]
    rows: tuple[TokenRow, ...]

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on another device."""
        move = {
            name: getattr(self, name).to(device)
            for name in ("input_ids", "attention", "targets", "valid", "response", "item_row", "start")
        }
        return TokenBatch(**move, rows=self.rows)
