"""Where the assistant's turns are in the text of a chat.

A chat template is a program and does not report where it puts an answer. If it marks answers (`{% generation %}`), its
marks are taken. Otherwise a turn is what the template adds to the text of the chat before it with a generation prompt.
Many templates write history differently from the end of a chat: they drop thoughts, close the last turn with another
token, or open a thought in the generation prompt alone. Then two chats that differ only in this answer are compared:
what they have in common surrounds the answer, however the template changes it.

A turn's text starts behind what the generation prompt and the text before the answer have in common, and ends with
the token that closes the turn.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from headwater.core.errors import DataError, ModelError
from headwater.data.rows import Span
from headwater.data.writer import ALIGN_REMEDY, STAND_INS, ChatWriter, Messages

Write = Callable[..., str]
"""`write(messages, generation=False)`: the text of a chat, or of its beginning."""

PIECE = re.compile(r"<[^<>\s]+>|\w+|\s|.")
"""A marker such as `<|end|>`, a word, or one other character."""

MARKER = re.compile(r"<[^<>\s]+>")

EARLIER = "Something that was said before this"
"""Stands for the turn before an answer."""


@dataclass(frozen=True)
class TurnFinder:
    """Finds the assistant's turns in what a template writes.

    Attributes:
        writer: the template.
        markers: the special tokens' texts, any of which may close a turn.
    """

    writer: ChatWriter
    markers: tuple[str, ...]

    @cached_property
    def closing(self) -> str:
        """What the template writes after the last answer of a chat, without white space at its end."""
        asked = {"role": "user", "content": "a"}
        first, second = (
            self.writer.write([asked, {"role": "assistant", "content": text}], "chat template") for text in STAND_INS
        )
        if first == second:
            raise ModelError("the chat template writes no answer", where="chat template", remedy=ALIGN_REMEDY)
        return _common_end(first, second).rstrip()

    def find(self, write: Write, messages: Messages, whole: str, where: str) -> dict[int, Span]:
        """(start, end) in `whole` of each assistant turn, by its position in the chat; raises `DataError`."""
        spoken = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        turns = {}
        for i in spoken:
            chat = _Around(write, messages, i, whole)
            start = self._start(chat)
            end = self._end(chat)
            if start is None or end is None or end < start:
                fault = f"the chat template's text does not show where message {i} starts and ends"
                raise DataError(fault, where=where, remedy=ALIGN_REMEDY)
            turns[i] = (start, end)
        return turns

    def _start(self, chat: _Around) -> int | None:
        asked, before, opening = chat.asked, chat.before, self._opening
        if asked is None or before is None:
            return self._start_inside(chat)
        if chat.whole.startswith(asked):
            return len(asked)
        if asked.startswith(before):
            opening = asked[len(before) :]
        heading = chat.heading  # what stands between the turn before and the answer
        if heading is None:
            return None
        shared = _shared(opening, heading)
        if opening and not shared:  # a heading that nobody can prompt with
            return chat.answer_start
        return chat.answer_start - len(heading) + shared

    def _start_inside(self, chat: _Around) -> int | None:
        """Where a turn starts whose beginning of the chat cannot be written: behind the last generation prompt."""
        between = chat.between
        if between is None:
            return None
        if not self._opening and not chat.i:
            return 0
        opening = _longest_inside(self._opening, between)
        return chat.answer_start - (len(between) - between.rindex(opening) - len(opening) if opening else 0)

    @cached_property
    def _opening(self) -> str:
        """The generation prompt."""
        asked = [{"role": "user", "content": "a"}]
        prompted, bare = (self.writer.write(asked, "chat template", generation=g) for g in (True, False))
        return prompted[_shared(prompted, bare) :]  # without a prompt some templates close the chat

    def _end(self, chat: _Around) -> int | None:
        whole = chat.whole
        if chat.i == len(chat.messages) - 1:
            return len(whole.rstrip()) if self.closing else len(whole)
        said = chat.beginning(chat.i + 1)
        if self.closing and said is not None and whole.startswith(said.rstrip()):
            return len(said.rstrip())
        after = _common_end(*chat.varied)
        if not whole.endswith(after):
            return None
        return len(whole) - len(after) + self._closes(after)

    def _closes(self, after: str) -> int:
        """How much of what follows an answer closes its turn."""
        if self.closing and after.startswith(self.closing):
            return len(self.closing)
        if shared := after[: _shared(self.closing, after)].rstrip():
            return len(shared)
        text = after.lstrip()
        found = next((marker for marker in self.markers if text.startswith(marker)), "")
        if not found and (tag := MARKER.match(text)):
            found = tag.group()
        return len(after) - len(text) + len(found) if found else 0


@dataclass(frozen=True)
class _Around:
    """The text around one answer: `messages[i]` of a chat whose text is `whole`."""

    write: Write
    messages: Messages
    i: int
    whole: str

    def beginning(self, until: int, *, generation: bool = False) -> str | None:
        """The chat up to a message; None if there is nothing before it, or the template refuses such a chat."""
        if not until:
            return None
        with contextlib.suppress(DataError):  # some templates write no chat without a question
            return self.write(self.messages[:until], generation=generation)
        return None

    @cached_property
    def asked(self) -> str | None:
        """The chat before the turn, with a generation prompt."""
        return self.beginning(self.i, generation=True)

    @cached_property
    def before(self) -> str | None:
        """The chat before the turn."""
        return self.beginning(self.i)

    @cached_property
    def between(self) -> str | None:
        """What the whole text has between the words before and the answer; None if that cannot be told."""
        to_answer = self.whole[: self.answer_start]
        if self.i == 0:
            return to_answer
        between = self._between_stand_ins
        return between if between is not None and to_answer.endswith(between) else None

    @cached_property
    def _between_stand_ins(self) -> str | None:
        """What stands between the turn before and the answer when both have other words."""
        _, found, after = self._with({self.i - 1: EARLIER, self.i: STAND_INS[0]}).partition(EARLIER)
        between, also, _ = after.partition(STAND_INS[0])
        return between if found and also else None

    @cached_property
    def varied(self) -> tuple[str, str]:
        """The whole chat with either stand-in for the answer."""
        first, second = (self._with({self.i: text}) for text in STAND_INS)
        return first, second

    @cached_property
    def answer_start(self) -> int:
        """Where the answer starts in the whole text, behind everything that the template writes for any answer.

        An answer and a template's own text may both begin with a marker, and then part of it is in common by chance.
        """
        start = common_start(self.whole, *self.varied)
        return next((m.start() for m in MARKER.finditer(self.whole) if m.start() < start < m.end()), start)

    @cached_property
    def heading(self) -> str | None:
        """What the whole text has between the turn before and the answer; None if that cannot be told."""
        to_answer = self.whole[: self.answer_start]
        if self.before is not None and to_answer.startswith(self.before):
            return to_answer[len(self.before) :]
        # The text before is written differently in the whole chat, so that turn is replaced as well.
        between = self._between_stand_ins
        _, _, closed = self._with({self.i - 1: EARLIER}, until=self.i).partition(EARLIER)
        if between is None or not between.startswith(closed):
            return None
        heading = between[len(closed) :]
        return heading if to_answer.endswith(heading) else None

    def _with(self, texts: dict[int, str], until: int | None = None) -> str:
        """The chat up to `until`, in which some messages have another text and nothing else."""
        chat = list(self.messages[:until])
        for place, text in texts.items():
            chat[place] = {"role": chat[place]["role"], "content": text}
        try:
            return self.write(chat)
        except DataError:  # what follows may answer this message's tool calls
            for place, text in texts.items():
                chat[place] = {**self.messages[place], "content": text}
            return self.write(chat)


def common_start(first: str, *others: str) -> int:
    """Length of the common beginning of several texts, found by halving."""
    low, high = 0, min(map(len, (first, *others)))
    while low < high:
        middle = (low + high + 1) // 2
        if all(other.startswith(first[:middle]) for other in others):
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(first: str, second: str) -> str:
    """The common end of two texts."""
    length = common_start(first[::-1], second[::-1])
    return first[len(first) - length :]


def _shared(first: str, second: str) -> int:
    """Length of the common beginning of two texts, in whole pieces."""
    if second.startswith(first) or first.startswith(second):
        return min(len(first), len(second))
    length = 0
    for one, other in zip(PIECE.findall(first), PIECE.findall(second), strict=False):
        if one != other:
            break
        length += len(one)
    return length


def _longest_inside(text: str, other: str) -> str:
    """The longest beginning of `text`, in whole pieces, that is somewhere in `other`."""
    length = 0
    for piece in PIECE.findall(text):
        if text[: length + len(piece)] not in other:
            break
        length += len(piece)
    return text[:length]


def assign_marks(marks: Sequence[Span], write: Write, messages: Messages, whole: str) -> dict[int, list[Span]]:
    """The template's marks by the turn they belong to: a mark belongs to the last turn that starts before it."""
    spoken = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    starts = [_earliest(_Around(write, messages, i, whole)) for i in spoken]
    owned: dict[int, list[Span]] = {i: [] for i in spoken}
    for start, end in marks:
        owner = max((i for i, at in zip(spoken, starts, strict=True) if at <= start), default=spoken[0])
        owned[owner].append((start, end))
    return owned


def _earliest(chat: _Around) -> int:
    """A place behind the words of the turn before, or inside them, and before the answer's mark."""
    if not chat.i:
        return 0
    if chat.before is not None:
        return common_start(chat.whole, chat.before)
    return _Around(chat.write, chat.messages, chat.i - 1, chat.whole).answer_start + 1
