"""The tokenizer that belongs to a model: the one that is named, else the adapter's own, else the model's.

Trainers save the tokenizer they used into every adapter folder, with the tokens that were added for the chat format and
with the chat template. The base model's tokenizer may lack both, and would read every row as something else.
"""

from __future__ import annotations

import copy
import logging
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from headwater.core.errors import ModelError
from headwater.data.tokens import tokenizer_digest
from headwater.models.adapters import unreachable

_FILES = ("tokenizer.json", "*.model", "vocab*", "tekken*", "*.tiktoken", "tokenization_*.py")
"""Patterns for the files that hold a tokenizer; one of them is enough."""

_TEMPLATE = "chat_template.jinja"

_CHOOSE = "name a folder or hub name that has one with --tokenizer, in Python load_model(..., tokenizer=...)"

_log = logging.getLogger(__name__)


def own_tokenizer(
    model: str,
    *,
    adapter: str | None = None,
    chosen: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    quiet: bool = False,
) -> Any:
    """The tokenizer to read rows with; logs one line where the adapter's differs from the model's, unless `quiet`.

    Args:
        model: folder or hub name of the model.
        adapter: folder or hub name of the adapter that is loaded, if any.
        chosen: folder or hub name of the tokenizer that the user names; it is read, whatever the others are.
        revision: branch, tag or commit of the model on the hub.
        trust_remote_code: whether a tokenizer may bring its own Python code.

    Raises:
        ModelError: there is no tokenizer, or it cannot be read; the message says how to name one.
    """
    if chosen is not None:
        return _read(chosen, None, trust_remote_code)
    if adapter is not None and _has_tokenizer(adapter):
        own = _read(adapter, None, trust_remote_code)
        if not quiet:
            _say_how_they_differ(own, _read_if_any(model, revision, trust_remote_code), adapter)
        return own
    base = _read(model, revision, trust_remote_code)
    if adapter is not None and (template := _file(adapter, _TEMPLATE)):
        base.chat_template = template.read_text(encoding="utf-8")
        if not quiet:
            _log.warning("the chat template of the adapter %s is used, with the base model's tokenizer", adapter)
    return base


def with_pad(tokenizer: Any, rows: int, name: str) -> Any:
    """The tokenizer, or a copy whose pad token the model can embed: its end token, its start token, or the first token.

    Padding is masked everywhere, so the choice changes no result. Added tokens beyond the embedding's `rows` are
    allowed (published models have unused ones), but a larger vocabulary belongs to another model and is an error.
    """
    if not tokenizer.is_fast:
        remedy = "use a tokenizer with a tokenizer.json; character offsets of tokens are read from it"
        raise ModelError("the tokenizer is not a fast one", where=name, remedy=remedy)
    if tokenizer.vocab_size > rows:
        what = f"the tokenizer has {tokenizer.vocab_size} tokens, the model embeds {rows}"
        raise ModelError(what, where=name, remedy="name the tokenizer the model was trained with")
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id < rows:
        return tokenizer
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.convert_ids_to_tokens(0)
    return padded


def _read(name: str, revision: str | None, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    if Path(name).is_dir() and not _has_tokenizer(name):
        raise ModelError("there is no tokenizer", where=name, remedy=_CHOOSE)
    try:
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # the hub, files and configurations fail with many classes of error
        raise unreachable("tokenizer", name, error) from error


def _read_if_any(name: str, revision: str | None, trust_remote_code: bool) -> Any:
    try:
        return _read(name, revision, trust_remote_code)
    except ModelError:
        return None


def _has_tokenizer(name: str) -> bool:
    """Whether a folder has a file of a tokenizer; of a hub name, whether it has a fast tokenizer's."""
    folder = Path(name)
    if not folder.is_dir():
        return _file(name, _FILES[0]) is not None
    return any(fnmatch(child.name, pattern) for child in folder.iterdir() for pattern in _FILES)


def _file(name: str, file: str) -> Path | None:
    """The file of a folder or hub name; None if it has none of that name."""
    from transformers.utils import cached_file

    try:
        found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    except OSError:
        return None
    return None if found is None else Path(found)


def _say_how_they_differ(own: Any, base: Any, adapter: str) -> None:
    """Log one line if the adapter's tokenizer reads text or chats differently from the base model's."""
    if base is not None and tokenizer_digest(own) == tokenizer_digest(base):
        return
    found = []
    if base is None:
        found.append("the base model has none")
    else:
        more = len(set(own.get_vocab()) - set(base.get_vocab()))
        found += [f"it has {more} tokens more than the base model's"] if more else []
        if own.chat_template != base.chat_template:
            found.append("its chat template is another one" if base.chat_template else "it has a chat template")
    how = " and ".join(found) or "it reads text differently from the base model's"
    _log.warning("the tokenizer of the adapter %s is used: %s; --tokenizer chooses another", adapter, how)
