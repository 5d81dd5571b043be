"""Gradients of parameters that no single module explains: autograd runs the whole model, once for each row.

Some adapters share one parameter among many layers, use it outside every module's call, or put it before the prompt.
What such a parameter does to a row cannot be read at one module. There are few such numbers, so autograd is asked for
the gradient of every row by itself: as exact as the loss, for about the time of one more pass over the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.data.batches import TokenBatch
from headwater.models.heads import head_in_parts, read_targets
from headwater.models.losses import losses_and_gradient, target_logits
from headwater.sketch.blocks import Dense

MOST = 2**22
"""Parameters with more numbers than this are not read so: the gradient of each row is held whole, 16 MiB of it."""


def readable_apart(parameter: nn.Parameter) -> bool:
    """Whether a parameter is small enough to be held once for each row, in memory, and not stored as codes."""
    return parameter.is_floating_point() and not parameter.is_meta and parameter.numel() <= MOST


def gradients_apart(
    model: Any, names: Sequence[str], batch: TokenBatch, token_weights: Float[Tensor, "items tokens"]
) -> dict[str, Dense]:
    """The gradient of every row's loss by each of the parameters called `names`, flat.

    Args:
        model: the model; its parameters stay frozen.
        names: parameters that `readable_apart` accepts.
        batch: the rows, on the model's device.
        token_weights: factor on the loss of each target token.
    """
    own = dict(model.named_parameters())
    leaves = [own[name] for name in names]
    frozen = [leaf for leaf in leaves if not leaf.requires_grad]
    found: list[list[Tensor]] = [[] for _ in names]
    try:
        for leaf in frozen:
            leaf.requires_grad_(True)
        for row in range(len(batch.rows)):
            for values, leaf, gradient in zip(
                found, leaves, _of_row(model, leaves, batch, token_weights, row), strict=True
            ):
                values.append((torch.zeros_like(leaf) if gradient is None else gradient).flatten())
    finally:
        for leaf in frozen:
            leaf.requires_grad_(False)
    return {name: Dense(torch.stack(values)) for name, values in zip(names, found, strict=True)}


def _of_row(
    model: Any, leaves: Sequence[nn.Parameter], batch: TokenBatch, token_weights: Tensor, row: int
) -> tuple[Tensor | None, ...]:
    """The gradients of one row; its items are cut after their last target, since no later token changes its loss."""
    items = (batch.item_row == row).nonzero()[:, 0]
    width = int(batch.response[items].any(0).nonzero().max()) + 1
    response, targets, weights = (t[items, :width] for t in (batch.response, batch.targets, token_weights))
    head = head_in_parts(model, response)
    with torch.enable_grad():
        read = read_targets(model, batch.input_ids[items, :width], response, head)
        read.weigh(targets.gather(1, read.place), weights.gather(1, read.place))
        read.finish()
    found = tuple(leaf.grad for leaf in leaves)
    for leaf in leaves:
        leaf.grad = None
    return found


def shares_of_mass(model: Any, names: Sequence[str], batch: TokenBatch) -> dict[str, float]:
    """Each parameter's share of the squared gradient of the batch's rows, whose losses count alike.

    One parameter's gradient is held at a time.
    """
    own = dict(model.named_parameters())
    squared: dict[str, float] = {}
    handles, held = [], {name: own[name].requires_grad for name in names}

    def arrive(name: str, parameter: nn.Parameter) -> None:
        if parameter.grad is not None:
            squared[name] = float(parameter.grad.double().square().sum())
        parameter.grad = None

    weights = batch.response / batch.target_counts[batch.item_row][:, None]
    try:
        for name in names:
            if own[name].is_floating_point() and not own[name].is_meta:
                own[name].requires_grad_(True)
                handles.append(own[name].register_post_accumulate_grad_hook(functools.partial(arrive, name)))
        with torch.enable_grad():
            logits, place = target_logits(model, batch.input_ids, batch.response)
            of_loss = (table.gather(1, place).to(logits.device).flatten() for table in (batch.targets, weights))
            logits.backward(losses_and_gradient(logits.detach().flatten(0, 1), *of_loss)[1].view_as(logits))
    finally:
        for handle in handles:
            handle.remove()
        for name, required in held.items():
            own[name].requires_grad_(required)
    total = sum(squared.values()) or 1.0
    return {name: squared.get(name, 0.0) / total for name in names}
