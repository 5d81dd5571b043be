"""What a checkpoint's files hold, before and beside what the model makes of it: old buffers, prefixes, and codes.

Numbers of 8 bits are codes, which stand for weights only together with their scales. `transformers` takes codes
without scales for weights without a word, so the dtypes in the files are read here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headwater.core.errors import ModelError, first_few
from headwater.models.quantisers import stored_with

_CODES = re.compile(r"F8_.*|[UI](8|16|32|64)|float8_.*|u?int(8|16|32|64)")
_EIGHT = re.compile(r"F8_.*|[UI]8|float8_.*|u?int8")
_SCALES = re.compile(r"(_scales?(_.*)?|\.(scales?(_inv)?|SCB|absmax|quant_state.*))$")
_WEIGHT = re.compile(r"(\.weight|_proj|_blocks|_packed)$")
_WEIGHT_PACKING = re.compile(r"_(blocks|packed)$")
_OLD_BUFFERS = re.compile(r"(.*\.)?(attn|attention)\.masked_bias")
_PREFIXES = {
    "_orig_mod.": ("torch.compile", "model._orig_mod.save_pretrained(FOLDER)"),
    "base_model.model.": ("PEFT", "model.merge_and_unload().save_pretrained(FOLDER)"),
    "_fsdp_wrapped_module.": ("FSDP", "trainer.save_model(FOLDER), with the full state dict"),
    "_checkpoint_wrapped_module.": ("activation checkpointing", "model.save_pretrained(FOLDER) before it is wrapped"),
    "module.": ("DistributedDataParallel", "model.module.save_pretrained(FOLDER)"),
}
"""What wrappers of a model put before the names of its weights: who does, and how to save the model without it."""


def is_old_buffer(key: str) -> bool:
    """Whether a tensor is the constant that old versions masked attention with, and which nothing reads now."""
    return _OLD_BUFFERS.fullmatch(key) is not None


def require_no_prefix(missing: Iterable[str], unexpected: Iterable[str], where: str) -> None:
    """Refuse a checkpoint whose weights are all there, with a wrapper's prefix before their names.

    Raises:
        ModelError: as said; names the prefix, and how to save the model without it.
    """
    lacking = set(missing)
    for key in unexpected:
        for prefix, (wrapper, how) in _PREFIXES.items():
            if prefix in key and lacking & {key.replace(prefix, ""), f"model.{key.replace(prefix, '')}"}:
                what = f"the names of its weights hold '{prefix}', which {wrapper} puts there ({key})"
                raise ModelError(what, where=where, remedy=f"save the model without it: {how}")


def require_scales(model: Any, config: Any, name: str, revision: str | None) -> None:
    """Refuse a checkpoint in which numbers that need scales have none.

    Raises:
        ModelError: the configuration names no quantisation, and codes are in the place of weights; or it names one,
            and weights of 8 bits lack their scales.
    """
    stored = _dtypes(name, revision)
    method = stored_with(config)
    if method is None:
        if str(config.get_text_config().dtype).startswith("torch.float8"):
            return  # the model's own numbers, not codes
        floats = {key for key, value in model.state_dict().items() if value.is_floating_point() and value.itemsize > 1}
        codes = [key for key, dtype in sorted(stored.items()) if _CODES.fullmatch(dtype) and _is_weight(key, floats)]
        if codes:
            what = f"{len(codes)} weights are stored as codes ({stored[codes[0]]}), and no scales: {first_few(codes)}"
            remedy = "give the quantization_config that belongs to them in config.json, or plain weights"
            raise ModelError(what, where=name, remedy=remedy)
        return
    if bare := _bare(stored):
        what = f"the checkpoint lacks the scales of {len(bare)} weights stored with {method}: {first_few(bare)}"
        raise ModelError(what, where=name, remedy="give the whole checkpoint, with the scales of all weights")


def _is_weight(key: str, floats: set[str]) -> bool:
    return key in floats or f"model.{key}" in floats or key.endswith(".weight")


def _bare(stored: Mapping[str, str]) -> list[str]:
    """The weights of 8 bits whose scales are not beside them, whatever the quantiser calls these."""
    scaled = {_owner(key) for key in stored}
    eight = [key for key, dtype in sorted(stored.items()) if _EIGHT.fullmatch(dtype) and _owner(key) is None]
    return [key for key in eight if _WEIGHT.search(key) and _WEIGHT_PACKING.sub("", key) not in scaled]


def _owner(key: str) -> str | None:
    """The weight that a tensor has the scales of; None if it holds no scales."""
    found = _SCALES.sub("", key)
    if found == key:
        return None
    beside = key[len(found)] == "." and not found.endswith(".weight")  # of the module's weight
    return f"{found}.weight" if beside else found


def _dtypes(name: str, revision: str | None) -> dict[str, str]:
    """The dtype of each tensor in the files that `transformers` reads, as the files name it."""
    for whole in ("model.safetensors", "pytorch_model.bin"):
        files = [whole] if _file(name, whole, revision) else _shards(name, f"{whole}.index.json", revision)
        if files:
            return {key: dtype for file in files for key, dtype in _in_file(_file(name, file, revision))}
    return {}


def _shards(name: str, index: str, revision: str | None) -> list[str]:
    found = _file(name, index, revision)
    return [] if found is None else sorted(set(json.loads(found.read_text())["weight_map"].values()))


def _in_file(file: Path | None) -> list[tuple[str, str]]:
    if file is None:
        return []
    if file.suffix == ".safetensors":
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        return [(key, entry["dtype"]) for key, entry in header.items() if key != "__metadata__"]
    import torch

    tensors = torch.load(file, map_location="meta", weights_only=True)
    return [(key, str(value.dtype).removeprefix("torch.")) for key, value in tensors.items()]


_IF_ANY = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}


def _file(name: str, file: str, revision: str | None) -> Path | None:
    from transformers.utils import cached_file

    found = cached_file(name, file, revision=revision, **_IF_ANY)
    return None if found is None else Path(found)
