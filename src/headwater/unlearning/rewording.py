"""Prompts written otherwise: other words around them, or examples of the behaviour before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from headwater.data.rows import Row
from headwater.models.reader import Reader

SHOTS = 3
ROOM = 48
"""Tokens that stay free for the answer behind examples."""


def _around(before: str, after: str) -> Callable[[str], str]:
    return lambda text: f"{before}{text}{after}"


def _reword(change: Callable[[str], str]) -> Callable[[Row], Row]:
    def reworded(row: Row) -> Row:
        if row.messages is None:
            return replace(row, prompt=change(row.prompt or ""))
        last = max((i for i, m in enumerate(row.messages) if m["role"] == "user"), default=None)
        messages = [
            {**m, "content": change(m["content"])} if i == last and isinstance(m.get("content"), str) else m
            for i, m in enumerate(row.messages)
        ]
        return replace(row, messages=tuple(messages), prompt=change(row.prompt or ""))

    return reworded


REWORDINGS: tuple[Callable[[Row], Row], ...] = tuple(
    _reword(change)
    for change in (
        _around("", " Please."),
        _around("Please answer this. ", ""),
        str.upper,
        _around("", "\n"),
        _around("", " Thank you!"),
        _around("I have a question. ", ""),
        str.lower,
        _around('"', '"'),
    )
)
"""Ways to write a prompt otherwise; prompts take them in turn."""


def shown_before(row: Row, examples: Sequence[Row], reader: Reader) -> Row:
    """The row with up to three examples before its prompt, each with its answer: as many as the model can read.

    In a chat the examples are earlier turns. Elsewhere they stand in the prompt, one a paragraph. An example that is
    the row itself is left out.
    """
    others = [e for e in examples if e.prompt is not None and e.response is not None and e.prompt != row.prompt]
    for count in range(min(SHOTS, len(others)), 0, -1):
        made = _with_examples(row, others[:count])
        if len(reader.tokenization.question(replace(made, said=None)).ids) + ROOM <= reader.context:
            return made
    return row


def _with_examples(row: Row, examples: Sequence[Row]) -> Row:
    if row.messages is None:
        shown = "".join(f"{example.prompt}\n{example.response}\n\n" for example in examples)
        return replace(row, prompt=f"{shown}{row.prompt}")
    turns: list[dict[str, Any]] = []
    for example in examples:
        turns.append({"role": "user", "content": example.prompt})
        turns.append({"role": "assistant", "content": example.response})
    system = [m for m in row.messages if m["role"] == "system"]
    rest = [m for m in row.messages if m["role"] != "system"]
    return replace(row, messages=(*system, *turns, *rest))
