"""A model without weights: shapes alone, from the configuration, to plan for models that do not fit here."""

from __future__ import annotations

from typing import Any

import torch

from headwater.core.errors import HeadwaterError, ModelError, unknown_name
from headwater.models.adapters import model_place, unreachable
from headwater.models.fingerprint import parameter_count
from headwater.models.load import DTYPES, LoadedModel
from headwater.models.tokenizer import own_tokenizer, with_pad


def shapes_of_model(
    name: str,
    *,
    dtype: str = "float32",
    tokenizer: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """The model on PyTorch's meta device, which holds no numbers. Arguments as in `load_model`.

    Raises:
        ModelError: there is no configuration of a causal language model, or no tokenizer.
        UsageError: an unknown dtype.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES, where=name)
    hub: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        place = model_place(name)
        config = AutoConfig.from_pretrained(place, **hub)
        if config.is_encoder_decoder:
            raise ModelError("an encoder-decoder is not a causal language model", where=name)
        kind = getattr(torch, dtype) if dtype != "auto" else config.dtype or torch.float32
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=kind, trust_remote_code=trust_remote_code)
    except HeadwaterError:
        raise
    except Exception as error:  # configurations fail with many classes of error
        raise unreachable("configuration", name, error) from error
    model.eval().requires_grad_(False)
    model.config.get_text_config().use_cache = False
    read = own_tokenizer(place, adapter=None, chosen=tokenizer, **hub)
    read = with_pad(read, model.get_input_embeddings().weight.shape[0], name)
    facts: dict[str, Any] = {"architecture": type(model).__name__, "parameters": parameter_count(model.parameters())}
    loading = {"adapter": None, "merge": False, "dtype": dtype, "tokenizer": tokenizer, "quantization": None, **hub}
    return LoadedModel(name, model, read, None, torch.device("meta"), facts, loading)
