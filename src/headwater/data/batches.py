"""Batches of token windows: padded tensors with the shift already applied.

Position t predicts the token at t + 1. Targets are shifted here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from headwater.core.errors import DataError, UsageError
from headwater.data.sums import add_at
from headwater.data.tokens import TokenRow


@dataclass(frozen=True)
class Window:
    """How a long row is cut: into windows of at most `size` tokens, each sharing `overlap` tokens with the one before.

    The first token of a window is predicted only in the window before it. Without overlap, nothing predicts it.
    """

    size: int
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.size < 2 or not 0 <= self.overlap < self.size:
            what = f"windows of {self.size} tokens that share {self.overlap}"
            remedy = "a size of at least 2, and an overlap from 0 to below the size"
            raise UsageError(what, where="window", remedy=remedy)

    def cuts(self, tokens: int) -> list[tuple[int, int]]:
        """(start, end) of each window over `tokens` tokens; none lies wholly inside the one before it."""
        step = self.size - self.overlap
        cuts = [(0, min(self.size, tokens))]
        while cuts[-1][1] < tokens:
            start = cuts[-1][0] + step
            cuts.append((start, min(start + self.size, tokens)))
        return cuts


@dataclass(frozen=True)
class TokenBatch:
    """Windows of rows, right-padded. A row that fits its window is one item; a longer one is several.

    Attributes:
        input_ids: int64 `[items, tokens]`.
        attention: bool `[items, tokens]`, True on real tokens.
        targets: int64 `[items, tokens]`; `targets[i, t] = input_ids[i, t + 1]`, 0 if there is no next token.
        valid: bool `[items, tokens]`, True where position t has a next token inside the window.
        response: bool `[items, tokens]`, True where position t predicts a target token (a subset of `valid`). Every
            target counts once: where windows overlap, it is True in the first of them only.
        item_row: int64 `[items]`, the index in `rows` of the row that the item belongs to.
        start: int64 `[items]`, the index in the row's tokens at which the window starts.
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

    @property
    def one_window_each(self) -> bool:
        """Whether item i is row i. (Items are in the order of their rows, and every row has one at least.)"""
        return len(self.item_row) == len(self.rows)

    def sum_windows(self, values: Shaped[Tensor, "items ..."]) -> Shaped[Tensor, "rows ..."]:
        """The windows' values summed over each row; `values` itself if every row has one window. Differentiable."""
        if self.one_window_each:
            return values
        total = torch.zeros(len(self.rows), *values.shape[1:], dtype=values.dtype, device=values.device)
        return add_at(total, self.item_row.to(values.device), values)

    @property
    def target_counts(self) -> Int[Tensor, " rows"]:
        """How many target tokens each row has."""
        return self.sum_windows(self.response.sum(1))


def plan_batches(rows: Sequence[TokenRow], window: Window, *, tokens_per_batch: int = 8192) -> list[TokenBatch]:
    """Batches of all rows' windows, longest first, of at most `tokens_per_batch` positions, padding included.

    All windows of a row are in one batch. A row that exceeds the budget by itself is a batch of its own. Rows of equal
    length keep their order, and a batch's tensors depend on its rows alone. The caller puts results back in order by
    `row.ordinal`.

    Raises:
        DataError: a row's windows predict none of its targets (each is the first token of a window without overlap).
        UsageError: a budget below 1.
    """
    if tokens_per_batch < 1:
        raise UsageError(f"{tokens_per_batch} tokens a batch", where="tokens_per_batch", remedy="at least 1")
    cuts = [np.array(window.cuts(len(row.ids)), dtype=np.int64) for row in rows]
    widths = np.array([min(window.size, len(row.ids)) for row in rows], dtype=np.int64)
    order = np.argsort(-widths, kind="stable")
    items = np.array([len(cut) for cut in cuts], dtype=np.int64)
    return [
        _assemble(tuple(rows[i] for i in group), [cuts[i] for i in group])
        for group in _groups(order, widths, items, tokens_per_batch)
    ]


def _groups(
    order: NDArray[np.int64], widths: NDArray[np.int64], items: NDArray[np.int64], budget: int
) -> Iterator[list[int]]:
    """Consecutive parts of `order` whose items, times the width of the first and widest row, stay within the budget."""
    group: list[int] = []
    held = 0
    for i in order.tolist():
        if group and (held + items[i]) * widths[group[0]] > budget:
            yield group
            group, held = [], 0
        group.append(i)
        held += items[i]
    if group:
        yield group


def _assemble(rows: tuple[TokenRow, ...], cuts: list[NDArray[np.int64]]) -> TokenBatch:
    """The tensors of one batch, gathered from the rows' tokens in one long array."""
    lengths = np.array([len(row.ids) for row in rows])
    item_row = np.repeat(np.arange(len(rows)), [len(cut) for cut in cuts])
    starts, ends = np.concatenate(cuts).T
    seen = np.concatenate([[0], ends[:-1]])  # how far the row's previous window predicted; 0 for its first
    seen[starts == 0] = 0
    position = starts[:, None] + np.arange((ends - starts).max())
    attention = position < ends[:, None]
    valid = position + 1 < ends[:, None]
    base = (np.cumsum(lengths) - lengths)[item_row][:, None]
    ids = np.concatenate([row.ids for row in rows])
    targets = np.concatenate([row.response for row in rows])
    here, following = np.where(attention, base + position, 0), np.where(valid, base + position + 1, 0)
    response = valid & targets[following] & (position + 1 >= seen[:, None])
    _require_counted(rows, np.bincount(item_row[response.any(axis=1)], minlength=len(rows)))
    return TokenBatch(
        input_ids=torch.from_numpy(np.where(attention, ids[here], 0)),
        attention=torch.from_numpy(attention),
        targets=torch.from_numpy(np.where(valid, ids[following], 0)),
        valid=torch.from_numpy(valid),
        response=torch.from_numpy(response),
        item_row=torch.from_numpy(item_row),
        start=torch.from_numpy(starts.copy()),
        rows=rows,
    )


def _require_counted(rows: Sequence[TokenRow], counted: NDArray[np.int64]) -> None:
    for i in np.flatnonzero(counted == 0).tolist():
        what = "every target stands first in a window, where nothing predicts it"
        raise DataError(what, where=rows[i].row.where, remedy="let windows overlap")
