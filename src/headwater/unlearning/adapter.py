"""What training changes: a LoRA adapter around the model, or all of the model's weights.

No second model is ever in memory. With an adapter, the reference model of NPO is the same model with the adapter
switched off. When all weights are trained, the reference losses are measured before the first step.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.core.errors import ModelError
from headwater.models.load import LoadedModel


@dataclass(frozen=True)
class Lora:
    """A LoRA adapter on all linear layers of attention and MLP, but not on the readout, as in RapidUn."""

    rank: int = 16
    alpha: int = 16
    dropout: float = 0.05


def trainable_model(loaded: LoadedModel, lora: Lora | None, *, seed: int) -> Any:
    """Make the loaded model trainable **in place**: put a new adapter around it or, if `lora` is None, train all of it.

    A new adapter does not change the model's outputs, because its B is zero.

    Raises:
        ModelError: the model already has an adapter, or it is quantised and `lora` is None.
    """
    model = loaded.model
    if hasattr(model, "peft_config"):
        remedy = "merge it on loading (--merge), then unlearn"
        raise ModelError("the model carries an adapter already", where=loaded.name, remedy=remedy)
    if lora is None:
        if getattr(model, "is_quantized", False):
            raise ModelError("quantised weights cannot be trained", where=loaded.name, remedy="train an adapter")
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        return get_peft_model(model, config)


@contextlib.contextmanager
def reference(model: Any) -> Iterator[Any]:
    """Switch the adapter off inside the block, so that the model is the one from before unlearning.

    Raises:
        ModelError: the model has no adapter.
    """
    if not hasattr(model, "disable_adapter"):
        what = "the model from before is gone, because all weights are trained"
        raise ModelError(what, remedy="train an adapter")
    training = model.training
    with model.disable_adapter(), torch.no_grad():
        yield model.eval()
    model.train(training)


def trainable_state(model: Any) -> dict[str, Tensor]:
    """Copies of all trainable tensors, on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


def restore_state(model: Any, state: dict[str, Tensor]) -> None:
    """Copy a state from `trainable_state` back into the model."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in state:
                parameter.copy_(state[name])


@contextlib.contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Restore the global generators of Python, NumPy and PyTorch after the block; the Trainer seeds all three."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the state others rely on
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
