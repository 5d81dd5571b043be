"""Per-example gradients of a batch from one backward pass that computes no weight gradient.

Every parameter is frozen, so the backward pass runs over activations only. Hooks keep each watched module's input.
When the gradient at its output arrives, the module's blocks are made, given to a visitor and dropped, one tensor at a
time, while the pass goes on. Examples stay separate because each token's loss is weighted (by 1 / (the row's target
tokens), if no pair is compared) and summed: the gradient at example i's activations depends on example i alone.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map_only

from headwater.core.errors import DataError, ModelError
from headwater.data.batches import TokenBatch
from headwater.features.apart import gradients_apart
from headwater.features.idle import require_idle
from headwater.features.layers import Call, Linear
from headwater.features.regroup import PackedTargets, Regroup
from headwater.features.row_losses import token_weights
from headwater.features.sites import ParameterSelection, Site
from headwater.models.heads import Head, Targets, head_in_parts, head_to_pack, read_targets
from headwater.sketch.blocks import Block, Gradient, Outer, as_outer, merge, multiplied_out
from headwater.sketch.precision import tensor_cores

Visit = Callable[[Gradient], None]

HeadReading = Literal["summed", "packed", "tokens", "whole"]
"""How the head is read.

summed: if its logits are large, in parts (`headwater.models.heads`), with the tokens' factors multiplied out where that
    takes less memory; if not, at once.
packed: the same, but smaller logits at the target positions alone, where that pays, as `Packed` blocks. Smaller logits
    are also computed so if no gradient of the head is read.
tokens: large logits in parts, with the factors of each token.
whole: at once.
"""

Inputs = tuple[tuple[Any, ...], Mapping[str, Any]]
"""A module's inputs in the order of `forward`'s parameters, and those that remain keywords; tensors are detached."""


def bound_inputs(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs:
    """The inputs of a call, in the same form however the caller passed them."""
    given: Inputs = (args, kwargs)
    if kwargs:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        given = (bound.args, bound.kwargs)
    detached: Inputs = tree_map_only(Tensor, torch.detach, given)
    return detached


def visit_gradients(
    model: Any,
    selection: ParameterSelection,
    batch: TokenBatch,
    visit: Visit,
    *,
    weights: Float[Tensor, " rows"] | None = None,
    head: HeadReading = "summed",
) -> Float[Tensor, "items tokens"]:
    """Call `visit` once with each selected tensor's gradients for the rows of `batch`, in the order they arrive.

    A tensor that does not affect the batch's loss is not visited; its gradient is zero. The head runs on some positions
    at a time if its logits are large (`headwater.models.heads`).

    Args:
        weights: factor on each row's loss, which is the mean over its target tokens.
        head: how the head is read.

    Returns:
        The loss of each target token in nats, NaN elsewhere.

    Raises:
        DataError: a row has no target token.
        ModelError: examples cannot be separated in a module.
    """
    _require_targets(batch)
    # These run the model, yet unwatched.
    parts = None if head == "whole" else head_in_parts(model, batch.response)
    packed = None if head == "whole" or parts else _head_to_pack(model, selection.sites, batch, head)
    capture = _Capture(Regroup(batch), visit)
    handles = [
        site.module.register_forward_hook(partial(capture.watch, site), with_kwargs=True) for site in selection.sites
    ]
    try:
        with torch.enable_grad():
            read = read_targets(model, batch.input_ids, batch.response, parts or packed, packed=packed is not None)
            targets = batch.targets.gather(1, read.place)
            of_tokens = _token_weights(batch, weights, read)
            with capture.in_parts(selection.sites, read, summing=head in ("summed", "packed")):
                losses = read.weigh(targets, of_tokens.gather(1, read.place))
            capture.backward = True
            _prove_idle(model, selection, capture.ran, batch)
            read.finish()
    finally:
        for handle in handles:
            handle.remove()
    capture.finish()
    if selection.apart:
        for name, block in gradients_apart(model, selection.apart, batch, of_tokens).items():
            visit(Gradient(name, selection.shapes[name], (block,)))
    table = torch.full(batch.response.shape, torch.nan, dtype=losses.dtype, device=batch.response.device)
    table.scatter_(1, read.place, losses.to(table.device))
    return table.masked_fill_(~batch.response, torch.nan)


def _inside(head: Any, sites: Iterable[Site]) -> list[Site]:
    """The sites at the head and at modules that it holds."""
    inside = {id(module) for module in head.modules()}
    return [site for site in sites if id(site.module) in inside]


def _head_to_pack(model: Any, sites: Iterable[Site], batch: TokenBatch, reading: HeadReading) -> Head | None:
    """The head if it pays to pack it, and if nothing there is read, or by this reading linear layers alone.

    Linear layers see tokens one by one.
    """
    head = head_to_pack(model, batch.response)
    inside = [] if head is None else _inside(head.module, sites)
    linear = reading == "packed" and all(isinstance(site.kind, Linear) for site in inside)
    return head if linear or not inside else None


def _prove_idle(model: Any, selection: ParameterSelection, ran: set[int], batch: TokenBatch) -> None:
    """Check, once for each module that did not run, that its weights are not used in another way."""
    silent = [s for s in selection.sites if id(s.module) not in ran and s.where not in selection.proved_idle]
    if silent:
        require_idle(model, silent, batch)
        selection.proved_idle.update(site.where for site in silent)


def _token_weights(batch: TokenBatch, weights: Tensor | None, read: Targets) -> Float[Tensor, "items tokens"]:
    """What each token's loss counts for; a preference pair's answers are first compared by these losses."""
    table = None
    if batch.paired:
        losses = read.losses(batch.targets.gather(1, read.place))
        table = losses.new_zeros(batch.response.shape).scatter_(1, read.place.to(losses.device), losses)
    found = token_weights(batch, table).to(batch.response.device)
    return found if weights is None else found * weights.to(found)[batch.item_row][:, None]


def _require_targets(batch: TokenBatch) -> None:
    counts = batch.target_counts
    if not bool((counts > 0).all()):
        row = batch.rows[int((counts == 0).nonzero()[0, 0])].row
        remedy = "leave it out, or give it a response"
        raise DataError("no target token, so no loss and no gradient", where=f"row '{row.id}'", remedy=remedy)


@dataclass
class _Capture:
    """The state of one batch: how many gradients each tensor still waits for, and its blocks so far."""

    group: Regroup
    visit: Visit
    backward: bool = False
    expected: dict[str, int] = field(default_factory=dict)
    blocks: dict[str, list[Block]] = field(default_factory=dict)
    shapes: dict[str, tuple[tuple[int, ...], bool]] = field(default_factory=dict)
    ran: set[int] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)
    reading: bool = False
    done: set[str] = field(default_factory=set)
    summing: int = 0
    summed: dict[str, Tensor] = field(default_factory=dict)

    @contextlib.contextmanager
    def in_parts(self, sites: Iterable[Site], read: Targets, *, summing: bool) -> Iterator[None]:
        """While the head runs on one part of the positions after the other, its gradients wait for the last part.

        With `summing`, the factors of more positions than a layer has inputs are multiplied out, part by part.
        """
        if read.head is None:
            yield
            return
        waiting = {name for site in _inside(read.head, sites) for name in site.names.values()}
        for name in waiting:
            self.expected[name] = self.expected.get(name, 0) + 1
        whole = self.group
        if read.packed:
            self.group = PackedTargets(whole.batch)
        elif summing:
            self.summing = read.place.shape[1]
        yield
        self.group, self.summing = whole, 0
        with torch.no_grad():
            self._count_down(waiting)

    def watch(self, site: Site, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """A forward hook that asks for the gradient at the module's output.

        A checkpointed segment runs again during the backward pass. If its first run was recorded (non-reentrant
        checkpointing), the second only repeats it; if not, gradients arrive at the outputs of the second.
        """
        if self.reading:  # a module that is run again to be read, and those inside it
            return output
        self.ran.add(id(module))
        if not torch.is_grad_enabled():
            return output
        repeated = self.backward and id(module) in self.seen
        inputs = bound_inputs(module, args, kwargs)
        outputs = output if isinstance(output, tuple) else (output,)
        if len(outputs) > 1:
            # One output may be computed from another; a view gets only the gradient of uses outside the module.
            outputs = tuple(value.view_as(value) if _differentiable(value) else value for value in outputs)
        watched = tuple(
            self._watch_output(site, inputs, place, value, repeated) if _differentiable(value) else value
            for place, value in enumerate(outputs)
        )
        if not self.backward:
            self.seen.add(id(module))
        return watched if isinstance(output, tuple) else watched[0]

    def _watch_output(self, site: Site, inputs: Inputs, place: int, value: Tensor, repeated: bool) -> Tensor:
        if self.group.shared(value):  # give each example its own copy, so its own gradient
            value = value.expand(self.group.batch.input_ids.shape[0], *value.shape[1:])
        if not value.requires_grad:
            value = value.detach().requires_grad_().clone()  # a model may scale a copy in place, but not a leaf
        if not repeated:
            for name in site.names.values():
                self.expected[name] = self.expected.get(name, 0) + 1
            kept = _Kept.of(value) if site.kind.keeps_output(site.module, value) else None
            value.register_hook(partial(self._arrive, site, inputs, place, kept))
        return value

    def _arrive(self, site: Site, inputs: Inputs, place: int, kept: _Kept | None, grad: Tensor) -> None:
        self.reading = True
        value = None if kept is None else kept.unchanged()
        try:
            with torch.no_grad():
                self._read(Call(site.module, site.where, *inputs, place, grad, self.group, site.wanted, value), site)
        finally:
            self.reading = False

    def _read(self, call: Call, site: Site) -> None:
        transposed = site.kind.transposed(call.module)
        for local, block in site.kind.read(call):
            name = site.names.get(local)
            if name is not None:
                if isinstance(block, Outer) and block.right.shape[2] < self.summing:
                    self.summed[name] = multiplied_out(block, self.summed.get(name))
                else:
                    self.blocks.setdefault(name, []).append(block)
                shape = site.shapes[name]
                self.shapes[name] = (shape, transposed and len(shape) > 1)  # a bias has nothing to transpose
        self._count_down(site.names.values())

    def _count_down(self, names: Iterable[str]) -> None:
        for name in names:
            self.expected[name] -= 1
            if self.expected[name] == 0:
                self._release(name)

    def _release(self, name: str) -> None:
        blocks = self.blocks.pop(name, [])
        if name in self.summed:
            blocks.append(as_outer(self.summed.pop(name)))
        if not blocks:
            return
        if name in self.done:
            remedy = "checkpoint with use_reentrant=False"
            raise ModelError("used in several checkpointed segments: its gradient is split", where=name, remedy=remedy)
        self.done.add(name)
        shape, transposed = self.shapes[name]
        gradient = Gradient(name, shape, merge(blocks), transposed)
        with tensor_cores(gradient.made_in):
            self.visit(gradient)

    def finish(self) -> None:
        """Visit the tensors of modules that ran more often than gradients arrived."""
        with torch.no_grad():
            for name in [*self.blocks, *self.summed]:
                self._release(name)


@dataclass(frozen=True)
class _Kept:
    """An output without its graph, which would hold the hook that holds it, and how often it had been changed."""

    value: Tensor
    version: int

    @classmethod
    def of(cls, output: Tensor) -> _Kept:
        return cls(output.detach(), output._version)

    def unchanged(self) -> Tensor | None:
        """The output; None if the model has overwritten it since (a residual that is added in place)."""
        return self.value if self.value._version == self.version else None


def _differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
