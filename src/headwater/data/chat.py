"""The tokenizer's own chat template, and where the assistant's turns are in the text it writes.

A chat template is a program and does not report where it puts an answer. So each turn is located from both sides: the
text of the chat before the turn, with a generation prompt, must be the beginning of the whole text, and what the
template writes after a stand-in answer must be its end. The turn is what lies between. A template that writes a turn
differently depending on what follows is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jinja2

from headwater.core.errors import DataError, ModelError
from headwater.core.fingerprints import digest
from headwater.data.rows import Rendered, Row, asked_and_answered, render_text

STAND_IN = "HeadwaterStandsInForThisAnswer"
"""Put in place of an answer to find what the template writes after it."""

FIXED_TODAY = (
    "{% macro strftime_now(format) %}{{ format | replace('%d', '26') | replace('%m', '07') | replace('%b', 'Jul')"
    " | replace('%B', 'July') | replace('%y', '24') | replace('%Y', '2024') }}{% endmacro %}"
)
"""A fixed date (Llama 3's default) for templates that write today's, whose text would change from day to day."""

Messages = Sequence[Mapping[str, str]]

ALIGN_REMEDY = "take another template: plain, alpaca or a format string"


@dataclass(frozen=True)
class ChatTemplate:
    """Rows as chats; targets are the assistant's turns.

    A turn is everything after the generation prompt: the answer, anything the template writes around it (such as an
    empty reasoning block), and the text that closes the turn, without trailing white space. If the template does not
    close turns, the end-of-text token is appended to the last. A prompt and a response become a user's and an
    assistant's turn. A text row is written as it is, without the template.
    """

    tokenizer: Any

    @cached_property
    def source(self) -> str:
        """The template's program, with a fixed date."""
        written: str = self.tokenizer.get_chat_template()
        return FIXED_TODAY + written if "strftime_now" in written else written

    @cached_property
    def after_answer(self) -> str:
        """What the template writes after a last answer."""
        chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": STAND_IN}]
        return self._after(chat, 1, "chat template")

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the rendering depends on, JSON-ready."""
        return {"name": "chat", "template": digest(self.source), "end": self.tokenizer.eos_token or ""}

    def render(self, row: Row) -> Rendered:
        """The chat as text; raises `DataError` if its assistant turns cannot be found in it."""
        if row.text is not None:
            return render_text(row.text, self.tokenizer.eos_token or "")
        messages = row.messages or self._as_messages(row)
        whole = self._write(messages, row.where)
        spoken = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not spoken:
            remedy = "the assistant's turns are what a model learns"
            raise DataError("no assistant turn", where=row.where, remedy=remedy)
        targets = [self._turn(messages, i, whole, row.where) for i in spoken]
        if spoken[-1] == len(messages) - 1 and not self.after_answer.strip():
            whole += self.tokenizer.eos_token or ""
            targets[-1] = (targets[-1][0], len(whole))
        return Rendered(whole, tuple(targets), opened=True)

    def question_text(self, row: Row) -> str:
        """The chat up to where a new answer starts: with a generation prompt, and without a last assistant turn."""
        messages = list(row.messages or [{"role": "user", "content": row.prompt or ""}])
        while messages and messages[-1]["role"] == "assistant":
            messages.pop()
        return self._write(messages, row.where, generation=True)

    @staticmethod
    def _as_messages(row: Row) -> Messages:
        prompt, response = asked_and_answered(row)
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]

    def _turn(self, messages: Messages, i: int, whole: str, where: str) -> tuple[int, int]:
        """(start, end) of the assistant's turn `messages[i]` in `whole`."""
        if i == 0:
            raise DataError("the chat begins with the assistant", where=where, remedy="begin with the user's turn")
        before = self._write(messages[:i], where, generation=True)
        after = self.after_answer if i == len(messages) - 1 else self._after(messages, i, where)
        answer = whole[len(before) : len(whole) - len(after)]
        found = whole.startswith(before) and whole.endswith(after) and len(before) + len(after) <= len(whole)
        if not found or not answer.rstrip().endswith(messages[i]["content"].strip()):
            fault = f"the chat template's text does not show where message {i} starts and ends"
            raise DataError(fault, where=where, remedy=ALIGN_REMEDY)
        closing = self.after_answer.rstrip()
        end = len(whole) - len(after)
        return len(before), end + len(closing) if after.startswith(closing) else end

    def _after(self, messages: Messages, i: int, where: str) -> str:
        """What the template writes after the answer of `messages[i]`."""
        stand_in = [*messages[:i], {**messages[i], "content": STAND_IN}, *messages[i + 1 :]]
        _, found, after = self._write(stand_in, where).partition(STAND_IN)
        if not found or STAND_IN in after:
            raise ModelError("the chat template does not write an answer once", where=where, remedy=ALIGN_REMEDY)
        return after

    def _write(self, messages: Messages, where: str, *, generation: bool = False) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), chat_template=self.source, tokenize=False, add_generation_prompt=generation
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            what = f"the chat template refuses this chat: {error}"
            raise DataError(what, where=where, remedy=ALIGN_REMEDY) from error
        return text
