"""Rows as chats, written by the tokenizer's own chat template, with the assistant's turns as targets."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from headwater.core.errors import DataError
from headwater.core.fingerprints import digest
from headwater.data.rows import Rendered, Row, Span, Turn, asked_and_answered, render_text
from headwater.data.turns import TurnFinder, Write, assign_marks, common_start
from headwater.data.writer import CALLS_REMEDY, STAND_INS, ChatWriter, Messages

_log = logging.getLogger(__name__)

FOLD = "chat:fold-system"
"""The name of a chat template that gets a system turn as the beginning of the first user turn."""

_UNFINISHED = re.compile(r"<[^<>]*$")
"""The beginning of a marker at the end of a text."""

USER_ROLES = ("user", "tool")
"""Roles that a model answers."""


@dataclass(frozen=True)
class ChatTemplate:
    """Rows as chats; targets are the assistant's turns.

    A turn is everything after the generation prompt, as far as the chat's text shares it: the answer, anything the
    template writes around it (such as an empty reasoning block), and the token that closes the turn, without trailing
    white space. Where the template marks the assistant's words (`{% generation %}`), a turn is what it marks. If the
    template does not close the last turn, the end-of-text token is appended. Turns whose `weight` is 0 are no targets.
    A prompt and a response become a user's and an assistant's turn. A text row is written as it is.

    Attributes:
        tokenizer: a `transformers` tokenizer.
        program: a chat template to take instead of the tokenizer's own; empty for that.
        fold: a template that has no system turn gets the system's text at the beginning of the first user turn.
    """

    tokenizer: Any
    program: str = ""
    fold: bool = False
    joint: ClassVar[str] = ""

    def __post_init__(self) -> None:
        _ = self.writer.source  # raises an error for a tokenizer whose template cannot be told

    @cached_property
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the rendering depends on, JSON-ready."""
        name = self.program or (FOLD if self.fold else "chat")
        return {"name": name, "template": digest(self.writer.digested), "end": self.tokenizer.eos_token or ""}

    @cached_property
    def writer(self) -> ChatWriter:
        """The template's program."""
        return ChatWriter(self.tokenizer, self.program)

    @cached_property
    def finder(self) -> TurnFinder:
        """Finds the assistant's turns."""
        added = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        return TurnFinder(self.writer, tuple(added))

    def render(self, row: Row) -> Rendered:
        """The chat as text; raises `DataError` if its assistant turns cannot be found in it."""
        if row.text is not None:
            return render_text(row.text, self.tokenizer.eos_token or "")
        messages = self._fitting(row.messages or _as_messages(row), row.where)
        if not any(message["role"] == "assistant" for message in messages):
            remedy = "the assistant's turns are what a model learns"
            raise DataError("no assistant turn", where=row.where, remedy=remedy)
        whole, spans = self._find(messages, row)
        if messages[-1]["role"] == "assistant" and not self.writer.marked(row.tools) and not self.finder.closing:
            whole += self.tokenizer.eos_token or ""
            ((start, _),) = spans[len(messages) - 1]
            spans[len(messages) - 1] = [(start, len(whole))]
        asked = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
        turns = [Turn(tuple(own), _is_learned(messages[i]), replies=i > asked) for i, own in spans.items()]
        targets = tuple(span for turn in turns if turn.learned for span in turn.spans)
        return Rendered(whole, targets, opened=True, turns=tuple(turns))

    def question_text(self, row: Row) -> str:
        """The chat up to where a new answer starts, without a last assistant turn.

        It ends with the template's generation prompt if the text of a training row goes on from there. Some templates
        open a thought for a new answer and write rows without one; then it ends where the answer starts in a row.
        """
        messages = self._fitting(row.messages or [{"role": "user", "content": row.prompt or ""}], row.where)
        while messages and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        asked = self.writer.write(messages, row.where, tools=row.tools, settings=row.settings, generation=True)
        whole, turns = self._find([*messages, {"role": "assistant", "content": STAND_INS[0]}], row)
        if whole.startswith(asked):
            return asked
        common = _UNFINISHED.sub("", asked[: common_start(asked, whole)])  # marks may count the header as answer
        return max(whole[: turns[len(messages)][0][0]], common, key=len)

    def _find(self, messages: Messages, row: Row) -> tuple[str, dict[int, list[Span]]]:
        given: dict[str, Any] = {"where": row.where, "tools": row.tools, "settings": row.settings}

        def write(chat: Messages, *, generation: bool = False) -> str:
            return self.writer.write(chat, **given, generation=generation)

        whole = write(messages)
        self._note_skipped(write, messages, whole, row.where)
        if self.writer.marked(row.tools):
            marks = self.writer.marks(messages, whole, **given)
            found = assign_marks(marks, write, messages, whole)
        else:
            found = {i: [turn] for i, turn in self.finder.find(write, messages, whole, row.where).items()}
        for i, own in found.items():
            _require_calls(messages[i], [whole[start:end] for start, end in own], f"{row.where}: message {i}")
        return whole, found

    @cached_property
    def _skipped_roles(self) -> set[str]:
        """The roles of turns that the template has left out so far."""
        return set()

    def _note_skipped(self, write: Write, messages: Messages, whole: str, where: str) -> None:
        """Say once for each role that the template leaves out a turn: other words in it do not change the text."""
        for i, message in enumerate(messages):
            role, text = message["role"], message.get("content")
            if role == "assistant" or role in self._skipped_roles or not text or text.strip() in whole:
                continue
            with contextlib.suppress(DataError):
                if write([*messages[:i], {**message, "content": STAND_INS[0]}, *messages[i + 1 :]]) == whole:
                    self._skipped_roles.add(role)
                    _log.warning("%s: the chat template leaves out message %d, a turn of role '%s'", where, i, role)

    def _fitting(self, messages: Messages, where: str) -> Messages:
        """The messages with roles that the template has; raises `DataError` for a system turn that it cannot write."""
        roles = {message["role"] for message in messages}
        if "developer" in roles and not self.writer.has_developer:  # a newer name for the system
            messages = [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]
            roles.add("system")
        if "system" not in roles or self.writer.has_system:
            return messages
        if not self.fold:
            remedy = f"--template {FOLD} puts its text at the beginning of the first user turn"
            raise DataError("the chat template has no system turn", where=where, remedy=remedy)
        return _fold(messages, where)


def _fold(messages: Messages, where: str) -> Messages:
    count = next(i for i, message in enumerate([*messages, {"role": ""}]) if message["role"] != "system")
    rest = messages[count:]
    if not rest or rest[0]["role"] != "user" or any(message["role"] == "system" for message in rest):
        remedy = "put the system turn first and a user turn behind it"
        raise DataError("the system turn is not followed by a user turn", where=where, remedy=remedy)
    texts = [message["content"] or "" for message in (*messages[:count], rest[0])]
    return [{**rest[0], "content": "\n\n".join(text for text in texts if text)}, *rest[1:]]


def _as_messages(row: Row) -> Messages:
    prompt, response = asked_and_answered(row)
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def _is_learned(message: Mapping[str, Any]) -> bool:
    return bool(message.get("weight", 1)) and bool(message.get("train", True))


def _require_calls(message: Mapping[str, Any], said: list[str], where: str) -> None:
    """Raise `DataError` if the template left out a tool call."""
    for call in message.get("tool_calls") or ():
        name = call.get("function", call).get("name")
        if not any(name in part for part in said):
            what = f"the chat template does not write the call of the tool '{name}'"
            raise DataError(what, where=where, remedy=CALLS_REMEDY)
