"""The loss: next-token cross-entropy in float32. Targets come already shifted, from `data`."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def token_losses(logits: Float[Tensor, "tokens vocab"], targets: Int[Tensor, " tokens"]) -> Float[Tensor, " tokens"]:
    """Cross-entropy of each position, −log softmax(logits)[target], in nats; at least float32.

    Position t of `logits` predicts `targets[t]`: the shift has been made (`TokenBatch.targets`). Differentiable.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(wide, targets, reduction="none")
