"""Corpora in any common shape, made into token batches; the one place where targets shift.

    corpus = open_corpus("rows.jsonl")
    tokenization = Tokenization(tokenizer, resolve_template(None, tokenizer))
    for batch in plan_batches(tokenization.encode(list(corpus)), Window(256, overlap=50)):
        ...

The batch names (`TokenBatch`, `plan_batches`) import torch when they are first asked for, so rooms that only read rows
stay free of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.data.backend import tokenizer_digest
from headwater.data.batches import Window
from headwater.data.corpus import Corpus, open_corpus
from headwater.data.rows import Row
from headwater.data.templates import Rendered, Template, resolve_template
from headwater.data.tokens import Tokenization, TokenRow, token_texts

if TYPE_CHECKING:
    from headwater.data.batches import TokenBatch, padding_share, plan_batches

__all__ = [
    "Corpus",
    "Rendered",
    "Row",
    "Template",
    "TokenBatch",
    "TokenRow",
    "Tokenization",
    "Window",
    "open_corpus",
    "padding_share",
    "plan_batches",
    "resolve_template",
    "token_texts",
    "tokenizer_digest",
]


def __getattr__(name: str) -> Any:
    if name in ("TokenBatch", "padding_share", "plan_batches"):
        from headwater.data import batches

        return getattr(batches, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
