"""A model's fingerprint: its architecture, weights, adapter and tokenizer, as short digests.

The weights digest reads a sample, because reading all of a 70-billion-parameter model would take longer than many
commands do. A tensor of at most 4,096 elements is read whole, so any change in it is seen. Of a larger one every k-th
element is read, so a change of elements between two samples alone is **not** seen. Training, merging, quantising and
re-initialising change all of a tensor, and are seen. Of the configuration, as it was resolved, every field that can
change what is computed is part of the fingerprint (a rotary base, an epsilon, a soft-cap); where the model came from,
how it generates and on which device it is are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from headwater.core.errors import ModelError
from headwater.core.fingerprints import digest
from headwater.data.tokens import tokenizer_digest
from headwater.models.adapters import adapter_weights, without_adapter

_NOT_COMPUTED = frozenset(
    {"_name_or_path", "architectures", "dtype", "id2label", "label2id", "name_or_path", "problem_type"}
    | {"torch_dtype", "transformers_version", "use_cache", "finetuning_task", "task_specific_params", "return_dict"}
    | {"_attn_implementation", "_attn_implementation_autoset", "_experts_implementation", "auto_map", "tokenizer_class"}
    | {"bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "quantization_config"}
    | {"output_attentions", "output_hidden_states", "gradient_checkpointing", "initializer_range", "is_decoder"}
)
"""Fields of a configuration that change nothing about the losses of given tokens."""

SAMPLE = 4096
"""How many elements of a tensor enter the weights digest at most."""


def model_fingerprint(model: Any, tokenizer: Any, adapter: str | None) -> dict[str, Any]:
    """The JSON-ready fingerprint of a model, its tokenizer and its adapter.

    Args:
        model: a `transformers` model, or a PEFT model around one (then its adapter's weights enter the digest too).
        tokenizer: its fast tokenizer.
        adapter: folder or hub name of its adapter, merged or kept; its weights enter the fingerprint, not its name.

    Returns:
        `architecture` (class name), `configuration` (digest), `parameters` (count, tied ones once), `dtype`, `weights`
        (digest), `adapter` (digest or None) and `tokenizer` (digest).

    Raises:
        ModelError: a parameter is offloaded, so it cannot be read.
    """
    inner = without_adapter(model)
    return {
        "architecture": type(inner).__name__,
        "configuration": digest(_computing(inner.config.to_dict())),
        "parameters": parameter_count(model.parameters()),
        "dtype": str(inner.dtype).removeprefix("torch."),
        "weights": weights_digest(dict(model.named_parameters())),
        "adapter": None if adapter is None else weights_digest(adapter_weights(adapter)),
        "tokenizer": tokenizer_digest(tokenizer),
    }


def _computing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that change what is computed, at every depth; those of generation are left out with them."""
    kept = {}
    for name, value in config.items():
        if name not in _NOT_COMPUTED and not name.startswith("_"):
            kept[name] = _computing(value) if isinstance(value, Mapping) else value
    return kept


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, shapes, dtypes and sampled elements; independent of the device and of the mapping's order."""
    parts: list[str | bytes] = []
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.is_meta:
            remedy = "load the model whole: on one device, on more devices, or in a smaller dtype"
            raise ModelError("the weights are offloaded, so they cannot be read", where=name, remedy=remedy)
        parts += [f"{name} {tuple(tensor.shape)} {tensor.dtype}", _sample(tensor)]
    return digest(*parts)


def parameter_count(parameters: Iterable[Tensor]) -> int:
    """How many numbers the parameters hold; for a packed 4-bit tensor, the numbers it encodes."""
    count = 0
    for parameter in parameters:
        packed = getattr(parameter, "quant_state", None)
        count += parameter.numel() if packed is None else math.prod(packed.shape)
    return count


def _sample(tensor: Tensor) -> bytes:
    flat = tensor.detach().reshape(-1)
    stride = max(1, -(-flat.numel() // SAMPLE))
    sample = flat[::stride].to("cpu").contiguous()
    return sample.view(torch.uint8).numpy().tobytes()
