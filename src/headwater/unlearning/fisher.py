"""Forget without training: selective synaptic dampening (Foster et al., arXiv 2308.07707).

    θ_p ← θ_p · min(λ F_R,p / F_F,p, 1)      wherever F_F,p > α F_R,p

F is the diagonal of the Fisher information: the mean of squared per-row gradients. F_F is over the forget rows, F_R
over the retain rows (in the paper: over all training rows). The paper's α depends on model and data. Here α starts at a
million and is halved until the forget rows' loss reaches its target or the guard rows' loss passes its bound; the last
α within the bound is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater.data.tokens import TokenRow
from headwater.models.losses import all_logits
from headwater.unlearning.adapter import restore_state, trainable_state
from headwater.unlearning.sequences import collate_rows, measure_losses, sequence_losses
from headwater.unlearning.watch import LossLimits, Outcome, Reading

ALPHAS = tuple(1e6 * 0.5**i for i in range(24))
"""The α to try, from a million down to a tenth."""


@dataclass(frozen=True)
class Dampened:
    """Result of the search: α (None: no α kept the bound), how many weights changed, why it ended, the losses read."""

    alpha: float | None
    changed: int
    outcome: Outcome
    readings: tuple[Reading, ...]


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


def search_dampening(
    model: Any,
    forget: Sequence[TokenRow],
    retain: Sequence[TokenRow],
    guard: Sequence[TokenRow],
    *,
    limits: LossLimits,
    device: torch.device,
) -> Dampened:
    """Dampen `model` in place with the largest α that reaches the target, else the smallest α within the bound."""
    start = trainable_state(model)
    of_forget, of_retain = fisher_diagonal(model, forget, device), fisher_diagonal(model, retain, device)
    readings: list[Reading] = []
    best: float | None = None
    outcome: Outcome = "steps"
    for number, alpha in enumerate(ALPHAS):
        restore_state(model, start)
        dampen(model, of_forget, of_retain, alpha=alpha)
        kept = float(measure_losses(model, guard, device)[1].mean()) if guard else 0.0
        readings.append(Reading(number, float(measure_losses(model, forget, device)[1].mean()), kept))
        if kept > limits.bound:
            outcome = "guarded"
            break
        best = alpha
        if readings[-1].forget >= limits.target:
            outcome = "forgotten"
            break
    restore_state(model, start)
    changed = 0 if best is None else dampen(model, of_forget, of_retain, alpha=best)
    return Dampened(best, changed, outcome, tuple(readings))
