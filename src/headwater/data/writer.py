"""A tokenizer's chat template as a program to ask: what it writes for a chat, and what it can write at all.

Templates differ in what they accept: some take the text of a turn as a list of parts, some want the arguments of a
tool call as JSON text, many have no system turn. None of them says so. So each is asked with a small chat of stand-ins.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jinja2

from headwater.core.errors import DataError
from headwater.data.rows import Span

STAND_INS = ("Headwater puts these words", "stand where an answer is put")
"""Two texts with different first and last letters: what two chats that differ in them have in common surrounds them."""

FIXED_TODAY = (
    "{% macro strftime_now(format) %}{{ format | replace('%d', '26') | replace('%m', '07') | replace('%b', 'Jul')"
    " | replace('%B', 'July') | replace('%y', '24') | replace('%Y', '2024') }}{% endmacro %}"
)
"""A fixed date (Llama 3's default) for templates that write today's, whose text would change from day to day."""

MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""A template's own mark of the text that the assistant says."""

COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)

REFUSALS = (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError)
"""What a template, a program of its own, raises for a chat that it cannot write."""

ALIGN_REMEDY = "take another template: plain, alpaca or a format string"

CALLS_REMEDY = "it may have no tool calls: take a template that has them"

Messages = Sequence[Mapping[str, Any]]
Settings = Mapping[str, Any]
"""Further names that a template reads, such as `enable_thinking`."""


@dataclass(frozen=True)
class ChatWriter:
    """The chat template of a tokenizer.

    Attributes:
        tokenizer: a `transformers` tokenizer; it gives the template its special tokens.
        program: the template; empty for the tokenizer's own.
    """

    tokenizer: Any
    program: str = ""

    @cached_property
    def source(self) -> str:
        """The template's program, with a fixed date."""
        written: str = self.program or self.tokenizer.get_chat_template()
        return FIXED_TODAY + written if "strftime_now" in written else written

    @cached_property
    def marked(self) -> bool:
        """Whether the template itself marks what the assistant says (`{% generation %}`)."""
        return MARK.search(COMMENT.sub("", self.source)) is not None

    @cached_property
    def in_parts(self) -> bool:
        """Whether the template reads a turn's text only as a list of parts, as those of vision models do."""
        return not self._differ(parts=False) and self._differ(parts=True)

    @cached_property
    def has_system(self) -> bool:
        """Whether the template writes a system turn."""
        return self._has("system")

    @cached_property
    def has_developer(self) -> bool:
        """Whether the template writes a developer turn."""
        return self._has("developer")

    def write(
        self,
        messages: Messages,
        where: str,
        *,
        tools: Any = None,
        settings: Settings | None = None,
        generation: bool = False,
    ) -> str:
        """The chat as text, with a generation prompt if `generation`; raises `DataError` if the template refuses it."""
        refused: Exception | None = None
        for chat in self._forms(messages):
            try:
                text: str = self.tokenizer.apply_chat_template(
                    chat,
                    tools=tools,
                    chat_template=self.source,
                    tokenize=False,
                    add_generation_prompt=generation,
                    **(settings or {}),
                )
                return text
            except REFUSALS as error:
                refused = refused or error
        what = f"the chat template refuses this chat: {refused}"
        calls = any(message.get("tool_calls") for message in messages)
        raise DataError(what, where=where, remedy=CALLS_REMEDY if calls else ALIGN_REMEDY) from refused

    def marks(
        self, messages: Messages, whole: str, where: str, *, tools: Any = None, settings: Settings | None = None
    ) -> list[Span]:
        """The spans of `whole`, the chat as `write` gives it, that the template marks as said by the assistant."""
        from transformers.utils.chat_template_utils import render_jinja_template

        for chat in self._forms(messages):
            with contextlib.suppress(*REFUSALS):
                (text,), (spans,) = render_jinja_template(
                    conversations=[[_without_nulls(message) for message in chat]],
                    tools=tools,
                    chat_template=self.source,
                    return_assistant_tokens_mask=True,
                    **{**self.tokenizer.special_tokens_map, **(settings or {})},
                )
                if text == whole:
                    return [(start, end) for start, end in spans if end > start]
        raise DataError("the chat template's marks do not fit its text", where=where, remedy=ALIGN_REMEDY)

    def _forms(self, messages: Messages) -> Iterator[list[Mapping[str, Any]]]:
        """The chat in the forms the template may want: as given, then with the arguments of tool calls as JSON text."""
        chat = [_in_parts(message) for message in messages] if self.in_parts else list(messages)
        yield chat
        if any(message.get("tool_calls") for message in messages):
            yield [_with_json_arguments(message) for message in chat]

    def _has(self, role: str) -> bool:
        first, second = ([{"role": role, "content": text}, *_exchange("a")] for text in STAND_INS)
        try:
            return self.write(first, "") != self.write(second, "")
        except DataError:
            return False

    def _differ(self, *, parts: bool) -> bool:
        chats = [_exchange(text) for text in STAND_INS]
        if parts:
            chats = [[_in_parts(message) for message in chat] for chat in chats]
        try:
            first, second = (
                self.tokenizer.apply_chat_template(chat, chat_template=self.source, tokenize=False) for chat in chats
            )
        except REFUSALS:
            return False
        return bool(first != second)


def _exchange(answer: str) -> list[Mapping[str, Any]]:
    return [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]


def _without_nulls(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message as `apply_chat_template` hands it to a template."""
    return {name: value for name, value in message.items() if value is not None}


def _in_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _with_json_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    calls = []
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        text = {**function, "arguments": json.dumps(function.get("arguments"), ensure_ascii=False)}
        calls.append({**call, "function": text} if "function" in call else text)
    return {**message, "tool_calls": calls} if calls else message
