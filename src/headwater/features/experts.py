"""Blocks of fused experts: mixtures whose experts are slices of one three-dimensional parameter.

Hooks see only a mixture's input and output. So the experts' inner values are computed again from the module's input and
routing, and the output gradient is propagated back through one expert at a time:

    z = U x,  h = gate(z),  y = D h,  out = Σ_e w_e y_e      ∂L/∂D = Σ_t (w δ)_t ⊗ h_t,   ∂L/∂U = Σ_t δz_t ⊗ x_t

Every expert's slice counts as a tensor of its own, as in checkpoints that store experts separately.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from headwater.features.layers import Call, Shape
from headwater.sketch.blocks import Block, Dense, Outer


class Experts:
    """Modules with `gate_up_proj` (or `up_proj`) and `down_proj` of shape `[experts, ...]`, fused by transformers."""

    def claims(self, module: Any) -> bool:
        """Whether this kind can read the module."""
        marks = ("has_gate", "has_bias", "is_transposed", "down_proj")
        return all(hasattr(module, mark) for mark in marks) and not getattr(module, "has_post_expert_norm", False)

    def certain(self, module: Any) -> bool:
        """Whether the claim holds without a run that proves it: the marks are those of one function of transformers."""
        return True

    def transposed(self, module: Any) -> bool:
        """Whether matrices are stored as `(in, out)`."""
        return bool(module.is_transposed)

    def tensors(self, module: Any, name: str) -> dict[str, Shape]:
        """The gradient tensors of a parameter, one for each expert, with shapes."""
        if name.removesuffix("_bias") not in (_up(module), "down_proj"):
            return {}
        parameter = module._parameters[name]
        shape = tuple(parameter.shape[1:])
        if self.transposed(module) and len(shape) == 2:
            shape = (shape[1], shape[0])
        return {f"[{expert}]": shape for expert in range(parameter.shape[0])}

    def keeps_output(self, module: Any, output: Tensor) -> bool:
        """Never."""
        return False

    def read(self, call: Call) -> Iterator[tuple[str, Block]]:
        """Blocks by the parameter's local name with the expert in brackets."""
        hidden, chosen, weights = (value.flatten(0, -2) for value in call.inputs[:3])
        grad = call.grad.flatten(0, -2)
        up = _up(call.module)
        for expert in range(len(call.module.down_proj)):
            here = chosen == expert
            token = here.any(1).nonzero()[:, 0]
            if len(token) == 0:
                continue
            routed = (weights * here)[token].sum(1, keepdim=True).to(grad.dtype)
            found = _through(call.module, expert, hidden[token], grad[token] * routed)
            for name, (left, right) in zip((up, "down_proj"), found, strict=True):
                lefts = call.group.pack(left, token)
                yield f"{name}[{expert}]", Outer(lefts, call.group.pack(right, token))
                if call.module.has_bias:
                    wide = torch.promote_types(lefts.dtype, torch.float32)
                    yield f"{name}_bias[{expert}]", Dense(lefts.sum(1, dtype=wide))


def _up(module: nn.Module) -> str:
    return "gate_up_proj" if getattr(module, "has_gate", True) else "up_proj"


def _through(module: Any, expert: int, x: Tensor, grad: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(output gradient, input) of both layers of one expert, for the tokens routed to it."""
    up, down = getattr(module, _up(module))[expert], module.down_proj[expert]
    if module.is_transposed:
        up, down = up.mT, down.mT
    bias = getattr(module, f"{_up(module)}_bias")[expert] if module.has_bias else None
    with torch.enable_grad():
        z = nn.functional.linear(x.detach(), up, bias).detach().requires_grad_()
        h = module._apply_gate(z) if module.has_gate else module.act_fn(z)
        (grad_z,) = torch.autograd.grad(h, z, grad @ down)
    return (grad_z, x.detach()), (grad, h.detach())
