"""Where a model and its adapter are, and PEFT adapters: put one on a model, and refuse one that does not fit exactly.

PEFT itself drops adapter tensors that match no module of the model, and leaves tensors that the file lacks at random
values. Both are errors here, because scores would then describe a model that nobody trained.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from torch import Tensor

from headwater.core.errors import ModelError, first_few
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

    if HF_HUB_OFFLINE and not Path(name).is_dir():
        what = f"no such folder, and HF_HUB_OFFLINE is set with no {kind} of this name in the local cache"
        remedy = f"give a local folder, or unset HF_HUB_OFFLINE once to download{near(name)}"
        return ModelError(what, where=name, remedy=remedy)
    remedy = f"check the name, or download first and give the folder{near(name)}"
    return ModelError(f"the {kind} cannot be loaded: {brief(error)}", where=name, remedy=remedy)


def near(name: str) -> str:
    """`; did you mean ...?` with the most similarly named model folder beside it, or an empty string."""
    wanted = Path(name).expanduser()
    if not wanted.parent.is_dir():
        return ""
    folders = {child.name: child for child in wanted.parent.iterdir() if (child / "config.json").is_file()}
    close = difflib.get_close_matches(wanted.name, folders.keys() - {wanted.name}, n=1, cutoff=0.5)
    return f"; did you mean '{folders[close[0]]}'?" if close else ""


def brief(error: Exception, lines: int = 1) -> str:
    """The first lines of a library's error message, which may list every layer of a model."""
    message = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(message[:lines])[:400] or type(error).__name__


_REMEDY = "load the adapter on the base model it was trained on"


def with_adapter(model: Any, adapter: str, *, merge: bool) -> Any:
    """`model` with the adapter around it, or with it merged into the weights; the adapter takes the model's dtype.

    Raises:
        ModelError: there is no adapter, or it does not fit; names the modules or shapes.
    """
    from peft import PeftModel

    require_joined(adapter)
    if Path(adapter).exists() and not (Path(adapter) / "adapter_config.json").is_file():
        remedy = "name the folder that PEFT's save_pretrained wrote"
        raise ModelError("no adapter_config.json in the adapter folder", where=adapter, remedy=remedy)
    try:
        wrapped = PeftModel.from_pretrained(model, adapter, is_trainable=False, autocast_adapter_dtype=False)
    except Exception as error:  # PEFT's many tuners raise errors of many classes, which all mean this
        raise ModelError(f"the adapter does not fit: {brief(error, 3)}", where=adapter, remedy=_REMEDY) from error
    _require_whole(wrapped, adapter)
    return wrapped.merge_and_unload() if merge else wrapped


def without_adapter(model: Any) -> Any:
    """The `transformers` model inside a PEFT model (whose layers hold the adapter), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def adapter_weights(adapter: str) -> dict[str, Tensor]:
    """The tensors of a saved PEFT adapter, by their names in its file."""
    from peft import load_peft_weights

    weights: dict[str, Tensor] = load_peft_weights(adapter, device="cpu")
    return weights


def _require_whole(wrapped: Any, adapter: str) -> None:
    from peft import get_peft_model_state_dict

    saved = set(adapter_weights(adapter))
    placed = set(get_peft_model_state_dict(wrapped))
    for names, fault in ((saved - placed, "find no module in the model"), (placed - saved, "are not in the file")):
        if names:
            what = f"{len(names)} adapter tensors {fault}: {first_few(sorted(names))}"
            raise ModelError(what, where=adapter, remedy=_REMEDY)
