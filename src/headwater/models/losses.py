"""The loss: next-token cross-entropy, in float32 at least. Targets are already shifted (`headwater.data.batches`)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SLICE_BYTES = {"cpu": 2**20, "cuda": 2**28}
"""Bytes of the logits' gradient made at a time: on a CPU, what stays in its nearest large cache."""


def all_logits(model: Any, input_ids: Int[Tensor, "items tokens"]) -> Float[Tensor, "items places vocab"]:
    """The model's logits of rows padded on the right.

    No real token of such a row sees padding, so no attention mask is passed; one would rule out fast attention kernels.
    An adapter may put tokens of its own before the row's; their logits, which come first, are left out.
    """
    logits: Tensor = model(input_ids=input_ids, use_cache=False).logits
    tokens = input_ids.shape[1]
    # A slice of everything is not free: its derivative writes zeros as large as the logits and copies into them.
    return logits[:, -tokens:] if logits.shape[1] > tokens else logits


def target_logits(
    model: Any, input_ids: Int[Tensor, "items tokens"], response: Bool[Tensor, "items tokens"]
) -> tuple[Float[Tensor, "items most vocab"], Int[Tensor, "items most"]]:
    """The model's logits where `response` is True, and their positions; differentiable.

    `most` is the largest number of such positions in an item. Items with fewer are filled up with other positions, none
    of them twice. If the model has an output embedding, it runs at these positions only: for long prompts and large
    vocabularies, it is most of the cost.
    """
    place = target_places(response)
    most = place.shape[1]
    if most == response.shape[1]:
        return all_logits(model, input_ids), place

    def narrow(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (_at(args[0], place), *args[1:]) if args and args[0].shape[:2] == response.shape else None

    find_head = getattr(model, "get_output_embeddings", None)
    head = None if find_head is None else find_head()
    handle = None if head is None else head.register_forward_pre_hook(narrow)
    try:
        logits = all_logits(model, input_ids)
    finally:
        if handle is not None:
            handle.remove()
    return (logits if logits.shape[1] == most else _at(logits, place)), place


def target_places(response: Bool[Tensor, "items tokens"]) -> Int[Tensor, "items most"]:
    """The positions where `response` is True, in order; items with fewer are filled up with others."""
    most, tokens = int(response.sum(1).max()), response.shape[1]
    if most == tokens:
        return torch.arange(tokens, device=response.device).expand_as(response)
    return torch.argsort(~response, dim=1, stable=True)[:, :most]


def _at(values: Float[Tensor, "items tokens size"], place: Int[Tensor, "items most"]) -> Tensor:
    index = place.to(values.device)[..., None].expand(-1, -1, values.shape[2])
    return values.gather(1, index)


def token_losses(logits: Float[Tensor, "tokens vocab"], targets: Int[Tensor, " tokens"]) -> Float[Tensor, " tokens"]:
    """Cross-entropy of each position, −log softmax(logits)[target], in nats; at least float32.

    Position t of `logits` predicts `targets[t]`, which is already shifted (`TokenBatch.targets`). Differentiable.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(wide, targets, reduction="none")


def loss_table(
    logits: Float[Tensor, "places vocab"], targets: Int[Tensor, "items tokens"], where: Bool[Tensor, "items tokens"]
) -> Float[Tensor, "items tokens"]:
    """`token_losses` as a table: each loss at its position where `where` is True, 0 elsewhere. Differentiable.

    Sums over the table are the same on every run. Adding losses to their rows one by one would not be on a GPU.
    """
    losses = token_losses(logits, targets[where])
    return losses.new_zeros(where.shape).masked_scatter(where, losses)


def may_overwrite(logits: Tensor) -> bool:
    """Whether these logits can be overwritten before their backward pass: they are a matrix product and nothing else.

    A soft-cap, for example, computes its derivative from its output. A sum with a bias is a view to autograd, which
    would build the view's node anew after a change, without the hooks on it.
    """
    node = logits.grad_fn
    while node is not None and node.name() == "UnsafeViewBackward0":
        node = node.next_functions[0][0]
    return node is not None and node.name() == "MmBackward0"


@torch.no_grad()
def losses_and_gradient(
    logits: Float[Tensor, "tokens vocab"],
    targets: Int[Tensor, " tokens"],
    weights: Float[Tensor, " tokens"],
    *,
    overwrite: bool = False,
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens vocab"]]:
    """`token_losses`, and the gradient of their weighted sum with respect to the logits, in the logits' dtype.

    The gradient is weight · (softmax(logits) − onehot(target)), computed in float32 at least and for a few positions at
    a time: several times faster than autograd, and no other tensor is as large as the logits. With `overwrite`, the
    gradient takes the logits' place, so that no second tensor of their size is needed (`may_overwrite`).
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    weights = weights.to(device=logits.device, dtype=dtype)
    losses, gradient = weights.new_empty(len(logits)), logits if overwrite else torch.empty_like(logits)
    step = max(1, SLICE_BYTES.get(logits.device.type, SLICE_BYTES["cuda"]) // (logits.shape[1] * dtype.itemsize))
    spare = weights.new_empty(0 if dtype == logits.dtype else min(step, len(logits)), logits.shape[1])
    for start in range(0, len(logits), step):
        some = slice(start, start + step)
        target, read = targets[some, None], logits[some]
        made = gradient[some] if dtype == logits.dtype else spare[: len(read)]
        largest = read.amax(1, keepdim=True).to(dtype)
        torch.sub(read, largest, out=made)
        losses[some] = -made.gather(1, target)[:, 0]
        total = made.exp_().sum(1, keepdim=True)
        losses[some] += total[:, 0].log()
        made.mul_(weights[some, None] / total)
        made.scatter_add_(1, target, -weights[some, None])
        if dtype != logits.dtype:
            gradient[some] = made
    return losses, gradient
