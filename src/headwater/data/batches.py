"""Batches of token windows: padded tensors with the shift already applied.

Position t predicts the token at t + 1. Targets are shifted here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from headwater.core.errors import DataError, UsageError
from headwater.data.readings import RowReading
from headwater.data.sums import add_at
from headwater.data.tokens import TokenRow

CONTEXT = 0
"""Size of a window that is as long as the model's context; `Reader.window` puts the number in."""

HALF = -1
"""Overlap of windows that are laid so that each target has at least half a window of text before it."""


@dataclass(frozen=True)
class Window:
    """How a row is read that is longer than what a model reads at once: in several windows.

    With the overlap `HALF`, a row that fits is one window, and so are the targets among the first `size` tokens of a
    longer row. Each further window ends at its last target and reaches back as far as `size` allows; its targets lie
    within half a window, so each has at least the other half before it. Text that no target needs is not read.

    With an overlap of 0 or more, windows of `size` tokens follow each other from the row's start and share that many
    tokens with the one before; without overlap, nothing predicts the first token of a window.

    Either way each target is predicted in one window only, the first that can.

    Attributes:
        size: most tokens of a window; `CONTEXT` for no bound but the model's.
        overlap: `HALF`, or how many tokens two windows share.
        everything: read all tokens, not only those that targets need, for methods that use every position.
    """

    size: int = CONTEXT
    overlap: int = HALF
    everything: bool = False

    def __post_init__(self) -> None:
        bound = self.size if self.size != CONTEXT else self.overlap + 1
        if self.size < 0 or self.size == 1 or not HALF <= self.overlap < bound:
            what = f"windows of {self.size} tokens that share {self.overlap}"
            sizes = "a size of at least 2, or 0 for the model's context"
            remedy = f"{sizes}; an overlap below the size, or -1 for half a window"
            raise UsageError(what, where="window", remedy=remedy)

    def within(self, context: int) -> Window:
        """The same window for a model that reads at most `context` tokens."""
        size = min(self.size or context, context)
        return replace(self, size=size, overlap=min(self.overlap, size - 1))

    def cuts(self, response: Bool[np.ndarray, " tokens"], split: int = 0) -> list[tuple[int, int]]:
        """(start, end) of each window over a row whose targets are True; none lies wholly inside the one before it.

        No window has tokens from both sides of `split` (`TokenRow.split`).
        """
        if split:
            behind = self.cuts(response[split:])
            return self.cuts(response[:split]) + [(start + split, end + split) for start, end in behind]
        tokens = len(response)
        if tokens <= (self.size or tokens):
            return [(0, tokens)]
        if self.overlap == HALF:
            return self._before_targets(np.arange(1, tokens) if self.everything else np.flatnonzero(response))
        starts = range(0, tokens - self.overlap, self.size - self.overlap)
        return [(start, min(start + self.size, tokens)) for start in starts]

    def _before_targets(self, wanted: Int[np.ndarray, " wanted"]) -> list[tuple[int, int]]:
        """The windows in which the tokens `wanted` (ascending) are predicted."""
        step = self.size - self.size // 2
        cuts: list[tuple[int, int]] = []
        at = 0
        while at < len(wanted):
            first = int(wanted[at])
            at = int(np.searchsorted(wanted, self.size if first < self.size else first + step))
            end = int(wanted[at - 1]) + 1
            cuts.append((max(end - self.size, 0), end))
        return cuts

    def reading(self, row: TokenRow) -> RowReading:
        """How a row is read in these windows."""
        cuts = np.array(self.cuts(row.response, row.split), dtype=np.int64)
        counted = np.concatenate([[0], np.cumsum(row.response)])
        first = np.maximum(cuts[:, 0] + 1, np.concatenate([[0], cuts[:-1, 1]]))  # first token a window predicts anew
        targets = counted[cuts[:, 1]] - counted[np.minimum(first, cuts[:, 1])]
        unread = int(counted[-1] - targets.sum()) + row.cut_targets
        begun = (cuts[:, 0] == 0) | (cuts[:, 0] == row.split)
        return RowReading(row.cut, len(cuts) - (row.split > 0), unread, int(targets[~begun].sum()))


@dataclass(frozen=True)
class TokenBatch:
    """Windows of rows, right-padded. A row that fits its window is one item; a longer one may be several.

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
        """The same batch on another device; to an accelerator it is copied while the processor goes on."""
        names = ("input_ids", "attention", "targets", "valid", "response", "item_row", "start")
        return TokenBatch(**{name: copied(getattr(self, name), device) for name in names}, rows=self.rows)

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
    def paired(self) -> bool:
        """Whether one of the rows is a preference pair under the DPO loss."""
        return any(row.contrast is not None for row in self.rows)

    @property
    def side(self) -> Int[Tensor, " items"]:
        """−1 for the windows of a pair's rejected answer, 1 for all others."""
        splits = [row.split or len(row.ids) for row in self.rows]
        split = torch.tensor(splits, device=self.start.device)[self.item_row]
        return torch.where(self.start < split, 1, -1)

    @property
    def target_counts(self) -> Int[Tensor, " rows"]:
        """How many target tokens each row has."""
        return self.sum_windows(self.response.sum(1))


def plan_batches(
    rows: Sequence[TokenRow], window: Window, *, tokens_per_batch: int = 8192, turning: int | None = None
) -> list[TokenBatch]:
    """Batches of all rows' windows, longest first, of at most `tokens_per_batch` positions, padding included.

    All windows of a row are in one batch. A row that exceeds the budget by itself is a batch of its own. Rows of equal
    length keep their order, and a batch's tensors depend on its rows alone. No batch has rows both longer and not
    longer than `turning` tokens. The caller puts results back in order by `row.ordinal`.

    Raises:
        DataError: a row's windows predict none of its targets (each is the first token of a window without overlap).
        UsageError: a budget below 1.
    """
    if tokens_per_batch < 1:
        raise UsageError(f"{tokens_per_batch} tokens a batch", where="tokens_per_batch", remedy="at least 1")
    cuts = [np.array(window.cuts(row.response, row.split), dtype=np.int64) for row in rows]
    widths = np.array([(cut[:, 1] - cut[:, 0]).max() for cut in cuts], dtype=np.int64)
    order = np.argsort(-widths, kind="stable")
    items = np.array([len(cut) for cut in cuts], dtype=np.int64)
    return [
        _assemble(tuple(rows[i] for i in group), [cuts[i] for i in group])
        for part in _parts(order, widths, turning)
        for group in _groups(part, widths, items, tokens_per_batch)
    ]


def _parts(order: NDArray[np.int64], widths: NDArray[np.int64], turning: int | None) -> tuple[NDArray[np.int64], ...]:
    """`order`, cut between the rows that are longer than `turning` and the others."""
    return (order,) if turning is None else (order[widths[order] > turning], order[widths[order] <= turning])


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
    seen[np.diff(item_row, prepend=-1) != 0] = 0
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


def copied(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device. From the CPU to CUDA it goes through pinned memory, and nobody waits for the copy.

    What uses it on the device runs behind the copy, in the order of the device's stream.
    """
    ahead = torch.device(device).type == "cuda" and tensor.device.type == "cpu" and torch.cuda.is_available()
    return tensor.pin_memory().to(device, non_blocking=True) if ahead else tensor.to(device)
