"""Gradients of a module whose code is not known: it is run again for each example by itself, and differentiated.

Every tensor that the module was given is split by example, a gate or a mask as well as the states. Which axis holds the
examples is recorded when a small batch runs at bind time, from its number of rows, and proved there against autograd.
A module may hold its parameters itself (a router, a state-space mixer's `A_log`) or use those of modules inside it that
never run (a convolution's weight that a kernel takes, an adapter's `ParameterDict`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from headwater.core.errors import ModelError
from headwater.features.layers import Call, Shape
from headwater.sketch.blocks import Block, Dense

MOST = 2**22
"""Parameters with more numbers than this are not read so: the gradient of each example is held whole (16 MiB)."""

Axes = Mapping[str, tuple[int | None, ...]]
"""The form of a call's inputs to the axis of each that holds the examples; None for what all examples share."""


def form_of(inputs: Any, items: int) -> tuple[str, tuple[int | None, ...]]:
    """One entry of `Axes`: the form of these inputs, and the axis of each on which `items` examples lie."""
    leaves, spec = tree_flatten(inputs)
    return str(spec), tuple(_axis(leaf, items) if isinstance(leaf, Tensor) else None for leaf in leaves)


def _axis(tensor: Tensor, items: int) -> int | None:
    """The axis that examples lie on; the first may hold several entries an example (its tokens, its heads)."""
    sizes = tuple(tensor.shape)
    if not sizes:
        return None
    if sizes[0] > 0 and sizes[0] % items == 0:
        return 0
    return next((axis for axis, size in enumerate(sizes) if size == items), None)


@dataclass(frozen=True)
class Replay:
    """Any module, run again example by example.

    Attributes:
        axes: where the inputs hold the examples.
        output: where its outputs do, by their number.
        at_once: run all examples in one `vmap`, which not every module allows; otherwise one after the other.
    """

    axes: Axes
    output: Mapping[int, int | None]
    at_once: bool

    def claims(self, module: nn.Module) -> bool:
        """Whether this kind can read the module: its inputs were recorded."""
        return bool(self.axes)

    def certain(self, module: nn.Module) -> bool:
        """Never: a run must prove it."""
        return False

    def transposed(self, module: nn.Module) -> bool:
        """Never: its tensors are flat."""
        return False

    def tensors(self, module: Any, name: str) -> dict[str, Shape]:
        """The gradient tensor of a parameter, flat; none if it is not small."""
        parameter = module.get_parameter(name)
        small = parameter.is_floating_point() and parameter.numel() <= MOST
        return {"": (parameter.numel(),)} if small else {}

    def keeps_output(self, module: Any, output: Tensor) -> bool:
        """Never."""
        return False

    def read(self, call: Call) -> Iterator[tuple[str, Block]]:
        """Blocks by the parameter's local name."""
        items = call.group.batch.input_ids.shape[0]
        leaves, spec = tree_flatten((call.inputs, dict(call.named)))
        axes = self.axes.get(str(spec))
        if axes is None:
            raise _lost(call, "its inputs have another form than in the batch that proved it")
        split = [_split(leaf, axis, items, call) for leaf, axis in zip(leaves, axes, strict=True)]
        axis = self.output.get(call.output)
        grad = _split(call.grad, 0 if axis is None else axis, items, call)
        held = {name: call.module.get_parameter(name).detach() for name in call.wanted}

        def output(parameters: Mapping[str, Tensor], parts: Sequence[Any], like: Tensor) -> Tensor:
            inputs, named = tree_unflatten(list(parts), spec)
            out = functional_call(call.module, dict(parameters), inputs, named)
            chosen: Tensor = out[call.output] if isinstance(out, tuple) else out
            return chosen.reshape(like.shape)

        each = _at_once if self.at_once else _one_by_one
        with torch.enable_grad():
            found = each(output, held, split, (*axes, 0 if axis is None else axis), grad)
        for name, values in found.items():
            yield name, Dense(call.group.sum_rows(values.detach().reshape(len(values), -1)))  # a scalar too


_Output = Callable[[Mapping[str, Tensor], Sequence[Any], Tensor], Tensor]


def _at_once(
    output: _Output, held: dict[str, Tensor], split: list[Any], axes: tuple[int | None, ...], grad: Tensor
) -> dict[str, Tensor]:
    def one(part: Tensor, *parts: Any) -> dict[str, Tensor]:
        pulled: dict[str, Tensor] = vjp(lambda parameters: output(parameters, parts, part), held)[1](part)[0]
        return pulled

    found: dict[str, Tensor] = vmap(one, in_dims=(axes[-1], *axes[:-1]))(grad, *split)
    return found


def _one_by_one(
    output: _Output, held: dict[str, Tensor], split: list[Any], axes: tuple[int | None, ...], grad: Tensor
) -> dict[str, Tensor]:
    leaves = {name: value.requires_grad_() for name, value in held.items()}
    found: dict[str, list[Tensor]] = {name: [] for name in held}
    own = axes[-1] or 0
    for item in range(grad.shape[own]):
        parts = [x if axis is None else x.select(axis, item) for x, axis in zip(split, axes[:-1], strict=True)]
        part = grad.select(own, item)
        out = output(leaves, parts, part)
        none: tuple[Tensor | None, ...] = (None,) * len(leaves)  # the example does not use them
        pulled = torch.autograd.grad(out, [*leaves.values()], part, allow_unused=True) if out.requires_grad else none
        for (name, leaf), value in zip(leaves.items(), pulled, strict=True):
            found[name].append(torch.zeros_like(leaf) if value is None else value)
    return {name: torch.stack(values) for name, values in found.items()}


def _split(value: Any, axis: int | None, items: int, call: Call) -> Any:
    """The tensor with its axis of examples unfolded to `(items, entries an example)`; anything else unchanged."""
    if not isinstance(value, Tensor):
        return value
    if axis is None:
        return value.detach()
    if value.ndim <= axis or value.shape[axis] % items:
        raise _lost(call, f"it sees {tuple(value.shape)} for {items} examples")
    return value.detach().unflatten(axis, (items, value.shape[axis] // items))


def _lost(call: Call, what: str) -> ModelError:
    remedy = "leave it out with a glob over parameters (!*name*)"
    return ModelError(f"{what}: which is whose is lost", where=call.where, remedy=remedy)
