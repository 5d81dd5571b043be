"""Where a model and its adapter are, and PEFT adapters: put one on a model, and refuse one that does not fit exactly.

PEFT itself drops adapter tensors that match no module of the model, and leaves tensors that the file lacks at random
values. Both are errors here, because scores would then describe a model that nobody trained.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headwater.core.errors import ModelError, first_few, shortage
from headwater.models.shards import require_joined


def model_place(name: str) -> str:
    """The folder, or the hub name, that `name` means.

    Raises:
        ModelError: it cannot be a model. This is checked before any library or the network is used.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        require_joined(folder)
        if (folder / "config.json").is_file():
            return str(folder)
        if (folder / "adapter_config.json").is_file():
            remedy = "give the base model as the model and this folder as its adapter"
            raise ModelError("this folder holds an adapter, not a model", where=name, remedy=remedy)
        remedy = f"give the folder that save_pretrained wrote{near(name)}"
        raise ModelError("no config.json in the model folder", where=name, remedy=remedy)
    if folder.exists():
        raise ModelError("a file is not a model folder", where=name, remedy="give the folder that contains it")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError("no such model folder", where=name, remedy=f"check the path{near(name)}")
    return name


def unreachable(kind: str, name: str, error: Exception) -> ModelError:
    """The error for a model or tokenizer that the libraries could not load."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if (short := shortage(error)) is not None:
        return ModelError(short.what, where=name, remedy=short.remedy)
    if "trust_remote_code" in str(error):
        remedy = "read that code, then allow it with --trust-remote-code, in Python trust_remote_code=True"
        return ModelError(f"the {kind} brings its own Python code, which is not run unasked", where=name, remedy=remedy)
    if "ignore_mismatched_sizes" in str(error):
        remedy = "give the config.json that belongs to the weights; codes need their quantization_config in it"
        return ModelError("tensors have other shapes than config.json says", where=name, remedy=remedy)
    if HF_HUB_OFFLINE and not Path(name).is_dir():
        what = f"no such folder, and HF_HUB_OFFLINE is set with no {kind} of this name in the local cache"
        remedy = f"give a local folder, or unset HF_HUB_OFFLINE once to download{near(name)}"
        return ModelError(what, where=name, remedy=remedy)
    remedy = f"check the name, or download first and give the folder{near(name)}"
    if Path(name).is_dir():
        remedy = f"check the folder's files, or save the {kind} again{near(name)}"
    return ModelError(f"the {kind} cannot be loaded: {brief(error)}", where=name, remedy=remedy)


def near(name: str) -> str:
    """`; did you mean ...?` with the most similarly named model or adapter folder beside it, or an empty string."""
    wanted = Path(name).expanduser()
    if not wanted.parent.is_dir():
        return ""
    folders = {
        child.name: child
        for child in wanted.parent.iterdir()
        if any(map(Path.is_file, (child / "config.json", child / "adapter_config.json")))
    }
    close = difflib.get_close_matches(wanted.name, folders.keys() - {wanted.name}, n=1, cutoff=0.5)
    return f"; did you mean '{folders[close[0]]}'?" if close else ""


def brief(error: Exception, lines: int = 1) -> str:
    """The first lines of a library's error message, which may list every layer of a model."""
    if isinstance(error, KeyError):  # its message is the key alone
        return f"{error} is missing from its files"
    message = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(message[:lines])[:400] or type(error).__name__


_REMEDY = "load the adapter on the base model it was trained on"


def with_adapter(model: Any, adapter: str, *, merge: bool) -> Any:
    """`model` with the adapter around it, or with it merged into the weights; the adapter takes the model's dtype.

    An adapter that was trained with another vocabulary carries the rows of the embedding and of the head; the model's
    are then given that length first.

    Raises:
        ModelError: there is no adapter, or it does not fit; names the modules or shapes.
    """
    from peft import PeftModel

    require_joined(adapter)
    _require_there(adapter)
    if Path(adapter).exists() and not (Path(adapter) / "adapter_config.json").is_file():
        inside = sorted(str(file.parent) for file in Path(adapter).glob("*/adapter_config.json"))
        remedy = f"give {' or '.join(inside[:3])}" if inside else "name the folder that PEFT's save_pretrained wrote"
        raise ModelError("no adapter_config.json in the adapter folder", where=adapter, remedy=remedy)
    try:
        saved = adapter_weights(adapter)
        held = _give_vocabulary(model, saved, adapter)
        _require_same_base(model, adapter)
        wrapped = PeftModel.from_pretrained(model, adapter, is_trainable=False, autocast_adapter_dtype=False)
    except ModelError:
        raise
    except Exception as error:  # PEFT's many tuners raise errors of many classes, which all mean this
        raise ModelError(f"the adapter does not fit: {brief(error, 3)}", where=adapter, remedy=_REMEDY) from error
    _require_whole(wrapped, saved, adapter)
    table = wrapped.get_output_embeddings()
    if table is not None and len(table.weight) > held and not table.weight[held:].any():
        raise _lacks_rows(f"the head uses its base's rows beyond {held}", adapter)
    return _merged(wrapped, adapter) if merge else wrapped


def _require_there(adapter: str) -> None:
    """Raise `ModelError` for an adapter that is no folder and cannot be on the hub."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if Path(adapter).is_dir():
        return
    if Path(adapter).exists():
        raise ModelError("a file is not an adapter folder", where=adapter, remedy="give the folder that contains it")
    if adapter.startswith((".", "/", "~")) or adapter.count("/") > 1:
        raise ModelError("no such adapter folder", where=adapter, remedy=f"check the path{near(adapter)}")
    if HF_HUB_OFFLINE and not _cached(adapter):
        what = "no such folder, and HF_HUB_OFFLINE is set with no adapter of this name in the local cache"
        remedy = f"give a local folder, or unset HF_HUB_OFFLINE once to download{near(adapter)}"
        raise ModelError(what, where=adapter, remedy=remedy)


def _cached(adapter: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(adapter, "adapter_config.json"), str)
    except HFValidationError:  # not even a hub name
        return False


def _merged(wrapped: Any, adapter: str) -> Any:
    """The model with the adapter in its weights; raises `ModelError` for one that cannot be put there."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    remedy = "load it around the model, without --merge"
    layers = [
        module.base_layer
        for module in wrapped.modules()
        if isinstance(module, BaseTunerLayer)
        and not isinstance(module, TrainableTokensLayer)
        and hasattr(module, "base_layer")
    ]
    tables = [
        t for t in (_plain(wrapped.get_input_embeddings()), _plain(wrapped.get_output_embeddings())) if t is not None
    ]
    if len(tables) == 2 and tables[0].weight is tables[1].weight and any(layer in tables for layer in layers):
        what = "the adapter changes the embedding or the head, which share one table: merging would change both"
        raise ModelError(what, where=adapter, remedy=remedy)
    try:
        return wrapped.merge_and_unload()
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        kind = str(wrapped.active_peft_config.peft_type).rpartition(".")[2]
        what = f"an adapter of kind {kind} cannot be merged into the weights: {brief(error)}"
        raise ModelError(what, where=adapter, remedy=remedy) from error


def _give_vocabulary(model: Any, saved: Mapping[str, Tensor], adapter: str) -> int:
    """Lengthen (or shorten) the embedding and the head to the rows that the adapter carries; the length until then.

    Raises:
        ModelError: it carries the rows of one of them only, so that the other's would be random.
    """
    rows: dict[str, int | None] = {}
    held = 0
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        if table is not None:
            held = table.weight.shape[0]
            names = [
                where for where, module in model.named_modules() if getattr(module, "weight", None) is table.weight
            ]
            rows[names[0]] = next((count for name in names if (count := _carried_rows(saved, name))), None)
    wanted = {count for count in rows.values() if count is not None}
    if wanted <= {held}:
        return held
    if len(wanted) > 1 or None in rows.values():
        carried = ", ".join(f"{where}: {count or 'none'}" for where, count in rows.items())
        raise _lacks_rows(carried, adapter)
    model.resize_token_embeddings(wanted.pop(), mean_resizing=False)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        for value in () if table is None else table.parameters():
            value.data[held:] = 0  # the adapter's rows are used instead; random ones would change the fingerprint
    return held


def _lacks_rows(carried: str, adapter: str) -> ModelError:
    what = f"the adapter was trained with another vocabulary, and does not carry all rows of it ({carried})"
    remedy = "merge it into its base where it was trained, and give the merged model"
    return ModelError(what, where=adapter, remedy=remedy)


def _require_same_base(model: Any, adapter: str) -> None:
    """Refuse an adapter that was trained on a base which the saved one, `model`, does not become again.

    Some ways to begin a LoRA take a part out of the base's weights. PEFT takes it out again at loading where it is
    computed from the weights alone; a part that was drawn at random, or came from data, is not known any more.

    Raises:
        ModelError: such an adapter; or trained rows of tokens that the model has no rows for.
    """
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(adapter)
    begun = str(getattr(config, "init_lora_weights", "")).lower()
    if begun.startswith(("pissa_niter", "corda", "lora_ga")):
        what = f"the adapter began with init_lora_weights='{begun}', which changed its base in a way that is not saved"
        remedy = "where it was trained, save it with PEFT's path_initial_model_for_weight_conversion, as a plain LoRA"
        raise ModelError(what, where=adapter, remedy=remedy)
    chosen = getattr(config, "trainable_token_indices", None) or getattr(config, "token_indices", None) or []
    tokens = [token for part in (chosen.values() if isinstance(chosen, dict) else [chosen]) for token in part]
    rows = model.get_input_embeddings().weight.shape[0]
    if beyond := sorted(token for token in tokens if token >= rows):
        raise _lacks_rows(f"token {beyond[0]} is trained, the base has {rows} rows", adapter)


def _plain(table: Any) -> Any:
    """The base model's own embedding or head inside what PEFT put around it."""
    while table is not None and (inner := getattr(table, "base_layer", None)) is not None:
        table = inner
    return table


def _carried_rows(saved: Mapping[str, Tensor], where: str) -> int | None:
    """How many rows of the table at `where` the adapter carries; None if it carries no whole table."""
    wrapped = r"(\.(base_layer|modules_to_save|original_module|token_adapter))*"
    name = re.compile(rf"(.*\.)?{re.escape(where)}{wrapped}\.weight")
    return next((len(tensor) for key, tensor in saved.items() if name.fullmatch(key)), None)


def without_adapter(model: Any) -> Any:
    """The `transformers` model inside a PEFT model (whose layers hold the adapter), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trained_names(model: Any) -> set[str]:
    """Names of the parameters that PEFT trains with the active adapters of `model`: it is asked to mark them.

    Beside the adapter's own, these may be biases of the base model, whole modules, or rows of the embedding.
    """
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        found: set[str] = set()
        for before in (False, True):  # some adapters switch on what is trained, others switch off what is not
            if not found:
                model.requires_grad_(before)
                _mark_trained(model)
                found = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        return found
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(flags[name])


def _mark_trained(model: Any) -> None:
    tuner, active = model.base_model, list(model.active_adapters)
    mark = next((name for name in dir(tuner) if name.startswith("_mark_only_adap")), None)
    if mark is None:  # learned prompts, which are no part of the model inside
        for name in active:
            encoder = model.prompt_encoder[name]
            getattr(encoder, "delta_embedding", encoder).requires_grad_(True)  # changes of a table that stays as it is
    else:
        getattr(tuner, mark)(tuner.model)
        tuner.set_adapter(active if len(active) > 1 else active[0])


def adapter_weights(adapter: str) -> dict[str, Tensor]:
    """The tensors of a saved PEFT adapter, by their names in its file."""
    from peft import load_peft_weights

    weights: dict[str, Tensor] = load_peft_weights(adapter, device="cpu")
    return weights


def _require_whole(wrapped: Any, saved: Mapping[str, Tensor], adapter: str) -> None:
    from peft import get_peft_model_state_dict

    placed = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    own = f".{wrapped.active_adapter}"
    held = {name.replace(f"{own}.", ".").removesuffix(own): tensor for name, tensor in wrapped.state_dict().items()}
    unplaced = [name for name in saved if name not in placed and not _equal(held.get(name), saved[name])]
    for names, fault in ((unplaced, "find no module in the model"), (placed - set(saved), "are not in the file")):
        if names:
            what = f"{len(names)} adapter tensors {fault}: {first_few(sorted(names))}"
            raise ModelError(what, where=adapter, remedy=_REMEDY)


def _equal(held: Tensor | None, value: Tensor) -> bool:
    """Whether the model holds this value: PEFT may also save whole tables, under the model's own names."""
    return held is not None and held.shape == value.shape and torch.equal(held.cpu(), value.to(held.dtype))
