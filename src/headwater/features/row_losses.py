"""Rows' losses in nats, from a table of token losses or a forward pass; and the check that results are finite.

A row's loss is the mean over its target tokens, or the DPO loss of a preference pair (`headwater.data.contrasts`). A
pair's gradient is that of its token losses with the weights ± β σ(−m), where m = β (Δ(chosen) − Δ(rejected)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headwater.core.errors import NumericError
from headwater.data.batches import TokenBatch
from headwater.models.heads import window_losses
from headwater.models.load import LoadedModel


def row_losses(table: Float[Tensor, "items tokens"], batch: TokenBatch) -> Float[Tensor, " rows"]:
    """Each row's loss from the batch's token losses; entries of the table that belong to no target are ignored."""
    total = batch.sum_windows(table.masked_fill(~batch.response.to(table.device), 0).sum(1))
    means = total / batch.target_counts.to(total)
    if not batch.paired:
        return means
    margin = _margins(table, batch)
    return torch.where(margin.isnan(), means, torch.nn.functional.softplus(-margin))


def token_weights(
    batch: TokenBatch, table: Float[Tensor, "items tokens"] | None = None
) -> Float[Tensor, "items tokens"]:
    """The derivative of each row's loss by the loss of each of its target tokens; 0 elsewhere; float64.

    That is 1 / (the row's target tokens), but for preference pairs, which need the token losses, `table`.
    """
    scale = batch.target_counts.double().reciprocal()[batch.item_row]
    if batch.paired and table is not None:
        margin = _margins(table.detach(), batch)[batch.item_row].double()
        beta = _of_pairs(batch, "beta", like=margin)[batch.item_row]
        scale = torch.where(margin.isnan(), scale.to(margin), batch.side.to(margin) * beta * torch.sigmoid(-margin))
    return scale[:, None] * batch.response.to(scale.device)


def _margins(table: Float[Tensor, "items tokens"], batch: TokenBatch) -> Float[Tensor, " rows"]:
    """m of each pair; NaN for rows that are none."""
    losses = table.masked_fill(~batch.response.to(table.device), 0).sum(1)
    ratio = -batch.sum_windows(losses * batch.side.to(losses))
    return _of_pairs(batch, "beta", like=ratio) * (ratio - _of_pairs(batch, "reference", like=ratio))


def _of_pairs(batch: TokenBatch, name: str, *, like: Tensor) -> Float[Tensor, " rows"]:
    found = [math.nan if row.contrast is None else getattr(row.contrast, name) for row in batch.rows]
    return torch.tensor(found, dtype=like.dtype, device=like.device)


@torch.no_grad()
def measure_batch(model: Any, batch: TokenBatch) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Each row's loss, as the sum and as the mean over its target tokens; logits are made for these only."""
    total = batch.sum_windows(window_losses(model, batch))
    return total, total / batch.target_counts.to(total)


def mean_losses(loaded: LoadedModel, batches: Iterable[TokenBatch], count: int) -> Float[Tensor, " rows"]:
    """Each row's loss, mean over its target tokens; float32 on the CPU, indexed by the rows' ordinals.

    Args:
        loaded: the model.
        batches: rows numbered from 0 to `count` - 1 by their ordinals, each in one batch.
        count: how many rows there are.

    Raises:
        NumericError: a loss is not finite; names the row.
    """
    found = torch.full((count,), torch.nan)
    for batch in batches:
        means = measure_batch(loaded.model, batch.to(loaded.device))[1].float().cpu()
        require_finite(means.isfinite(), batch, "the row's loss")
        found[[row.row.ordinal for row in batch.rows]] = means
    return found


def require_finite(finite: Bool[Tensor, " rows"], batch: TokenBatch, what: str) -> None:
    """Raise `NumericError` naming the first row of the batch for which `finite` is False."""
    if not bool(finite.all()):
        where = batch.rows[int((~finite).nonzero()[0, 0])].row.where
        remedy = "load the model in float32, or leave the row out"
        raise NumericError(f"{what} is not finite", where=where, remedy=remedy)
