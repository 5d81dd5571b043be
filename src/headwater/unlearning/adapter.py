"""What is trained: a LoRA adapter around the model, which switched off is the model before, or all weights.

No second model is ever in memory: the reference of NPO is the same model with its adapter off, and where all weights
are trained, the losses of the model before are noted down before the first step.
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
    """A LoRA adapter on all linear layers of attention and MLP (the readout is left out), as in RapidUn."""

    rank: int = 16
    alpha: int = 16
    dropout: float = 0.05


def trainable_model(loaded: LoadedModel, lora: Lora | None, *, seed: int) -> Any:
    """The loaded model made trainable **in place**: with a fresh adapter around it, or (`lora` None) all of it.

    A fresh adapter changes nothing: its B is zero.

    Raises:
        ModelError: the model carries an adapter already, or is quantised and no adapter is asked for.
    """
    model = loaded.model
    if hasattr(model, "peft_config"):
        raise ModelError(
            "the model carries an adapter", where=loaded.name, remedy="merge it on loading (--merge), then unlearn"
        )
    if lora is None:
        if loaded.loading.get("quantization"):
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
    """The model before, inside the block: the adapter is switched off.

    Raises:
        ModelError: the model has no adapter.
    """
    if not hasattr(model, "disable_adapter"):
        raise ModelError("there is no model before: all weights are trained", remedy="train an adapter")
    training = model.training
    with model.disable_adapter(), torch.no_grad():
        yield model.eval()
    model.train(training)


def trainable_state(model: Any) -> dict[str, Tensor]:
    """Copies of all trainable tensors, on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


def restore_state(model: Any, state: dict[str, Tensor]) -> None:
    """Put back what `trainable_state` took."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in state:
                parameter.copy_(state[name])


@contextlib.contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """The generators of Python, NumPy and PyTorch, which the Trainer seeds, are after the block as they were before."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the state others rely on
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
