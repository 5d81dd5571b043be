"""A row of text data, whatever shape it came in, and what writing it as one text gives.

Hotwords, the words of a query that are asked about alone, are applied here for every method, on tokens and on text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from headwater.core.errors import DataError

Record = Mapping[str, Any]
"""One row as in a JSONL file: `id`, `prompt`, `response`, then metadata columns."""


@dataclass(frozen=True)
class Row:
    """One example.

    Either `text` is set (plain text: every token is a target), or `prompt` and `response` are (the response's tokens
    are targets), or `messages` is (chat: the assistant's turns are targets; `prompt` and `response` then hold the
    readable rendering of what precedes the last assistant turn, and that turn).

    `ordinal` is the position in the corpus, `place` is where the row was read, for messages (`rows.jsonl:17`).
    If `hotwords` is set, only these words of a query are its targets. `metadata` holds all other columns. `said` are
    the token ids of a response that a model has just generated; then these are read, not the response's text.
    """

    id: str
    ordinal: int
    text: str | None = None
    prompt: str | None = None
    response: str | None = None
    messages: tuple[Mapping[str, str], ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    hotwords: tuple[str, ...] = ()
    place: str = ""
    said: tuple[int, ...] | None = None

    @property
    def where(self) -> str:
        """The row's name in messages: its place, or its id if it has none."""
        return self.place or f"row '{self.id}'"

    def fields(self) -> dict[str, str]:
        """The readable text fields that are set: `text`, or `prompt` and `response`."""
        pairs = {"text": self.text, "prompt": self.prompt, "response": self.response}
        return {name: value for name, value in pairs.items() if value is not None}


class RowsDigest:
    """Digest of rows' ids and exact texts, in order."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, row: Row) -> None:
        """Take in one more row."""
        self._hash.update((json.dumps([row.id, row.fields()]) + "\n").encode())

    def hexdigest(self) -> str:
        """The digest of the rows so far, as 32 hexadecimal digits."""
        return self._hash.hexdigest()


def word_spans(row: Row, rendered: Rendered, words: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Where each word occurs in the targets; raises `DataError`, quoting the response, if a word does not occur."""
    spans: list[tuple[int, int]] = []
    for word in words:
        found = []
        for start, end in rendered.targets:
            at = rendered.text.find(word, start, end)
            while at >= 0:
                found.append((at, at + len(word)))
                at = rendered.text.find(word, at + 1, end)
        if not found:
            response = " … ".join(rendered.text[start:end] for start, end in rendered.targets)
            remedy = "copy the words from the response, capitals and all"
            raise DataError(f"'{word}' is not in the response {response!r}", where=row.where, remedy=remedy)
        spans.extend(found)
    return tuple(sorted(spans))


def asked_text(query: Row, otherwise: str | None) -> str | None:
    """The text that a method without token targets compares: the query's hotwords if it has any, else `otherwise`."""
    return " ".join(query.hotwords) or otherwise


@dataclass(frozen=True)
class Rendered:
    """A row as one text.

    Attributes:
        text: what is tokenised.
        targets: (start, end) character spans of `text`, in order, that are targets of the loss.
        opened: whether the template wrote the opening special tokens, so that none are added in front.
    """

    text: str
    targets: tuple[tuple[int, int], ...]
    opened: bool = False


@runtime_checkable
class Template(Protocol):
    """A way to write rows as text.

    A row's text that spells a special token (`</s>`) becomes that token, as in the training of most models. This does
    not change which characters are targets.
    """

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the rendering depends on, JSON-ready."""
        ...

    def render(self, row: Row) -> Rendered:
        """The row as text with its targets; raises `DataError` naming the row's place if it cannot be rendered."""
        ...

    def question_text(self, row: Row) -> str:
        """The text that a model continues with a new answer to the row; a last answer that it has is left out."""
        ...


def render_text(text: str, end: str) -> Rendered:
    """A text row: all of it is a target, and so is the end-of-text token, which is added if missing."""
    whole = close(text, end)
    return Rendered(whole, ((0, len(whole)),))


def close(text: str, end: str) -> str:
    """`text` followed by `end`, unless it already ends with it."""
    return text if text.endswith(end) else text + end


def asked_and_answered(row: Row) -> tuple[str, str]:
    """The row's prompt and response; raises `DataError` if one is missing."""
    if row.prompt is None or row.response is None:
        missing = "prompt" if row.prompt is None else "response"
        raise DataError(f"no {missing}", where=row.where, remedy=f"give it a {missing} or a text")
    return row.prompt, row.response
