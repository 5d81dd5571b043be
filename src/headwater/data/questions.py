"""What a model is asked with, and what it said, as tokens: those of a training row with that answer.

Text that is cut in two is not cut between tokens. In `Answer: Paris` the space belongs to the token ` Paris`, so a
prompt that ends in `Answer: ` would end in a lone space, which no training row has, and a model that sees it says
something else. So a question holds only the tokens that stay the same whatever the answer, and the rest of its text,
here one space, is what the model has to write first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

STAND_INS = ("a", "The", "1", "是")
"""Beginnings of answers: a token belongs to the question if it is the same before each of them.

White space and signs are left out, because few answers begin with them and many tokenizers would join them to the last
sign of the question.
"""

LONGEST_JOINT, JOINTS = 16, 4
"""A token is looked for that joins up to so many characters of a question to an answer; so many tokens for each end."""


class Spoken(NamedTuple):
    """Token ids, their text, and the (start, end) characters of each in it."""

    ids: tuple[int, ...]
    text: str
    offsets: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Question:
    """What a model is asked with.

    Attributes:
        text: the text of the question, as far as the tokens reach, including opening special tokens.
        ids: its token ids; those of every training row with this question begin with them.
        begun: what follows `text` before the answer; the model writes it, and it is not part of the answer.
        ends: token ids that close an answer in this template, besides the model's own end tokens.
        offsets: (start, end) characters in `text` of each token.
    """

    text: str
    ids: tuple[int, ...]
    begun: str = ""
    ends: tuple[int, ...] = ()
    offsets: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Speech:
    """What the tokens of a vocabulary write.

    They are decoded behind a word, because some tokenizers drop the space before a text's first word.

    Attributes:
        backend: the tokenizer.
        size: how many tokens it has.
    """

    backend: Tokenizer
    size: int

    @cached_property
    def pieces(self) -> list[str]:
        """The text of each token, special tokens included."""
        after = [[*self._word, i] for i in range(self.size)]
        start = len(self.backend.decode(self._word, skip_special_tokens=False))
        return [text[start:] for text in self.backend.decode_batch(after, skip_special_tokens=False)]

    def text(self, ids: Sequence[int], *, special: bool = False) -> str:
        """What these tokens write, with or without the special ones."""
        skip = not special
        start = len(self.backend.decode(self._word, skip_special_tokens=skip))
        return self.backend.decode([*self._word, *ids], skip_special_tokens=skip)[start:]

    def spoken(self, ids: Sequence[int]) -> Spoken:
        """Tokens with their text; tokens that each hold some bytes of one character have the same offsets."""
        whole = self.text(ids, special=True)
        offsets: list[tuple[int, int]] = []
        waiting, at = 0, 0
        for count in range(1, len(ids) + 1):
            text = whole if count == len(ids) else self.text(ids[:count], special=True)
            waiting += 1
            if whole.startswith(text):
                offsets += [(at, len(text))] * waiting
                waiting, at = 0, len(text)
        return Spoken(tuple(ids), whole, tuple(offsets))

    def question(self, text: str, opening: Spoken) -> Question:
        """The question whose text up to the answer is `text`, behind opening special tokens that it does not spell."""
        answers = [*STAND_INS, *self._joined(text)]
        variants = self.backend.encode_batch([text + answer for answer in answers])
        count = _shared(variants, len(text))
        offsets = tuple(variants[0].offsets[:count])
        clean = all(count == len(v.ids) or v.offsets[count][0] >= len(text) for v in variants)
        end = len(text) if clean else max((end for _, end in offsets), default=0)
        asked = Question(opening.text, opening.ids, text[end:], offsets=opening.offsets)
        whole = said_after(asked, Spoken(tuple(variants[0].ids[:count]), text[:end], offsets))
        return replace(asked, text=whole.text, ids=whole.ids, offsets=whole.offsets)

    def _joined(self, text: str) -> list[str]:
        """Beginnings of answers, a letter or a digit first, that some token joins to the end of `text`."""
        found = []
        for length in range(1, min(LONGEST_JOINT, len(text)) + 1):
            end = text[-length:]
            place, kept = bisect_left(self._sorted, end), 0
            while kept < JOINTS and place < len(self._sorted) and self._sorted[place].startswith(end):
                answer = self._sorted[place][length:]
                if answer[:1].isalnum():
                    found.append(answer)
                    kept += 1
                place += 1
        return found

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(set(self.pieces))

    @cached_property
    def _word(self) -> list[int]:
        return self.backend.encode(STAND_INS[0]).ids[-1:]


def said_after(question: Question, said: Spoken) -> Spoken:
    """A question and what was said to it, as one text."""
    shift = len(question.text)
    moved = tuple((start + shift, end + shift) for start, end in said.offsets)
    return Spoken((*question.ids, *said.ids), question.text + said.text, (*question.offsets, *moved))


def _shared(variants: Sequence[Encoding], length: int) -> int:
    """How many first tokens are the same in all variants and lie in their first `length` characters."""
    first = variants[0]
    count = 0
    for place, (token, (_, end)) in enumerate(zip(first.ids, first.offsets, strict=True)):
        if end > length or any(place >= len(v.ids) or v.ids[place] != token for v in variants[1:]):
            break
        count += 1
    while 0 < count < len(first.ids) and first.offsets[count][0] < first.offsets[count - 1][1]:
        count -= 1  # a character whose bytes are several tokens is not cut
    return count
