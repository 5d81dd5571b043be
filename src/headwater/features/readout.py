"""What the readout layer tells of each token, from a forward pass alone: hidden state, residual, loss.

RISE (Ran et al., arXiv 2604.16197): the gradient of a token's loss by the head's weight is the outer product of the
residual r and the hidden state h, so neither a backward pass nor the layers below are needed. Logits exist for one
chunk of tokens at a time: peak memory does not grow with batch × vocabulary.
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
"""How large one chunk's logits may be: about what stays in a processor's outer cache."""


@dataclass(frozen=True)
class ReadoutChunk:
    """Some positions of a batch, at `place` in the batch flattened to items × tokens."""

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

    A chunk's residual is valid until the next chunk is asked for.

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
    finite = losses.isfinite()
    if not bool(finite.all()):
        item = int(place[int((~finite).nonzero()[0, 0])]) // batch.input_ids.shape[1]
        row = batch.rows[int(batch.item_row[item])].row
        raise NumericError(
            "the model's logits are not finite",
            where=f"row '{row.id}'" + (f" ({row.place})" if row.place else ""),
            remedy="load the model in float32 or leave the row out",
        )
