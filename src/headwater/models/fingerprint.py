"""A model's fingerprint: its architecture, code, weights, adapter and tokenizer, as short digests.

Every number of every tensor enters the digest `contents`: each 8 bytes are multiplied by an odd number of their own and
summed, on the device where the tensor is, so that a change of any one of them is seen and nothing is copied. `weights`
reads a sample, and is kept because older indexes have no `contents`. Of the configuration, as it was resolved, every
field that can change what is computed is part of the fingerprint (a rotary base, an epsilon, a soft-cap); where the
model came from, how it generates and on which device it is are not.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
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
        `architecture` (class name), `code` (digest of the Python code that the checkpoint brought, or None),
        `configuration` (digest), `parameters` (count, tied ones once), `dtype`, `weights` (digest of a sample),
        `contents` (digest of all tensors), `adapter` (digest or None) and `tokenizer` (digest).

    Raises:
        ModelError: a parameter is offloaded, so it cannot be read.
    """
    inner = without_adapter(model)
    return {
        "architecture": type(inner).__name__,
        "code": _own_code(type(inner)),
        "configuration": digest(_computing(inner.config.to_dict())),
        "parameters": parameter_count(model.parameters()),
        "dtype": str(inner.dtype).removeprefix("torch."),
        "weights": weights_digest(dict(model.named_parameters())),
        "contents": contents_digest(model.state_dict()),
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


def contents_digest(tensors: Mapping[str, Any]) -> str:
    """Digest of names, shapes, dtypes and all elements; independent of the device and of the mapping's order."""
    parts: list[str | bytes] = []
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, Tensor):
            parts += [f"{name} {tuple(tensor.shape)} {tensor.dtype}", _sums(tensor)]
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


def _sums(tensor: Tensor) -> bytes:
    """Keyed sums, modulo 2^64, of the tensor's bytes: one of each part of `_WORDS` words of 8 bytes."""
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    raw = raw.clone() if raw.storage_offset() % 8 else raw
    whole, keys = len(raw) // 8 * 8, _keys(raw.device)
    rest = torch.nn.functional.pad(raw[whole:], (0, -(len(raw) - whole) % 8))
    parts = [part for words in (raw[:whole], rest) for part in words.view(torch.int64).split(_WORDS)]
    sums = [(part * keys[: len(part)]).sum() for part in parts]
    return torch.stack(sums).cpu().numpy().tobytes()


_WORDS = 2**20


@lru_cache(maxsize=2)
def _keys(device: torch.device) -> Tensor:
    """An odd number for each place of a part; multiplying by an odd number loses nothing modulo 2^64."""
    mixed = torch.arange(1, _WORDS + 1, dtype=torch.int64, device=device) * -0x61C8864680B583EB
    mixed = (mixed ^ (mixed >> 29)) * 0x3F58476D1CE4E5B9
    return (mixed ^ (mixed >> 32)) | 1


def _own_code(kind: type) -> str | None:
    """Digest of the Python files beside a class that a checkpoint brought; None for a class of an installed package."""
    module = sys.modules.get(kind.__module__)
    if not kind.__module__.startswith("transformers_modules") or module is None or module.__file__ is None:
        return None
    files = sorted(Path(module.__file__).parent.glob("*.py"))
    return digest(*(part for file in files for part in (file.name, file.read_bytes())))
