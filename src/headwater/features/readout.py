"""Hidden state, residual and loss of each token, from a forward pass and the readout alone.

RISE (Ran et al., arXiv 2604.16197): the gradient of a token's loss by the head's weight is the outer product of the
residual r and the hidden state h, so no backward pass is needed. Logits exist for one chunk of tokens at a time, so
peak memory does not grow with batch × vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.errors import NumericError
from headwater.data.batches import TokenBatch
from headwater.features.residuals import Residual, Support
from headwater.models.readout import Readout

CHUNK_BYTES = 24 * 2**20
"""Largest size of one chunk's logits: about what stays in a CPU's outer cache."""


@dataclass(frozen=True)
class ReadoutChunk:
    """Some positions of a batch; `place` indexes the batch flattened to items × tokens."""

    place: Int[Tensor, " chunk"]
    hidden: Float[Tensor, "chunk width"]
    residual: Residual
    losses: Float[Tensor, " chunk"]


def readout_chunks(
    readout: Readout,
    batch: TokenBatch,
    hidden: Float[Tensor, "items tokens width"],
    positions: Bool[Tensor, "items tokens"],
    support: Support,
) -> Iterator[ReadoutChunk]:
    """Hidden state, residual and loss (nats) of the positions that are True, in reading order.

    A chunk's residual is valid until the next chunk is requested.

    Raises:
        NumericError: a logit is not finite; names the row.
    """
    places = positions.flatten().nonzero()[:, 0]
    flat, targets = hidden.flatten(0, 1), batch.targets.flatten()
    width = readout.weight.shape[0] * torch.promote_types(hidden.dtype, torch.float32).itemsize
    for place in places.split(max(16, CHUNK_BYTES // width)):
        h, y = flat[place], targets[place]
        residual, losses = support.read(readout.logits(h), y)
        _require_finite(losses, place, batch)
        yield ReadoutChunk(place, h, residual, losses)


def _require_finite(losses: Tensor, place: Tensor, batch: TokenBatch) -> None:
    bad = place[~losses.isfinite()]
    if len(bad):
        row = batch.rows[int(batch.item_row[int(bad[0]) // batch.input_ids.shape[1]])].row
        remedy = "load the model in float32, or leave the row out"
        raise NumericError("the model's logits are not finite", where=row.where, remedy=remedy)
