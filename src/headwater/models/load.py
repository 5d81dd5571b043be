"""A causal language model with its tokenizer, loaded once and frozen."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from headwater.core.errors import ModelError, UsageError, first_few, unknown_name
from headwater.models.adapters import brief, model_place, unreachable, with_adapter, without_adapter
from headwater.models.fingerprint import model_fingerprint

DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")
"""The dtypes a model can be loaded in; `auto` keeps the one it was saved in."""


@dataclass(frozen=True)
class LoadedModel:
    """A frozen model: in eval mode, and no parameter requires a gradient.

    Attributes:
        name: local folder or hub name, as given.
        model: the `transformers` (or PEFT) causal language model.
        tokenizer: its fast tokenizer, with a pad token.
        adapter: folder or hub name of the PEFT adapter, if one was loaded.
        device: the device that inputs must be on.
        fingerprint: architecture, dtype, weights digest, adapter, tokenizer digest; JSON-ready.
        loading: the arguments of `load_model` other than name, device and device map; they load the model again.
    """

    name: str
    model: Any
    tokenizer: Any
    adapter: str | None
    device: torch.device
    fingerprint: Mapping[str, Any]
    loading: Mapping[str, Any] = field(default_factory=dict)


def load_model(
    name: str,
    *,
    adapter: str | None = None,
    merge: bool = False,
    dtype: str = "float32",
    device: str = "auto",
    device_map: str | Mapping[str, Any] | None = None,
    tokenizer: str | None = None,
    revision: str | None = None,
    quantization: str | None = None,
) -> LoadedModel:
    """A Hugging Face causal language model from a local folder or by its hub name.

    Args:
        name: folder, or hub name (with HF_HUB_OFFLINE set: only what the local cache holds).
        adapter: PEFT adapter folder or hub name.
        merge: fold the adapter into the weights; otherwise it is kept around the model.
        dtype: one of `DTYPES`.
        device: `auto` is the first CUDA device if there is one, else the CPU; or a PyTorch device name.
        device_map: spread a model too large for one device, as `accelerate` understands it, instead of `device`.
        tokenizer: folder or hub name of a tokenizer to use instead of the model's own.
        revision: branch, tag or commit on the hub.
        quantization: `4bit` or `8bit`, through bitsandbytes; None loads the weights as they are.

    Raises:
        ModelError: the model, tokenizer or adapter is missing or incomplete, or does not fit; nothing is guessed.
        UsageError: an unknown dtype or quantization, or both a device and a device map.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES, where=name)
    place = model_place(name)
    target = _device(device, device_map)
    settings = {
        "dtype": "auto" if dtype == "auto" else getattr(torch, dtype),
        "device_map": {"": target} if device_map is None else device_map,
        "quantization_config": _quantization(quantization, dtype),
        "revision": revision,
    }
    model = _pretrained(place, settings)
    if adapter is not None:
        model = with_adapter(model, adapter, merge=merge)
    loading = {
        **{"adapter": adapter, "merge": merge, "dtype": dtype},
        **{"tokenizer": tokenizer, "revision": revision, "quantization": quantization},
    }
    read = _tokenizer(tokenizer or place, None if tokenizer else revision)
    return dataclasses.replace(_frozen(model, read, name, adapter), loading=loading)


def wrap_model(model: Any, tokenizer: Any, name: str = "in-memory") -> LoadedModel:
    """A model already in memory, frozen **in place**: eval mode, no gradients, no key-value cache by default."""
    return _frozen(model, tokenizer, name, None)


def _frozen(model: Any, tokenizer: Any, name: str, adapter: str | None) -> LoadedModel:
    model.eval().requires_grad_(False)
    model.config.get_text_config().use_cache = False
    if model.dtype == torch.float64:  # the fused kernels of mixtures of experts do not support float64
        without_adapter(model).set_experts_implementation("eager")
    embedding = model.get_input_embeddings()
    tokenizer = _with_pad(tokenizer, embedding.weight.shape[0], name)
    fingerprint = model_fingerprint(model, tokenizer, adapter)
    return LoadedModel(name, model, tokenizer, adapter, embedding.weight.device, fingerprint)


def _pretrained(name: str, settings: Mapping[str, Any]) -> Any:
    """The model; raises `ModelError` if the checkpoint lacks a weight."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(name, revision=settings["revision"])
        if config.is_encoder_decoder:
            raise ModelError("an encoder-decoder is not a causal language model", where=name, remedy=_KIND)
        model, info = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **settings)
    except ModelError:
        raise
    except Exception as error:  # the hub, files and configurations fail with many classes of error
        raise unreachable("model", name, error) from error
    missing = sorted(info["missing_keys"])
    if missing:
        what = f"the checkpoint lacks {len(missing)} weights: {first_few(missing)}"
        raise ModelError(what, where=name, remedy=_KIND)
    return model


_KIND = "give a whole causal language model: with its head, not an encoder or a classifier"


def _tokenizer(name: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, revision=revision)
    except Exception as error:  # as for the model
        raise unreachable("tokenizer", name, error) from error


def _with_pad(tokenizer: Any, rows: int, name: str) -> Any:
    """The tokenizer, or a copy whose pad token the model can embed: its end token, its start token, or the first token.

    Padding is masked everywhere, so the choice changes no result. Added tokens beyond the embedding's `rows` are
    allowed (published models have unused ones), but a larger vocabulary belongs to another model and is an error.
    """
    if not tokenizer.is_fast:
        remedy = "use a tokenizer with a tokenizer.json; character offsets of tokens are read from it"
        raise ModelError("the tokenizer is not a fast one", where=name, remedy=remedy)
    if tokenizer.vocab_size > rows:
        what = f"the tokenizer has {tokenizer.vocab_size} tokens, the model embeds {rows}"
        raise ModelError(what, where=name, remedy="name the tokenizer the model was trained with")
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id < rows:
        return tokenizer
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.convert_ids_to_tokens(0)
    return padded


def _device(device: str, device_map: str | Mapping[str, Any] | None) -> torch.device:
    if device_map is not None and device != "auto":
        what = f"device '{device}' beside device_map '{device_map}'"
        raise UsageError(what, where="model loading", remedy="give one of them")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        what = f"device '{device}' is not here: {brief(error)}"
        raise ModelError(what, where="model loading", remedy="use cpu, or auto") from error
    return chosen


def _quantization(bits: str | None, dtype: str) -> Any:
    if bits is None:
        return None
    if bits not in ("4bit", "8bit"):
        raise unknown_name("quantization", bits, ("4bit", "8bit"))
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"quantization '{bits}' needs bitsandbytes", remedy="pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=compute)
