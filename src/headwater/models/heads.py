"""What a model says at the target positions, read in parts, so that the logits of long rows are never whole in memory.

    h = the head's input ─▶ for one part of the positions after the other: z = map(head(h)) ─▶ losses, ∂L/∂h

Up to `LOGITS_BYTES` of logits are read at once, as the model itself makes them. For more, the model runs up to its
head, and head and losses are computed for some positions at a time. That takes a head whose output becomes logits by a
factor or a soft-cap, which `headwater.models.logit_map` finds out and one run of the whole model confirms; the logits
of every other model are read whole.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.data.batches import TokenBatch
from headwater.models.logit_map import find_map
from headwater.models.losses import (
    all_logits,
    losses_and_gradient,
    may_overwrite,
    target_logits,
    target_places,
    token_losses,
)
from headwater.models.trunk import UpToHead

LOGITS_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20}
"""Most bytes of logits that are in memory at a time, by the kind of device; their gradient takes as many again."""

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}
"""Largest difference allowed between the model's logits and those read in parts, as a share of the largest logit."""


@runtime_checkable
class Targets(Protocol):
    """A forward pass whose losses at the target positions can be read, and carried back to what the model computed."""

    @property
    def place(self) -> Int[Tensor, "items most"]:
        """The positions read; see `headwater.models.losses.target_logits`."""
        ...

    @property
    def head(self) -> Any:
        """The module that `weigh` runs, in parts or packed; None if the logits are whole."""
        ...

    @property
    def packed(self) -> bool:
        """Whether the head sees the target positions of all items one after the other, as one item."""
        ...

    def losses(self, targets: Int[Tensor, "items most"]) -> Float[Tensor, "items most"]:
        """The loss of each position, nats; not differentiable."""
        ...

    def weigh(
        self, targets: Int[Tensor, "items most"], weights: Float[Tensor, "items most"]
    ) -> Float[Tensor, "items most"]:
        """The losses; and the gradient of their weighted sum is carried back through the head, if it runs in parts."""
        ...

    def finish(self) -> None:
        """Carry the gradient back through the rest of the model, once, after `weigh`."""
        ...


def read_targets(
    model: Any,
    input_ids: Int[Tensor, "items tokens"],
    response: Bool[Tensor, "items tokens"],
    head: Head | None,
    *,
    packed: bool = False,
) -> Targets:
    """Run the model on rows padded on the right, to read its losses where `response` is True.

    `head` is what `head_in_parts` found, the head to run in parts, or None for whole logits. With `packed`, it is what
    `head_to_pack` found.
    """
    if head is None:
        return _Whole(*target_logits(model, input_ids, response))
    states = UpToHead(model, head.module)(input_ids=input_ids, use_cache=False).last_hidden_state
    states = states[:, -input_ids.shape[1] :]  # an adapter may put tokens of its own before the row's
    place = target_places(response)
    if packed:
        real = response.to(states.device).flatten().nonzero()
        states = states.flatten(0, 1).gather(0, real.expand(-1, states.shape[2]))[None]
        return _Packed(_Parts(head, states, real.T, len(real)), place, response.gather(1, place))
    states = states.gather(1, place.to(states.device)[..., None].expand(-1, -1, states.shape[2]))
    step = max(1, _limit(response) // _logit_bytes(model, len(input_ids)))
    return _Parts(head, states, place, step)


def head_in_parts(model: Any, response: Bool[Tensor, "items tokens"]) -> Head | None:
    """The head if it is run in parts for these positions; found out once for a model, by running it on a few tokens."""
    if _logit_bytes(model, len(response) * int(response.sum(1).max())) <= _limit(response):
        return None
    return _known_head(model)


FULL = 0.9
"""A head is packed if at most this share of the positions that it would read are target positions."""


def head_to_pack(model: Any, response: Bool[Tensor, "items tokens"]) -> Head | None:
    """The head, if it is to run at the target positions alone, without others that fill up items with fewer of them.

    Only on a CPU; whether it pays on a GPU was not measured.
    """
    if response.device.type != "cpu":
        return None
    filled = len(response) * int(response.sum(1).max())
    size = _logit_bytes(model, filled)
    pays = int(response.sum()) <= FULL * filled
    return _known_head(model) if pays and 0 < size <= _limit(response) else None


def _known_head(model: Any) -> Head | None:
    """What `_find_head` finds; it is asked again only if the model has got another head since."""
    known = _HEADS.get(model)
    if model not in _HEADS or (known is not None and known.module is not model.get_output_embeddings()):
        with torch.no_grad():
            _HEADS[model] = _find_head(model)
    return _HEADS[model]


@torch.no_grad()
def window_losses(model: Any, batch: TokenBatch) -> Float[Tensor, " items"]:
    """The sum of the losses of each window's target tokens, in nats."""
    read = read_targets(model, batch.input_ids, batch.response, head_in_parts(model, batch.response))
    losses = read.losses(batch.targets.gather(1, read.place))
    kept = batch.response.gather(1, read.place).to(losses.device)
    return losses.masked_fill(~kept, 0.0).sum(1)


def _limit(response: Tensor) -> int:
    return LOGITS_BYTES.get(response.device.type, LOGITS_BYTES["cuda"])


def _logit_bytes(model: Any, positions: int) -> int:
    """Bytes of the logits of so many positions, in float32 at least; 0 for a model without a vocabulary of its own."""
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    weight = getattr(embedding, "weight", None)
    return 0 if weight is None else positions * len(weight) * max(weight.dtype.itemsize, 4)


@dataclass
class _Whole:
    """The logits as the model made them."""

    logits: Float[Tensor, "items most vocab"]
    place: Int[Tensor, "items most"]
    head: Any = None
    packed: bool = False
    _gradient: Tensor | None = None

    def losses(self, targets: Tensor) -> Tensor:
        flat = self.logits.detach().flatten(0, 1)
        return token_losses(flat, targets.to(flat.device).flatten()).view(targets.shape)

    def weigh(self, targets: Tensor, weights: Tensor) -> Tensor:
        flat = self.logits.detach().flatten(0, 1)
        wanted = targets.to(flat.device).flatten()
        losses, gradient = losses_and_gradient(flat, wanted, weights.flatten(), overwrite=may_overwrite(self.logits))
        self._gradient = gradient.view_as(self.logits)
        return losses.view(targets.shape)

    def finish(self) -> None:
        if self.logits.requires_grad:  # otherwise they depend on none of the parameters
            self.logits.backward(self._gradient)


@dataclass
class _Parts:
    """The head's input, from which the logits of `step` positions of every item are made at a time."""

    of: Head
    states: Float[Tensor, "items most width"]
    place: Int[Tensor, "items most"]
    step: int
    packed: bool = False
    _gradient: Tensor | None = None

    @property
    def head(self) -> Any:
        return self.of.module

    def losses(self, targets: Tensor) -> Tensor:
        found = []
        with torch.no_grad():
            for some in self._parts():
                logits = self.of.logits(self.states[:, some]).flatten(0, 1)
                wanted = targets[:, some].to(logits.device)
                found.append(token_losses(logits, wanted.flatten()).view(wanted.shape))
        return torch.cat(found, 1)

    def weigh(self, targets: Tensor, weights: Tensor) -> Tensor:
        found, self._gradient = [], torch.empty_like(self.states)
        for some in self._parts():
            states = self.states[:, some].detach().requires_grad_()
            with torch.enable_grad():
                logits = self.of.logits(states)
            wanted = targets[:, some].to(logits.device)
            flat = logits.detach().flatten(0, 1)
            weight, overwrite = weights[:, some].flatten(), may_overwrite(logits)
            losses, gradient = losses_and_gradient(flat, wanted.flatten(), weight, overwrite=overwrite)
            logits.backward(gradient.view_as(logits))
            assert states.grad is not None
            self._gradient[:, some] = states.grad
            found.append(losses.view(wanted.shape))
        return torch.cat(found, 1)

    def finish(self) -> None:
        if self.states.requires_grad:
            self.states.backward(self._gradient)

    def _parts(self) -> Iterator[slice]:
        most = self.states.shape[1]
        return (slice(start, min(start + self.step, most)) for start in range(0, most, self.step))


@dataclass
class _Packed:
    """`inner` reads the target positions alone, as one item; tables of items have a place for others as well."""

    inner: _Parts
    place: Int[Tensor, "items most"]
    real: Bool[Tensor, "items most"]
    packed: bool = True

    @property
    def head(self) -> Any:
        return self.inner.head

    def losses(self, targets: Tensor) -> Tensor:
        return self._table(self.inner.losses(targets[self.real][None]))

    def weigh(self, targets: Tensor, weights: Tensor) -> Tensor:
        return self._table(self.inner.weigh(targets[self.real][None], weights[self.real][None]))

    def finish(self) -> None:
        self.inner.finish()

    def _table(self, values: Float[Tensor, "_one positions"]) -> Float[Tensor, "items most"]:
        real = self.real.to(values.device)
        return values.new_zeros(real.shape).masked_scatter_(real, values)


@dataclass(frozen=True)
class Head:
    """A model's head and what becomes of its output: z = scale · x, or c · tanh(scale · x / c) with a soft-cap c."""

    module: Any
    scale: float
    soft_cap: float | None

    def logits(self, states: Float[Tensor, "items tokens width"]) -> Float[Tensor, "items tokens vocab"]:
        """The model's logits at these inputs of its head, in the dtype that the head computes in."""
        found: Tensor = self.module(states)
        if self.scale != 1.0:
            found = found * self.scale
        return found if self.soft_cap is None else self.soft_cap * torch.tanh(found / self.soft_cap)


_HEADS: weakref.WeakKeyDictionary[Any, Head | None] = weakref.WeakKeyDictionary()


def _find_head(model: Any) -> Head | None:
    find = getattr(model, "get_output_embeddings", None)
    module = None if find is None else find()
    if module is None:
        return None
    device = model.get_input_embeddings().weight.device
    try:
        head = Head(module, *find_map(model, device=device))
        ids = (torch.arange(12, device=device).view(2, 6) * 7 + 3) % len(model.get_input_embeddings().weight)
        states = UpToHead(model, module)(input_ids=ids, use_cache=False).last_hidden_state
        found, expected = head.logits(states)[:, -6:].double(), all_logits(model, ids).double()
    except Exception:  # a model may fail in any way; its logits are then read whole
        return None
    allowed = _TOLERANCE.get(model.dtype, 4e-2) * float(expected.abs().max())
    same = found.shape == expected.shape and float((found - expected.to(found.device)).abs().max()) <= allowed
    return head if same else None
