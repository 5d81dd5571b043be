"""A causal language model with its tokenizer, loaded once and frozen."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from headwater.core.errors import HeadwaterError, ModelError, UsageError, first_few, unknown_name
from headwater.models.adapters import brief, model_place, unreachable, with_adapter, without_adapter
from headwater.models.fingerprint import model_fingerprint
from headwater.models.quantisers import ask_for_plain_weights, quantise_with, require_bits, stored_with
from headwater.models.stored import is_old_buffer, require_no_prefix, require_scales
from headwater.models.tokenizer import own_tokenizer, with_pad

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
        loading: the arguments of `load_model` other than name, device, device map and compile; they load it again.
        compiled: methods that read forward passes alone are to run the model up to its head through `torch.compile`.
    """

    name: str
    model: Any
    tokenizer: Any
    adapter: str | None
    device: torch.device
    fingerprint: Mapping[str, Any]
    loading: Mapping[str, Any] = field(default_factory=dict)
    compiled: bool = False

    @property
    def weightless(self) -> bool:
        """Whether the model has shapes alone and no weights, as `headwater.models.weightless` makes it."""
        return all(parameter.is_meta for parameter in self.model.parameters())


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
    trust_remote_code: bool = False,
    compile: bool = False,
) -> LoadedModel:
    """A Hugging Face causal language model from a local folder or by its hub name.

    A checkpoint whose weights are stored with scales is read by the quantiser that its configuration names. Of a
    vision-language checkpoint the whole model is loaded, and reads text alone.

    Args:
        name: folder, or hub name (with HF_HUB_OFFLINE set: only what the local cache holds).
        adapter: PEFT adapter folder or hub name.
        merge: fold the adapter into the weights; otherwise it is kept around the model.
        dtype: one of `DTYPES`.
        device: `auto` is the first CUDA device if there is one, else the CPU; or a PyTorch device name.
        device_map: spread a model too large for one device, as `accelerate` understands it, instead of `device`.
        tokenizer: folder or hub name of a tokenizer; None for the adapter's own if it has one, else the model's.
        revision: branch, tag or commit on the hub.
        quantization: `4bit` or `8bit`, through bitsandbytes; None loads the weights as they are.
        trust_remote_code: run Python code that the checkpoint or tokenizer brings; without it such a one is refused.
        compile: run forward passes through `torch.compile`, for methods that need no gradients; like another device, it
            changes the last digits of vectors.

    Raises:
        ModelError: the model, tokenizer or adapter is missing or incomplete, or does not fit; a checkpoint holds
            weights that the model has no place for, or needs a package that is missing; nothing is guessed.
        UsageError: an unknown dtype or quantization, both a device and a device map, or `compile` beside a device map
            or quantization.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES, where=name)
    if quantization is not None:
        require_bits(quantization)
    if merge and adapter is None:
        raise UsageError("there is no adapter to merge", where="--merge", remedy="give --adapter, or leave it out")
    if revision is not None and Path(name).is_dir():
        what = f"a local folder has no revisions, so '{revision}' would do nothing"
        raise UsageError(what, where=f"--revision, {name}", remedy="leave it out")
    if compile and (device_map is not None or quantization is not None):
        what = f"a model {'spread by a device map' if device_map is not None else 'in codes'} is not compiled here"
        raise UsageError(what, where="--compile", remedy="leave it out")
    place, target = model_place(name), _device(device, device_map)
    settings = {
        "dtype": "auto" if dtype == "auto" else getattr(torch, dtype),
        "device_map": {"": target} if device_map is None else device_map,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
    }
    model = _pretrained(place, settings, quantization, dtype)
    if adapter is not None:
        model = with_adapter(model, adapter, merge=merge)
    trust = {"trust_remote_code": trust_remote_code}
    read = own_tokenizer(place, adapter=adapter, chosen=tokenizer, revision=revision, **trust)
    loading = {
        **{"adapter": adapter, "merge": merge, "dtype": dtype, "tokenizer": tokenizer},
        **{"revision": revision, "quantization": quantization, **trust},
    }
    return dataclasses.replace(_frozen(model, read, name, adapter), loading=loading, compiled=compile)


def require_plain(loaded: LoadedModel, what: str) -> None:
    """Raise `UsageError` if the model is to be compiled, since `what` looks at its modules while it runs."""
    if loaded.compiled:
        fault = f"{what} watches or changes the model's modules, which a compiled model does not show"
        raise UsageError(fault, where="--compile", remedy="leave it out, or take a method such as rise")


def wrap_model(model: Any, tokenizer: Any, name: str = "in-memory") -> LoadedModel:
    """A model already in memory, frozen **in place**: eval mode, no gradients, no key-value cache by default."""
    return _frozen(model, tokenizer, name, None)


def _frozen(model: Any, tokenizer: Any, name: str, adapter: str | None) -> LoadedModel:
    model.eval().requires_grad_(False)
    model.config.get_text_config().use_cache = False
    if model.dtype == torch.float64:  # the fused kernels of mixtures of experts do not support float64
        without_adapter(model).set_experts_implementation("eager")
    embedding = model.get_input_embeddings()
    tokenizer = with_pad(tokenizer, embedding.weight.shape[0], name)
    fingerprint = model_fingerprint(model, tokenizer, adapter)
    return LoadedModel(name, model, tokenizer, adapter, embedding.weight.device, fingerprint)


def _pretrained(name: str, settings: Mapping[str, Any], quantization: str | None, dtype: str) -> Any:
    """The model; raises `ModelError` if the checkpoint lacks a weight, or holds one that the model has no place for."""
    from transformers import AutoConfig

    hub = {key: settings[key] for key in ("revision", "trust_remote_code")}
    try:
        config = AutoConfig.from_pretrained(name, **hub)
        if config.is_encoder_decoder:
            raise ModelError("an encoder-decoder is not a causal language model", where=name, remedy=_KIND)
        ask_for_plain_weights(config, where=name)
        if quantization is not None:
            settings = {**settings, "quantization_config": quantise_with(quantization, dtype, config, where=name)}
        model, info = _first_whole(name, config, settings)
        _require_all(info, config, name)
        require_scales(model, config, name, settings["revision"])
    except HeadwaterError:
        raise
    except ImportError as error:
        remedy = "install what is named, then run the same command again"
        raise ModelError(f"the model cannot be read here: {brief(error)}", where=name, remedy=remedy) from error
    except Exception as error:  # the hub, files and configurations fail with many classes of error
        raise unreachable("model", name, error) from error
    return _in_one_dtype(model, settings["dtype"]) if stored_with(config) else model


def _in_one_dtype(model: Any, dtype: Any) -> Any:
    """The model in the dtype asked for; weights that were turned back may have the dtype of their scales."""
    if getattr(model, "is_quantized", False):  # still in codes
        return model
    return model.to(model.get_input_embeddings().weight.dtype if dtype == "auto" else dtype)


def _require_all(info: Mapping[str, Any], config: Any, name: str) -> None:
    """Refuse a checkpoint that does not hold the model's weights and these alone.

    What the model's class declares to be ignored, such as old buffers, is not among them; nor are the layers after the
    last one that predict further tokens, which the configuration counts.
    """
    text = config.get_text_config()
    first, more = getattr(text, "num_hidden_layers", 0), getattr(text, "num_nextn_predict_layers", 0) or 0
    further = tuple(f"model.layers.{layer}." for layer in range(first, first + more))
    missing = sorted(info["missing_keys"])
    unexpected = sorted(
        key for key in info["unexpected_keys"] if not key.startswith(further) and not is_old_buffer(key)
    )
    require_no_prefix(missing, unexpected, name)
    faults = [f"lacks {len(missing)} weights: {first_few(missing)}"] if missing else []
    if unexpected:
        faults.append(f"holds {len(unexpected)} tensors that the model has no place for: {first_few(unexpected)}")
    if faults:
        scales = "scales and codes need their quantization_config in config.json"
        remedy = _KIND if missing else "to leave tensors out, save the model without them"
        what = f"the checkpoint {'; it '.join(faults)}"
        raise ModelError(what, where=name, remedy=f"{remedy}; {scales}" if unexpected else remedy)


def _first_whole(name: str, config: Any, settings: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """The model and what was missing: a text model, or one that sees images too if only that uses all of the file."""
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    sees = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    kinds = [AutoModelForImageTextToText] if sees else []
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or not sees:
        kinds.insert(0, AutoModelForCausalLM)
    for kind in kinds:
        model, info = kind.from_pretrained(name, config=config, output_loading_info=True, **settings)
        if not info["unexpected_keys"]:
            break
    if sees:
        _log.warning("%s also sees images; headwater reads the text of rows alone with it", name)
    return model, info


_KIND = "give a whole causal language model: with its head, not an encoder or a classifier"

_log = logging.getLogger(__name__)


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
