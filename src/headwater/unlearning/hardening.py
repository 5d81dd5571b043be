"""Training so that forgetting survives later changes of the weights (`--harden`).

*sharp*: each gradient is taken at θ + ρ g/|g|, where the loss is about the greatest nearby, instead of at θ; ρ is a
share of |θ|, and g the gradient at θ. What is reached so is flat, and a few steps of relearning leave it more slowly.
(SAM: Foret et al., arXiv 2010.01412; for unlearning Fan et al., 2502.05374.)  A step costs two.

*int4* and *int8*: each gradient is taken at the rounded weights and moves the weights themselves (straight through), so
that what is reached holds after rounding, too.  The merged weights are rounded if an adapter is trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from headwater.core.errors import ModelError, unknown_name
from headwater.models.rounding import round_weights, rounded_layers

SHARP = "sharp"
BITS = {"int8": 8, "int4": 4}
HARDENINGS = (SHARP, *BITS)
SHARE = 0.05
"""ρ as a share of the norm of the trained weights."""

Result = TypeVar("Result")


def check_hardening(name: str | None) -> None:
    """Raise `UsageError` for an unknown way to harden a training; None is no hardening."""
    if name is not None and name not in HARDENINGS:
        raise unknown_name("hardening", name, HARDENINGS, where="--harden")


def hardened(model: Any, name: str | None, gradient: Callable[[], Result]) -> Result:
    """Call `gradient`, which leaves a gradient in the trained weights, as the hardening wants it.

    Args:
        model: the model that trains; its weights are the same afterwards.
        name: one of `HARDENINGS`; None calls `gradient` alone.
        gradient: computes the loss, adds its gradient to that of the weights, and returns the loss.
    """
    if name is None:
        return gradient()
    if name == SHARP:
        gradient()
        with _worst_nearby(model):
            return gradient()
    with rounded_in_place(model, BITS[name]):
        return gradient()


@contextlib.contextmanager
def _worst_nearby(model: Any) -> Iterator[None]:
    """Move the trained weights by ρ along their gradient inside the block, and clear the gradient first."""
    trained = [p for p in model.parameters() if p.requires_grad and p.grad is not None]
    norm = torch.stack([p.grad.float().norm() for p in trained]).norm()
    size = torch.stack([p.detach().float().norm() for p in trained]).norm()
    before = [p.detach().clone() for p in trained]
    with torch.no_grad():
        for p in trained:
            p.add_(p.grad * (SHARE * size / norm.clamp(min=1e-12)))
            p.grad = None
    yield
    with torch.no_grad():
        for p, old in zip(trained, before, strict=True):
            p.copy_(old)


@contextlib.contextmanager
def rounded_in_place(model: Any, bits: int) -> Iterator[None]:
    """Round the weights of the linear layers inside the block; with an adapter, so that base and adapter together are.

    Raises:
        ModelError: the weights are quantised already.
    """
    if getattr(model, "is_quantized", False):
        raise ModelError("the weights are quantised already", where="--harden", remedy="load without --quantization")
    before: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for weight, axis, change in rounded_layers(model):
            before.append((weight, weight.detach().clone()))
            weight.copy_(round_weights(weight + change, bits, axis=axis) - change)
    yield
    with torch.no_grad():
        for weight, old in before:
            weight.copy_(old)
