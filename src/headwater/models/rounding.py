"""Rounding a model's weights to a few bits, as quantisation for deployment does; the weights stay ordinary numbers.

    w → s · round(w / s),   s = max |w| / (2^(bits − 1) − 1)   of each output channel

It is round-to-nearest with one symmetric scale for each output channel. It needs no quantisation library, and what it
does to a model is what a weight-only quantiser of this form does. Unlearning that moved weights by less than half a
step is undone by it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from headwater.core.errors import ModelError, UsageError
from headwater.models.load import LoadedModel

FEWEST_BITS, MOST_BITS = 2, 16


def merged_copy(loaded: LoadedModel) -> LoadedModel:
    """A copy of the model with its own weights, into which an adapter is merged; the model itself stays as it is."""
    model = copy.deepcopy(loaded.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    return replace(loaded, model=model.eval().requires_grad_(False))


def rounded_copy(loaded: LoadedModel, bits: int) -> LoadedModel:
    """A copy of the model with rounded weights; embeddings, the readout and one-dimensional parameters are not rounded.

    Raises:
        UsageError: fewer than 2 bits or more than 16.
        ModelError: the weights are quantised already.
    """
    if not FEWEST_BITS <= bits <= MOST_BITS:
        raise UsageError(f"{bits} bits", where="rounding", remedy=f"from {FEWEST_BITS} to {MOST_BITS}")
    if getattr(loaded.model, "is_quantized", False):
        raise ModelError(
            "the weights are quantised already", where=loaded.name, remedy="load it without --quantization"
        )
    made = merged_copy(loaded)
    with torch.no_grad():
        for weight, axis, _ in rounded_layers(made.model):
            weight.copy_(round_weights(weight, bits, axis=axis))
    return made


def rounded_layers(model: Any) -> Iterator[tuple[Tensor, int, Tensor | float]]:
    """Each weight that is rounded, the axis of its inputs, and what an adapter around it adds to it (0 without one).

    Embeddings, the readout, one-dimensional parameters, and an adapter's own matrices are not among them.
    """
    adapted = {
        id(m.base_layer): sum(m.get_delta_weight(name) for name in m.active_adapters)
        for m in model.modules()
        if hasattr(m, "get_delta_weight") and hasattr(m, "base_layer")
    }
    own = {id(p) for m in model.modules() if hasattr(m, "get_delta_weight") for p in _adapter_parameters(m)}
    for module in _rounded_modules(model):
        axis = 0 if type(module).__name__ == "Conv1D" else -1  # GPT-2's layers hold [inputs, outputs]
        for parameter in module.parameters(recurse=False):
            if parameter.ndim > 1 and id(parameter) not in own:
                yield parameter, axis, adapted.get(id(module), 0.0)


def _adapter_parameters(layer: Any) -> list[Tensor]:
    base = {id(p) for p in layer.base_layer.parameters()}
    return [p for p in layer.parameters() if id(p) not in base]


def round_weights(weights: Tensor, bits: int, *, axis: int = -1) -> Tensor:
    """Weights of any shape rounded as in the formula; `axis` is that of the inputs, over which a scale is shared."""
    wide = weights.float()
    scale = wide.abs().amax(dim=axis, keepdim=True) / (2 ** (bits - 1) - 1)
    found: Tensor = torch.where(scale > 0, (wide / scale.clamp(min=torch.finfo(torch.float32).tiny)).round() * scale, 0)
    return found.to(weights.dtype)


def _rounded_modules(model: Any) -> list[Any]:
    kept = {id(p) for part in _ends(model) for p in part.parameters()}
    return [m for m in model.modules() if not any(id(p) in kept for p in m.parameters(recurse=False))]


def _ends(model: Any) -> list[Any]:
    """The embeddings and the readout, and every other table that is looked up by position or token."""
    head = model.get_output_embeddings()
    return [*(m for m in model.modules() if isinstance(m, torch.nn.Embedding)), *([] if head is None else [head])]
