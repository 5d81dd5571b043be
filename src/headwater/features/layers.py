"""Blocks of the most common layers: linear layers, Conv1D, embeddings.

Gradients are sums over tokens of products of the layer's input x and the gradient δ at its output:

    y = x Wᵀ + b:   ∂L/∂W = Σ_t δ_t ⊗ x_t,   ∂L/∂b = Σ_t δ_t          y = W[id]:   ∂L/∂W = Σ_t onehot(id_t) ⊗ δ_t

A class does not decide which formula holds, because subclasses give `forward` another meaning. `certain` says whether
the module runs the very function the formula is of; otherwise a run of the model must prove it (`headwater.features.
proof`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from headwater.features.regroup import Regroup
from headwater.sketch.blocks import Block, Dense, Lookup

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One run of a module: its inputs, and the gradient at one of its outputs.

    Attributes:
        module: the module.
        where: its name.
        inputs: positional inputs, in the order of `forward`'s parameters.
        named: inputs that can only be given by keyword, or that follow one left out.
        output: which output, if it gives several.
        grad: the gradient at that output.
        group: how items and tokens belong to rows.
        wanted: local names of the parameters whose gradients are read.
        value: that output, if the kind keeps it and nothing has changed it since.
    """

    module: Any
    where: str
    inputs: tuple[Any, ...]
    named: Mapping[str, Any]
    output: int
    grad: Tensor
    group: Regroup
    wanted: tuple[str, ...]
    value: Tensor | None = None


def runs_plainly(module: nn.Module, *forwards: Callable[..., Any]) -> bool:
    """Whether calling the module runs one of these functions and nothing else: no override, no hook that changes it.

    The wrapper that `accelerate` puts around `forward` moves tensors between devices only, so it is looked through.
    """
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    own = module.__dict__.get("_old_forward" if hasattr(module, "_hf_hook") else "forward")
    return (type(module).forward if own is None else getattr(own, "__func__", None)) in forwards


class Linear:
    """`nn.Linear` and GPT-2's `Conv1D`; a quantised weight, which is stored in another shape, is not seen."""

    def claims(self, module: nn.Module) -> bool:
        """Whether this kind can read the module."""
        return isinstance(module, (nn.Linear, Conv1D))

    def certain(self, module: nn.Module) -> bool:
        """Whether the claim holds without a run that proves it."""
        return runs_plainly(module, nn.Linear.forward, Conv1D.forward)

    def transposed(self, module: nn.Module) -> bool:
        """Whether matrices are stored as `(in, out)`."""
        return isinstance(module, Conv1D)

    def tensors(self, module: Any, name: str) -> dict[str, Shape]:
        """The gradient tensors of a parameter, by suffix of its name, with shapes; none if it cannot be seen."""
        parameter = module._parameters[name]
        if not parameter.is_floating_point():
            return {}
        if name == "bias":
            return {"": tuple(parameter.shape)}
        if isinstance(module, Conv1D):
            return {"": (parameter.shape[1], parameter.shape[0])}
        whole = tuple(parameter.shape) == (module.out_features, module.in_features)
        return {"": tuple(parameter.shape)} if whole else {}

    def keeps_output(self, module: Any, output: Tensor) -> bool:
        """Never."""
        return False

    def read(self, call: Call) -> Iterator[tuple[str, Block]]:
        """Blocks by the parameter's local name."""
        outer = call.group.outer(call.grad, call.inputs[0], call.where)
        yield "weight", outer
        if getattr(call.module, "bias", None) is not None:
            yield "bias", Dense(outer.left.sum(1, dtype=torch.promote_types(call.grad.dtype, torch.float32)))


class Embedding:
    """`nn.Embedding`, and variants that scale what they look up (Gemma) or find the row in another way (OPT)."""

    def claims(self, module: nn.Module) -> bool:
        """Whether this kind can read the module."""
        return isinstance(module, nn.Embedding)

    def certain(self, module: nn.Module) -> bool:
        """Whether the claim holds without a run that proves it."""
        return runs_plainly(module, nn.Embedding.forward)

    def transposed(self, module: nn.Module) -> bool:
        """Never."""
        return False

    def tensors(self, module: Any, name: str) -> dict[str, Shape]:
        """The gradient tensors of a parameter, with shapes."""
        return {"": tuple(module._parameters[name].shape)} if name == "weight" else {}

    def keeps_output(self, module: Any, output: Tensor) -> bool:
        """Never."""
        return False

    def read(self, call: Call) -> Iterator[tuple[str, Block]]:
        """Blocks by the parameter's local name; as in autograd, the padding token has no gradient."""
        grad = call.grad
        if type(call.module).forward is nn.Embedding.forward:
            ids = call.inputs[0]
        else:
            ids, scale = _looked_up(call)
            grad = grad * scale
        if call.module.padding_idx is not None:
            grad = grad * (ids != call.module.padding_idx)[..., None]
        yield "weight", Lookup(call.group.rows(ids[..., None], call.where)[..., 0], call.group.rows(grad, call.where))


def _looked_up(call: Call) -> tuple[Tensor, Tensor]:
    """Which rows of its weight the module looks up, and the factor on them.

    If the output is s ∘ W[id], then a weight of ones gives s, and one whose row i holds the number i gives s · id.
    """
    weight = call.module.weight
    ones = torch.ones(1, 1, dtype=call.grad.dtype, device=weight.device).expand_as(weight)
    numbers = torch.arange(len(weight), dtype=torch.float64, device=weight.device)[:, None].expand_as(weight)

    def run(held: Tensor) -> Tensor:
        out: Tensor = functional_call(call.module, {"weight": held}, call.inputs, dict(call.named))
        return out

    scale = run(ones)
    return (run(numbers)[..., 0] / run(ones.double())[..., 0]).round().long(), scale
