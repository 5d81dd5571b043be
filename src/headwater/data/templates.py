"""Templates by name: `chat`, `plain`, `alpaca`, a chat template's file, or a format with {prompt} and {response}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError, ModelError, UsageError, unknown_name
from headwater.data.chat import FOLD, ChatTemplate
from headwater.data.rows import Rendered, Row, Template, Turn, asked_and_answered, close, render_text

NAMES = ("chat", FOLD, "plain", "alpaca")

PROGRAM_ENDINGS = (".jinja", ".jinja2", ".j2")
"""Endings of files that hold a chat template."""

NO_CHATS_REMEDY = "--template with a chat template (a .jinja file), a format string, alpaca, or plain if you mean it"

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{prompt}\n\n### Response:\n{response}"
)
"""The format of the Stanford Alpaca data (Taori et al., 2023) for instructions without input; an instruction's input
is already part of the prompt."""


@dataclass(frozen=True)
class PlainTemplate:
    """The prompt, then the response, with one space between them if neither has white space there.

    Attributes:
        end: the text of the end-of-text token, which is appended and a target; empty for a tokenizer without one.
        chats: whether chats are written too, as lines of roles and texts; False if nobody asked for this template.
    """

    end: str
    chats: bool = True

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the rendering depends on, JSON-ready."""
        return {"name": "plain", "end": self.end} | ({} if self.chats else {"chats": False})

    def render(self, row: Row) -> Rendered:
        """The row as text; the targets are the text, or the response without the space before it."""
        if row.text is not None:
            return render_text(row.text, self.end)
        self._require_no_chat(row)
        prompt, response = asked_and_answered(row)
        apart = not prompt or prompt[-1].isspace() or response[:1].isspace()
        before = prompt if apart else f"{prompt} "
        whole = close(before + response, self.end)
        return _answered(whole, len(before))

    def question_text(self, row: Row) -> str:
        """The row's prompt, and the space that stands before a response."""
        self._require_no_chat(row)
        prompt = row.prompt or ""
        return prompt if not prompt or prompt[-1].isspace() else f"{prompt} "

    def _require_no_chat(self, row: Row) -> None:
        if row.messages is not None and not self.chats:
            what = "a chat, and this tokenizer has no chat template"
            raise DataError(what, where=row.where, remedy=NO_CHATS_REMEDY)


@dataclass(frozen=True)
class FormatTemplate:
    """`before`, the prompt, `between`, the response, `after`, and the end-of-text token `end` (both targets).

    `name` is a known name or the format string itself. A text row is written as it is, without the format.
    """

    name: str
    before: str
    between: str
    after: str
    end: str

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the rendering depends on, JSON-ready."""
        return {"name": self.name, "format": self.written, "end": self.end}

    @property
    def written(self) -> str:
        """The format string."""
        return f"{self.before}{{prompt}}{self.between}{{response}}{self.after}"

    def render(self, row: Row) -> Rendered:
        """The row as text; the targets start with the response."""
        if row.text is not None:
            return render_text(row.text, self.end)
        prompt, response = asked_and_answered(row)
        before = self._before(prompt)
        whole = close(before + response + self.after, self.end)
        return _answered(whole, len(before))

    def question_text(self, row: Row) -> str:
        """The row's prompt in the format, up to the response."""
        return self._before(row.prompt or "")

    def _before(self, prompt: str) -> str:
        return f"{self.before}{prompt}{self.between}"


def _answered(whole: str, start: int) -> Rendered:
    """A text whose only answer goes from `start` to its end."""
    spans = ((start, len(whole)),)
    return Rendered(whole, spans, turns=(Turn(spans),))


def resolve_template(name: str | None, tokenizer: Any) -> Template:
    """The template called `name`, for a `transformers` tokenizer.

    Args:
        name: `chat` (the tokenizer's own), `chat:fold-system` (the same, with a system turn that the template cannot
            write put at the beginning of the first user turn), `plain`, `alpaca`, the path of a chat template
            (`.jinja`) or its text, or a format string with {prompt} and then {response}, in which the two characters
            `\\n` and `\\t` stand for a line break and a tab, as typed in a shell; other braces stand for themselves.
            None: chat if the tokenizer has a chat template, else plain, which then refuses chats.
        tokenizer: has the chat template and the end-of-text token.

    The `name` in a template's fingerprint resolves to the template again.

    Raises:
        UsageError: an unknown name, or a format without its two places.
        ModelError: `chat` for a tokenizer without chat template.
    """
    has_chats, end = bool(getattr(tokenizer, "chat_template", None)), tokenizer.eos_token or ""
    if name is None:
        return ChatTemplate(tokenizer) if has_chats else PlainTemplate(end, chats=False)
    if name == "plain":
        return PlainTemplate(end)
    if name == "alpaca":
        return _parse_format("alpaca", ALPACA, end)
    if name.endswith(PROGRAM_ENDINGS):
        return ChatTemplate(tokenizer, program=_read_program(name))
    if name not in ("chat", FOLD):
        return _from_text(name, tokenizer)
    if not has_chats:
        raise ModelError("this tokenizer has no chat template", where="template", remedy=NO_CHATS_REMEDY)
    return ChatTemplate(tokenizer, fold=name == FOLD)


def restore_template(fingerprint: Mapping[str, Any], tokenizer: Any) -> Template:
    """The template that a fingerprint names, for a tokenizer that may differ."""
    if fingerprint["name"] == "plain":
        return PlainTemplate(tokenizer.eos_token or "", chats=fingerprint.get("chats", True))
    return resolve_template(fingerprint["name"], tokenizer)


def _from_text(text: str, tokenizer: Any) -> Template:
    """A chat template or a format, given as its text."""
    if "{%" in text and "messages" in text:
        return ChatTemplate(tokenizer, program=text)
    if "{" not in text:
        raise unknown_name("template", text, NAMES, where="template")
    written = text.replace("\\n", "\n").replace("\\t", "\t")
    return _parse_format(written, written, tokenizer.eos_token or "")


def _read_program(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"the chat template cannot be read: {error}"
        raise UsageError(what, where="--template", remedy="check the path") from error


def _parse_format(name: str, written: str, end: str) -> FormatTemplate:
    before, prompt, rest = written.partition("{prompt}")
    between, response, after = rest.partition("{response}")
    if not prompt or not response or any(place in before + between + after for place in ("{prompt}", "{response}")):
        remedy = "write {prompt} once and after it {response} once"
        raise UsageError(f"a format without its two places: {written!r}", where="template", remedy=remedy)
    return FormatTemplate(name, before, between, after, end)
