"""The weights that methods with Kronecker factors read: linear layers inside the model, not its embedding or head."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from headwater.core.errors import ModelError
from headwater.features.parameters import ParameterSelection, select_parameters


def select_linear(model: Any, globs: str = "") -> ParameterSelection:
    """The selected parameters that are weights of linear layers; without globs, of the adapter or of all layers.

    The head is left out: its output is the vocabulary, and its factors would be the largest by far. Biases and norms
    are not linear layers' weights; the coverage says what share is seen.

    Raises:
        ModelError: no linear layer among them.
        UsageError: a glob matches no parameter.
    """
    chosen = set(select_parameters(model, globs).shapes)
    head = model.get_output_embeddings()
    kept = [
        name
        for where, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
        for name in [f"{where}.weight"]
        if name in chosen
    ]
    if not kept:
        raise ModelError("no linear layer among the selected parameters", where="parameters", remedy="select others")
    return select_parameters(model, ",".join(name.replace("[", "[[]") for name in kept))
