"""PEFT adapters: put one on a model, and refuse one that does not fit it exactly.

PEFT itself drops adapter tensors that match no module of the model, and leaves tensors that the file lacks at random
values. Both are errors here, because scores would then describe a model that nobody trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from headwater.core.errors import ModelError, first_few
from headwater.models.places import brief

_REMEDY = "load the adapter on the base model it was trained on"


def with_adapter(model: Any, adapter: str, *, merge: bool) -> Any:
    """`model` with the adapter around it, or with it merged into the weights; the adapter takes the model's dtype.

    Raises:
        ModelError: there is no adapter, or it does not fit; names the modules or shapes.
    """
    from peft import PeftModel

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
