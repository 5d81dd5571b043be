"""Checkpoints whose weights are stored with scales (FP8, INT8, 4 bits): the checkpoint's own quantiser reads them.

A stored number is then not a weight: only together with its scale it is one. So the quantiser that the checkpoint's
configuration names always runs, and where it can turn the weights back into plain numbers, it is asked to, because
gradients are read of plain layers.
"""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any

from headwater.core.errors import ModelError, UsageError, unknown_name

BITS = ("4bit", "8bit")
"""How bitsandbytes can quantise full weights while they are loaded."""


def stored_with(config: Any) -> str | None:
    """The name of the quantisation that the checkpoint of a configuration is stored with; None for plain weights."""
    how = _how(config)
    return None if how is None else str(how.get("quant_method") or "bitsandbytes")


def ask_for_plain_weights(config: Any, *, where: str) -> None:
    """Make the quantiser of the checkpoint, if it has one, give plain weights where it can; changes `config`.

    Raises:
        ModelError: the installed transformers has no quantiser of that name, so that scales would be left out.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as KNOWN

    how, method = _how(config), stored_with(config)
    if how is None or method is None:
        return
    kinds = [KNOWN[name] for name in KNOWN if name.removesuffix("_4bit").removesuffix("_8bit") == method]
    if not kinds:
        remedy = "upgrade transformers, or give a checkpoint with plain weights"
        raise ModelError(f"weights stored with '{method}', which no quantiser here reads", where=where, remedy=remedy)
    if "dequantize" in inspect.signature(kinds[0].__init__).parameters:
        how["dequantize"] = True


def quantise_with(bits: str, dtype: str, config: Any, *, where: str) -> Any:
    """The settings with which `transformers` quantises plain weights while it loads them.

    Args:
        bits: one of `BITS`.
        dtype: the name of the dtype to compute in; `auto` is bfloat16.
        config: the model's configuration.
        where: the model's name, for messages.

    Raises:
        UsageError: another word than those of `BITS`, or a checkpoint that is quantised already.
        ModelError: bitsandbytes is not installed.
    """
    import torch
    from transformers import BitsAndBytesConfig

    require_bits(bits)
    if (method := stored_with(config)) is not None:
        what = f"the checkpoint is quantised already, with {method}"
        raise UsageError(what, where=where, remedy="leave --quantization out")
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=compute)


def require_bits(bits: str) -> None:
    """Check a word for the quantisation, and that bitsandbytes is installed, before anything is loaded."""
    if bits not in BITS:
        raise unknown_name("quantization", bits, BITS)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"quantization '{bits}' needs bitsandbytes", remedy="pip install bitsandbytes")


def _how(config: Any) -> dict[str, Any] | None:
    """The checkpoint's quantisation settings, which stand in its configuration or in that of its text model."""
    for part in (config, config.get_text_config(decoder=True)):
        how = getattr(part, "quantization_config", None)
        if how:
            return how if isinstance(how, dict) else dict(how.to_dict())
    return None
