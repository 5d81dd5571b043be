"""Forget without training: selective synaptic dampening (Foster et al., arXiv 2308.07707).

    θ_p ← θ_p · min(λ F_R,p / F_F,p, 1)      wherever F_F,p > α F_R,p

F is the diagonal of the Fisher information: the mean of squared per-row gradients. F_F is over the forget rows, F_R
over the retain rows (in the paper: over all training rows). The paper's α depends on model and data. Here α starts at a
million and is halved until the behaviour is gone or the guard rows' loss passes its bound (`strength`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headwater.data.tokens import TokenRow
from headwater.models.losses import all_logits
from headwater.unlearning.sequences import collate_rows, sequence_losses

ALPHAS = tuple(1e6 * 0.5**i for i in range(24))
"""The α to try, from a million down to a tenth."""


def fisher_diagonal(model: Any, rows: Sequence[TokenRow], device: torch.device) -> dict[str, Tensor]:
    """The squared gradient of L̄ for each trainable parameter, averaged over the rows; one backward pass a row."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    total = {name: torch.zeros_like(p) for name, p in named}
    for row in rows:
        batch = collate_rows([row], device)
        logits = all_logits(model, batch["input_ids"])
        _, mean = sequence_losses(logits, batch["targets"], batch["response"])
        gradients = torch.autograd.grad(mean.sum(), [p for _, p in named], allow_unused=True)
        for (name, _), gradient in zip(named, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient**2 / len(rows)
    return total


def dampen(
    model: Any, forget: dict[str, Tensor], retain: dict[str, Tensor], *, alpha: float, strength: float = 1.0
) -> int:
    """Apply the formula in place, with λ = `strength`, and return how many weights changed."""
    changed = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in forget:
                chosen = forget[name] > alpha * retain[name]
                divisor = forget[name].clamp(min=torch.finfo(parameter.dtype).tiny)
                factor = (strength * retain[name] / divisor).clamp(max=1)
                parameter.mul_(torch.where(chosen, factor, 1))
                changed += int(chosen.sum())
    return changed
