"""The Rust backend of a `transformers` tokenizer: copies with exact offsets and no hidden state, and a digest."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer

from headwater.core.errors import ModelError
from headwater.core.fingerprints import digest

NOT_LEARNED = frozenset({"pad_token"})
"""Special tokens left out of the digest: they change no token of a row, since batches mask their padding."""


def bare_backend(tokenizer: Any) -> Tokenizer:
    """A copy that does not truncate, pad, add special tokens or trim white space off the offsets.

    Post-processing only adds special tokens and trims offsets. Without it, the tokens are those of the tokenizer called
    with `add_special_tokens=False`, and their offsets cover every character that was read.
    """
    backend = _stateless_copy(tokenizer)
    backend.post_processor = None
    return backend


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of everything that decides a row's tokens: the backend, the special tokens, the chat template.

    Truncation, padding and the pad token are left out. Raises `ModelError` for a tokenizer that is not a fast one.
    """
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if name not in NOT_LEARNED}
    return digest(_stateless_copy(tokenizer).to_str(), special, {"chat_template": tokenizer.chat_template})


def opening_tokens(tokenizer: Any) -> tuple[list[int], str]:
    """The special tokens (ids, text) the tokenizer puts before plain text by default; usually one or none."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    count = next((i for i, added in enumerate(encoded["special_tokens_mask"]) if not added), 0)
    ids: list[int] = encoded["input_ids"][:count]
    return ids, "".join(tokenizer.convert_ids_to_tokens(ids))


def _stateless_copy(tokenizer: Any) -> Tokenizer:
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{type(tokenizer).__name__} is not a fast tokenizer: it does not say which characters a token covers",
            where="tokenizer",
            remedy="save a tokenizer.json for it with AutoTokenizer.from_pretrained(...).save_pretrained(...)",
        )
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend
