"""A row of text data, whatever shape it came in, and what writing it as one text gives.

Hotwords, the words of a query that are asked about alone, are applied here for every method, on tokens and on text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from headwater.core.errors import DataError

Record = Mapping[str, Any]
"""One row as in a JSONL file: `id`, `prompt`, `response`, then metadata columns."""

BESIDE = ("tools", "chat_template_kwargs")
"""Columns beside a chat that change the text that its template writes."""

Span = tuple[int, int]
"""(start, end) of characters in a text."""


@dataclass(frozen=True)
class Row:
    """One example.

    Either `text` is set (plain text: every token is a target), or `prompt` and `response` are (the response's tokens
    are targets), or `messages` is (chat: the assistant's turns are targets; `prompt` and `response` then hold the
    readable rendering of what precedes the last assistant turn, and that turn).

    `ordinal` is the position in the corpus, `place` is where the row was read, for messages (`rows.jsonl:17`).
    `rejected` is the worse answer of a preference pair that is read with the DPO loss, as a row of its own; this row is
    then the pair, with the better answer as its text.

    If `hotwords` is set, only these words of a query are its targets. `metadata` holds all other columns. `said` are
    the token ids of a response that a model has just generated; then these are read, not the response's text.
    """

    id: str
    ordinal: int
    text: str | None = None
    prompt: str | None = None
    response: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    hotwords: tuple[str, ...] = ()
    place: str = ""
    said: tuple[int, ...] | None = None
    rejected: Row | None = None

    @property
    def where(self) -> str:
        """The row's name in messages: its place, or its id if it has none."""
        return self.place or f"row '{self.id}'"

    @property
    def answer(self) -> str:
        """What the row teaches: its response, or its whole text if it has no response; empty if it has neither."""
        return self.response or self.text or ""

    @property
    def tools(self) -> list[Any] | None:
        """The tools that a chat may call: its column `tools`, a list or a list as JSON text; None if it has none."""
        tools = self._beside("tools")
        return list(tools) if tools else None

    @property
    def settings(self) -> dict[str, Any]:
        """What a chat's template is given besides: its column `chat_template_kwargs`, an object or one as JSON text."""
        return dict(self._beside("chat_template_kwargs") or {})

    def _beside(self, name: str) -> Any:
        """The value of a column that belongs to the row's chat; JSON text is read."""
        value = self.metadata.get(name) if self.messages is not None else None
        return json.loads(value) if isinstance(value, str) and value.strip() else value

    def fields(self) -> dict[str, str]:
        """The readable text fields that are set: `text`, or `prompt` and `response`."""
        pairs = {"text": self.text, "prompt": self.prompt, "response": self.response}
        return {name: value for name, value in pairs.items() if value is not None}


def with_response(row: Row, response: str) -> Row:
    """The row with another answer: to its prompt, or to the last question of its chat, whose earlier turns are kept."""
    if row.messages is None:
        return replace(row, response=response, hotwords=())
    messages = row.messages
    while messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    answered = (*messages, {"role": "assistant", "content": response})
    return replace(row, response=response, messages=answered, hotwords=())


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


def word_spans(row: Row, rendered: Rendered, words: Sequence[str], targets: Sequence[Span]) -> tuple[Span, ...]:
    """Where each word occurs in the target spans; raises `DataError`, quoting the response, if one does not occur."""
    spans: list[Span] = []
    for word in words:
        found = []
        for start, end in targets:
            at = rendered.text.find(word, start, end)
            while at >= 0:
                found.append((at, at + len(word)))
                at = rendered.text.find(word, at + 1, end)
        if not found:
            response = " … ".join(rendered.text[start:end] for start, end in targets)
            remedy = "copy the words from the response, capitals and all"
            raise DataError(f"'{word}' is not in the response {response!r}", where=row.where, remedy=remedy)
        spans.extend(found)
    return tuple(sorted(spans))


def asked_text(query: Row, otherwise: str | None) -> str | None:
    """The text that a method without token targets compares: the query's hotwords if it has any, else `otherwise`."""
    return " ".join(query.hotwords) or otherwise


TARGETS = {
    "all": "every token of a row, the prompt included",
    "assistant": "the assistant's turns of a chat, or the response",
    "response": "the assistant's turns after the last user turn, or the response",
    "last": "the assistant's last turn, or the response",
}
"""What the loss of a training row can be over. By default it is all of a text, else the same as `assistant`."""


@dataclass(frozen=True)
class Turn:
    """What a model says at one time.

    Attributes:
        spans: (start, end) character spans of the text, in order.
        learned: whether it is a target; a chat can exclude a turn by its `weight`.
        replies: whether it answers the last user turn.
    """

    spans: tuple[Span, ...]
    learned: bool = True
    replies: bool = True


@dataclass(frozen=True)
class Rendered:
    """A row as one text.

    Attributes:
        text: what is tokenised.
        targets: (start, end) character spans of `text`, in order, that are targets of the loss.
        opened: whether the template wrote the opening special tokens, so that none are added in front.
        turns: the answers, in order; none for a text row.
    """

    text: str
    targets: tuple[Span, ...]
    opened: bool = False
    turns: tuple[Turn, ...] = ()


def target_spans(rendered: Rendered, choice: str | None, where: str) -> tuple[Span, ...]:
    """The spans that are targets under a choice of `TARGETS`, or by default.

    Raises:
        DataError: a text row, which has no answers, under a choice that needs them; or no turn that is learned.
    """
    if choice is None:
        return rendered.targets
    if choice == "all":
        return ((0, len(rendered.text)),)
    if not rendered.turns:
        what = f"a text has no answer for the targets '{choice}'"
        raise DataError(what, where=where, remedy="--targets all, or leave the option out")
    turns = rendered.turns[-1:] if choice == "last" else rendered.turns
    return tuple(s for turn in turns if turn.learned and (turn.replies or choice != "response") for s in turn.spans)


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

    @property
    def joint(self) -> str:
        """What stands between a question and an answer if neither has white space there; a model writes it itself."""
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
