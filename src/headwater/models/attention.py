"""Attention written in plain operations, which can be differentiated in every mode and any number of times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def plain_attention(model: Any) -> Iterator[None]:
    """Within it, the model's attention is not a fused kernel, which would have first derivatives in reverse only."""
    before = getattr(getattr(model, "config", None), "_attn_implementation", None)
    can = before is not None and hasattr(model, "set_attn_implementation")
    if can:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if can:
            model.set_attn_implementation(before)
