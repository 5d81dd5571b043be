"""Losses of rows from forward passes alone: no gradient is made, and logits exist for target positions only."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import NumericError
from headwater.data.batches import TokenBatch
from headwater.models.load import LoadedModel
from headwater.models.losses import target_logits, token_losses


@torch.no_grad()
def mean_losses(loaded: LoadedModel, batches: Iterable[TokenBatch], count: int) -> Float[Tensor, " rows"]:
    """Each row's loss in nats, mean over its target tokens; float32 on the CPU, placed by the rows' ordinals.

    Args:
        loaded: the model.
        batches: rows numbered from 0 to `count` - 1 by their ordinals, each in one batch.
        count: how many there are.

    Raises:
        NumericError: a loss is not finite; names the row.
    """
    found = torch.full((count,), torch.nan)
    for batch in batches:
        moved = batch.to(loaded.device)
        logits, place = target_logits(loaded.model, moved.input_ids, moved.response)
        kept = moved.response.gather(1, place)
        losses = token_losses(logits[kept], moved.targets.gather(1, place)[kept])
        row = moved.item_row[:, None].expand_as(place)[kept]
        total = torch.zeros(len(batch.rows), dtype=losses.dtype, device=losses.device).index_add_(0, row, losses)
        means = (total / torch.bincount(row, minlength=len(batch.rows))).float().cpu()
        bad = (~means.isfinite()).nonzero()
        if len(bad):
            where = batch.rows[int(bad[0, 0])].row.where
            raise NumericError("the row's loss is not finite", where=where, remedy="load the model in float32")
        found[[row.row.ordinal for row in batch.rows]] = means
    return found
