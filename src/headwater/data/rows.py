"""A row of text data, whatever shape it came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Record = Mapping[str, Any]
"""One row as in a JSONL file: `id`, `prompt`, `response`, then metadata columns."""


@dataclass(frozen=True)
class Row:
    """One example.

    Either `text` is set (plain text: every token is a target), or `prompt` and `response` are (the response's tokens
    are targets), or `messages` is (chat: the assistant's turns are targets; `prompt` and `response` then hold the
    readable rendering of what precedes the last assistant turn, and that turn).

    `ordinal` is the position in the corpus, `place` is where the row was read, for messages (`rows.jsonl:17`).
    If `hotwords` is set, only these words of a query are its targets. `metadata` holds all other columns.
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

    @property
    def where(self) -> str:
        """The row's name in messages: its place, or its id if it has none."""
        return self.place or f"row '{self.id}'"

    def fields(self) -> dict[str, str]:
        """The readable text fields that are set: `text`, or `prompt` and `response`."""
        pairs = {"text": self.text, "prompt": self.prompt, "response": self.response}
        return {name: value for name, value in pairs.items() if value is not None}
