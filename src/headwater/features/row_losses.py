"""Losses of rows, nats: what a table of token losses comes to, and forward passes alone, where no gradient is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import NumericError
from headwater.data.batches import TokenBatch
from headwater.models.load import LoadedModel
from headwater.models.losses import loss_table, target_logits


def row_losses(table: Float[Tensor, "items tokens"], batch: TokenBatch) -> Float[Tensor, " rows"]:
    """Mean over each row's target tokens of the batch's token losses; what stands elsewhere in the table is ignored."""
    total = batch.sum_windows(table.masked_fill(~batch.response.to(table.device), 0).sum(1))
    return total / batch.target_counts.to(total)


@torch.no_grad()
def measure_batch(model: Any, batch: TokenBatch) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Each row's loss, summed over its target tokens and as their mean; logits are made for these positions only."""
    logits, place = target_logits(model, batch.input_ids, batch.response)
    kept = batch.response.gather(1, place)
    table = loss_table(logits[kept], batch.targets.gather(1, place), kept)
    total = batch.sum_windows(table.sum(1))
    return total, total / batch.target_counts.to(total)


def mean_losses(loaded: LoadedModel, batches: Iterable[TokenBatch], count: int) -> Float[Tensor, " rows"]:
    """Each row's loss, mean over its target tokens; float32 on the CPU, placed by the rows' ordinals.

    Args:
        loaded: the model.
        batches: rows numbered from 0 to `count` - 1 by their ordinals, each in one batch.
        count: how many there are.

    Raises:
        NumericError: a loss is not finite; names the row.
    """
    found = torch.full((count,), torch.nan)
    for batch in batches:
        means = measure_batch(loaded.model, batch.to(loaded.device))[1].float().cpu()
        bad = (~means.isfinite()).nonzero()
        if len(bad):
            where = batch.rows[int(bad[0, 0])].row.where
            raise NumericError("the row's loss is not finite", where=where, remedy="load the model in float32")
        found[[row.row.ordinal for row in batch.rows]] = means
    return found
