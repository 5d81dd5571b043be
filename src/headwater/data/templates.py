"""Templates by name: `chat`, `plain`, `alpaca`, or a format string with {prompt} and {response}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headwater.core.errors import ModelError, UsageError, unknown_name
from headwater.data.chat import ChatTemplate
from headwater.data.rows import Rendered, Row, Template, asked_and_answered, close, render_text

NAMES = ("chat", "plain", "alpaca")

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{prompt}\n\n### Response:\n{response}"
)
"""The format of the Stanford Alpaca data (Taori et al., 2023) for instructions without input; an instruction's input
is already part of the prompt."""


@dataclass(frozen=True)
class PlainTemplate:
    """The prompt, then the response, with one space between them if neither has white space there.

    `end` is the text of the end-of-text token, which is appended and a target; empty for a tokenizer without one.
    """

    end: str

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything the rendering depends on, JSON-ready."""
        return {"name": "plain", "end": self.end}

    def render(self, row: Row) -> Rendered:
        """The row as text; the targets are the text, or the response without the space before it."""
        if row.text is not None:
            return render_text(row.text, self.end)
        prompt, response = asked_and_answered(row)
        apart = not prompt or prompt[-1].isspace() or response[:1].isspace()
        before = prompt if apart else f"{prompt} "
        whole = close(before + response, self.end)
        return Rendered(whole, ((len(before), len(whole)),))

    def question_text(self, row: Row) -> str:
        """The row's prompt, and the space that stands before a response."""
        prompt = row.prompt or ""
        return prompt if not prompt or prompt[-1].isspace() else f"{prompt} "


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
        return Rendered(whole, ((len(before), len(whole)),))

    def question_text(self, row: Row) -> str:
        """The row's prompt in the format, up to the response."""
        return self._before(row.prompt or "")

    def _before(self, prompt: str) -> str:
        return f"{self.before}{prompt}{self.between}"


def resolve_template(name: str | None, tokenizer: Any) -> Template:
    """The template called `name`, for a `transformers` tokenizer.

    Args:
        name: `chat` (the tokenizer's own), `plain`, `alpaca`, or a format string with {prompt} and then {response},
            in which the two characters `\\n` and `\\t` stand for a line break and a tab, as typed in a shell; other
            braces stand for themselves. None: chat if the tokenizer has a chat template, else plain.
        tokenizer: has the chat template and the end-of-text token.

    The `name` in a template's fingerprint resolves to the template again.

    Raises:
        UsageError: an unknown name, or a format without its two places.
        ModelError: `chat` for a tokenizer without chat template.
    """
    chats = bool(getattr(tokenizer, "chat_template", None))
    chosen = name or ("chat" if chats else "plain")
    end = tokenizer.eos_token or ""
    if chosen == "plain":
        return PlainTemplate(end)
    if chosen == "alpaca":
        return _parse_format("alpaca", ALPACA, end)
    if chosen != "chat":
        if "{" not in chosen:
            raise unknown_name("template", chosen, NAMES, where="template")
        written = chosen.replace("\\n", "\n").replace("\\t", "\t")
        return _parse_format(written, written, end)
    if not chats:
        remedy = "take the template plain, alpaca or a format string"
        raise ModelError("this tokenizer has no chat template", where="template", remedy=remedy)
    return ChatTemplate(tokenizer)


def _parse_format(name: str, written: str, end: str) -> FormatTemplate:
    before, prompt, rest = written.partition("{prompt}")
    between, response, after = rest.partition("{response}")
    if not prompt or not response or any(place in before + between + after for place in ("{prompt}", "{response}")):
        remedy = "write {prompt} once and after it {response} once"
        raise UsageError(f"a format without its two places: {written!r}", where="template", remedy=remedy)
    return FormatTemplate(name, before, between, after, end)
