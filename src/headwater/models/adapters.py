"""PEFT adapters: put one on a model, whole or not at all.

PEFT itself drops tensors of the adapter that find no place in the model and leaves random what the file lacks; both
are refused here, because attribution would then describe a model that nobody trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from headwater.core.errors import ModelError
from headwater.models.places import brief

_REMEDY = "load the adapter on the base model it was trained on"


def with_adapter(model: Any, adapter: str, *, merge: bool) -> Any:
    """`model` with the adapter around it, or with it merged into the weights; the adapter takes the model's dtype.

    Raises:
        ModelError: no adapter there, or one that does not fit, naming the modules or shapes.
    """
    from peft import PeftModel

    if Path(adapter).exists() and not (Path(adapter) / "adapter_config.json").is_file():
        remedy = "name the folder that PEFT's save_pretrained wrote"
        raise ModelError("no adapter_config.json in the adapter folder", where=adapter, remedy=remedy)
    try:
        wrapped = PeftModel.from_pretrained(model, adapter, is_trainable=False, autocast_adapter_dtype=False)
    except Exception as error:  # PEFT raises whatever its many tuners raise; all of it means the same to the user
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
            shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise ModelError(f"{len(names)} adapter tensors {fault}: {shown}", where=adapter, remedy=_REMEDY)
