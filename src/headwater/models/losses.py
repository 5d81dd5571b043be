"""The loss: next-token cross-entropy in float32. Targets come already shifted, from `data`."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def all_logits(model: Any, input_ids: Int[Tensor, "items tokens"]) -> Float[Tensor, "items tokens vocab"]:
    """The model's logits of rows padded on the right.

    No real token of such a row sees padding, so there is no attention mask: it would cost the fast attention kernels.
    """
    logits: Tensor = model(input_ids=input_ids, use_cache=False).logits
    return logits


def token_losses(logits: Float[Tensor, "tokens vocab"], targets: Int[Tensor, " tokens"]) -> Float[Tensor, " tokens"]:
    """Cross-entropy of each position, −log softmax(logits)[target], in nats; at least float32.

    Position t of `logits` predicts `targets[t]`: the shift has been made (`TokenBatch.targets`). Differentiable.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(wide, targets, reduction="none")
