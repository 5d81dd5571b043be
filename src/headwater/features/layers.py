"""Blocks of the most common layers: linear layers, Conv1D, embeddings.

Gradients are sums over tokens of products of the layer's input x and the gradient δ at its output:

    y = x Wᵀ + b:   ∂L/∂W = Σ_t δ_t ⊗ x_t,   ∂L/∂b = Σ_t δ_t          y = W[id]:   ∂L/∂W = Σ_t onehot(id_t) ⊗ δ_t
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from headwater.features.regroup import Regroup
from headwater.sketch.blocks import Block, Dense, Lookup, Outer

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One run of a module: its inputs, and the gradient at one of its outputs."""

    module: Any
    where: str
    inputs: tuple[Any, ...]
    output: int
    grad: Tensor
    group: Regroup


class Linear:
    """`nn.Linear` and GPT-2's `Conv1D`; a quantised weight, which is stored in another shape, is not seen."""

    def claims(self, module: nn.Module) -> bool:
        """Whether this kind can read the module."""
        return isinstance(module, (nn.Linear, Conv1D))

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

    def read(self, call: Call) -> Iterator[tuple[str, Block]]:
        """Blocks by the parameter's local name."""
        left = call.group.rows(call.grad, call.where)
        yield "weight", Outer(left, call.group.rows(call.inputs[0], call.where))
        if getattr(call.module, "bias", None) is not None:
            yield "bias", Dense(left.sum(1, dtype=torch.promote_types(left.dtype, torch.float32)))


class Embedding:
    """`nn.Embedding` and scaled variants (Gemma multiplies what it looks up)."""

    def claims(self, module: nn.Module) -> bool:
        """Whether this kind can read the module."""
        return isinstance(module, nn.Embedding)

    def transposed(self, module: nn.Module) -> bool:
        """Never."""
        return False

    def tensors(self, module: Any, name: str) -> dict[str, Shape]:
        """The gradient tensors of a parameter, with shapes."""
        return {"": tuple(module._parameters[name].shape)} if name == "weight" else {}

    def read(self, call: Call) -> Iterator[tuple[str, Block]]:
        """Blocks by the parameter's local name; as in autograd, the padding token has no gradient."""
        module, ids = call.module, call.inputs[0]
        grad = call.grad
        if type(module).forward is not nn.Embedding.forward:
            ones = torch.ones(1, 1, dtype=grad.dtype, device=grad.device).expand_as(module.weight)
            grad = grad * torch.func.functional_call(module, {"weight": ones}, (ids,))
        if module.padding_idx is not None:
            grad = grad * (ids != module.padding_idx)[..., None]
        yield "weight", Lookup(call.group.rows(ids[..., None], call.where)[..., 0], call.group.rows(grad, call.where))
