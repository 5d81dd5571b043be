"""Rows' losses in nats, from a table of token losses or a forward pass; and the check that results are finite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headwater.core.errors import NumericError
from headwater.data.batches import TokenBatch
from headwater.models.load import LoadedModel
from headwater.models.losses import loss_table, target_logits


def row_losses(table: Float[Tensor, "items tokens"], batch: TokenBatch) -> Float[Tensor, " rows"]:
    """Mean over each row's target tokens of the batch's token losses; other entries of the table are ignored."""
    total = batch.sum_windows(table.masked_fill(~batch.response.to(table.device), 0).sum(1))
    return total / batch.target_counts.to(total)


@torch.no_grad()
def measure_batch(model: Any, batch: TokenBatch) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Each row's loss, as the sum and as the mean over its target tokens; logits are made for these only."""
    logits, place = target_logits(model, batch.input_ids, batch.response)
    kept = batch.response.gather(1, place)
    table = loss_table(logits[kept], batch.targets.gather(1, place), kept)
    total = batch.sum_windows(table.sum(1))
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
