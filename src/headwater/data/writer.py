"""A tokenizer's chat template as a program to ask: what it writes for a chat, and what it can write at all.

Templates differ in what they accept: some take the text of a turn as a list of parts, some want the arguments of a
tool call as JSON text, many have no system turn. None of them says so. So each is asked with a small chat of stand-ins.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2

from headwater.core.errors import DataError, ModelError
from headwater.data.rows import Span

STAND_INS = ("Headwater puts these words", "stand where an answer is put")
"""Two texts with different first and last letters: what two chats that differ in them have in common surrounds them."""

FIXED_NOW = datetime(2024, 7, 26, 12)
"""A fixed date (Llama 3's default) and time for templates that write now's, whose text would change from day to day."""

LETTERS = "aAwdbBmyYHIMSfpjUWcxXzZGuVeDFTRhntCgr"
"""What may follow the % in the format of a date."""


def _fixed_date() -> str:
    """A macro that writes the fixed date, because a template cannot be given a function."""
    values = {letter: FIXED_NOW.strftime(f"%{letter}") for letter in LETTERS}
    written = {f"%{letter}": value for letter, value in values.items()}
    written |= {f"%-{letter}": value.lstrip("0") or "0" for letter, value in values.items() if value}  # without zeros
    each = "".join(f" | replace({directive!r}, {value!r})" for directive, value in written.items())
    percent = " | replace('%%', '\\0')", " | replace('\\0', '%')"
    return f"{{% macro strftime_now(format) %}}{{{{ format{percent[0]}{each}{percent[1]} }}}}{{% endmacro %}}"


FIXED_TODAY = _fixed_date()

DATED = (
    "{% macro strftime_now(format) %}{{ format | replace('%d', '26') | replace('%m', '07') | replace('%b', 'Jul')"
    " | replace('%B', 'July') | replace('%y', '24') | replace('%Y', '2024') }}{% endmacro %}"
)
"""Stands before a program with a date in its digest, so that earlier indexes, written by this macro, keep theirs."""

FORMAT = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?["'](.*?)["']""")

DIRECTIVES = ("%d", "%m", "%b", "%B", "%y", "%Y")
"""The parts of a date that `DATED` wrote; with others a program's digest is its own."""

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
        """The template's program; raises `ModelError` if it is one of several without a default."""
        return self._program(tools=None)

    @cached_property
    def _with_tools(self) -> str:
        """The program for chats with tools; some tokenizers have another one for these."""
        return self._program(tools=[])

    def _program(self, tools: Any) -> str:
        try:
            written: str = self.program or self.tokenizer.get_chat_template(tools=tools)
        except ValueError as error:
            names = ", ".join(self.tokenizer.chat_template)
            what = f"this tokenizer has several chat templates and no default: {names}"
            raise ModelError(what, where="template", remedy="--template with the one to take, a .jinja file") from error
        return FIXED_TODAY + written if "strftime_now" in written else written

    @cached_property
    def digested(self) -> str:
        """The text whose digest stands for the template in a fingerprint."""
        written = self.source.removeprefix(FIXED_TODAY)
        directives = {each for date in FORMAT.findall(written) for each in re.findall("%-?.", date)}
        early = written != self.source and directives.issubset(DIRECTIVES)
        return DATED + written if early else self.source

    def program_for(self, tools: Any) -> str:
        """The program that writes a chat with these tools, or without tools."""
        return self._with_tools if tools else self.source

    def marked(self, tools: Any = None) -> bool:
        """Whether the template itself marks what the assistant says (`{% generation %}`)."""
        return MARK.search(COMMENT.sub("", self.program_for(tools))) is not None

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
        for chat in self._forms(messages, tools):
            try:
                return self._apply(
                    chat,
                    self.program_for(tools),
                    tools=tools,
                    add_generation_prompt=generation,
                    **(settings or {}),
                )
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

        for chat in self._forms(messages, tools):
            with contextlib.suppress(*REFUSALS):
                (text,), (spans,) = render_jinja_template(
                    conversations=[[_without_nulls(message) for message in chat]],
                    tools=tools,
                    chat_template=self.program_for(tools),
                    return_assistant_tokens_mask=True,
                    **{**self.tokenizer.special_tokens_map, **(settings or {})},
                )
                if text == whole:
                    return [(start, end) for start, end in spans if end > start]
        raise DataError("the chat template's marks do not fit its text", where=where, remedy=ALIGN_REMEDY)

    def _forms(self, messages: Messages, tools: Any = None) -> Iterator[list[Mapping[str, Any]]]:
        """The chat in the forms the template may want: with the arguments of tool calls as objects, then as JSON text.

        Objects come first, however the row has them, because most templates write them as JSON themselves. Text comes
        first for a template that would write an object as Python shows it.
        """
        chat = [_in_parts(message) for message in messages] if self.in_parts else list(messages)
        if not any(message.get("tool_calls") for message in messages):
            yield chat
            return
        ways = [_as_object, _as_json]
        for way in reversed(ways) if self._printing[bool(tools)] else ways:
            yield [_with_arguments(message, way) for message in chat]

    @cached_property
    def _printing(self) -> dict[bool, bool]:
        """Whether the program for chats with tools (True), and that for chats without (False), prints arguments."""
        return {tools: self._prints_arguments(self.program_for(tools)) for tools in (True, False)}

    def _prints_arguments(self, program: str) -> bool:
        """Whether the template writes the arguments of a tool call as they are, so that only text is right there."""
        arguments = {STAND_INS[0]: STAND_INS[1]}
        call = {"type": "function", "id": "call00000", "function": {"name": "a", "arguments": arguments}}
        asked: list[Mapping[str, Any]] = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        chat = [_in_parts(message) for message in asked] if self.in_parts else asked
        with contextlib.suppress(*REFUSALS):
            return str(arguments) in self._apply(chat, program)
        return False

    def _apply(self, chat: Messages, program: str, **settings: Any) -> str:
        written: str = self.tokenizer.apply_chat_template(chat, chat_template=program, tokenize=False, **settings)
        return written

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
            first, second = (self._apply(chat, self.source) for chat in chats)
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


def _with_arguments(message: Mapping[str, Any], way: Callable[[Any], Any]) -> Mapping[str, Any]:
    calls = []
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        given = function.get("arguments")
        written = function if given is None and way is _as_object else {**function, "arguments": way(given)}
        calls.append({**call, "function": written} if "function" in call else written)
    return {**message, "tool_calls": calls} if calls else message


def _as_object(arguments: Any) -> Any:
    """The object that JSON text holds; anything else as it is."""
    if isinstance(arguments, str):
        with contextlib.suppress(json.JSONDecodeError):
            found = json.loads(arguments) if arguments.strip() else {}
            return found if isinstance(found, dict) else arguments
    return arguments


def _as_json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
