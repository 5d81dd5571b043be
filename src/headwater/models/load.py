"""A causal language model with its tokenizer, loaded once and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to read from: eval mode, no parameter requires a gradient.

    Attributes:
        name: local folder or hub name, as given.
        model: the `transformers` (or PEFT) causal language model.
        tokenizer: its fast tokenizer, with a pad token.
        adapter: PEFT adapter folder, if one was loaded.
        device: where inputs go.
        fingerprint: architecture, dtype, weights digest, adapter, tokenizer digest; JSON-ready.
    """

    name: str
    model: Any
    tokenizer: Any
    adapter: str | None
    device: torch.device
    fingerprint: Mapping[str, Any]
