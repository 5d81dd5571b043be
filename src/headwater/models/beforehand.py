"""How a model will read rows, from its tokenizer and configuration alone: known before its weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from headwater.core.errors import HeadwaterError
from headwater.data.tokens import Tokenization
from headwater.models.adapters import model_place
from headwater.models.tokenizer import own_tokenizer


def tokenization_beforehand(name: str, loading: Mapping[str, Any], **reading: Any) -> Tokenization | None:
    """The tokenisation that rows will be read with; `load_model` then gives the same one, with the model.

    Args:
        name: folder or hub name of the model.
        loading: options of `load_model`.
        reading: arguments of `Tokenization.of`, but for the tokenizer.

    Returns:
        The tokenisation. Its vocabulary is that of the configuration, or None where an adapter may bring more tokens.
        None if the tokenizer or the configuration cannot be read, which `load_model` then says.
    """
    from transformers import AutoConfig

    given = {option: value for option, value in loading.items() if value is not None}
    adapter, revision, trust = given.get("adapter"), given.get("revision"), given.get("trust_remote_code", False)
    try:
        place = model_place(name)
        tokenizer = own_tokenizer(
            place,
            adapter=adapter,
            chosen=given.get("tokenizer"),
            revision=revision,
            trust_remote_code=trust,
            quiet=True,
        )
        config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=trust).get_text_config()
    except (HeadwaterError, OSError, ValueError, ImportError, KeyError, AttributeError):
        return None
    if not tokenizer.is_fast:
        return None
    vocabulary = None if adapter is not None else getattr(config, "vocab_size", None)
    return replace(Tokenization.of(tokenizer, **reading), vocabulary=vocabulary)
