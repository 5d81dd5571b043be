"""The words of an answer that a reader can select, one after the other, and the passages that her selection makes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import regex

from headwater.core.trace import PUNCTUATION

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_PIECE = regex.compile(rf"(?:[{_UNSPACED}]\p{{M}}*)|(?:(?![{_UNSPACED}])\S)+")
"""A run without white space; in writing without spaces, one character with its marks."""

MOST_WORDS = 1500
"""Words of an answer that can be selected; what follows is shown as text."""


@dataclass(frozen=True)
class SelectableWord:
    """A word of an answer: its number, the white space before it, its text, and whether it is selected."""

    number: int
    lead: str
    text: str
    selected: bool = False


def words_of(answer: str, spans: Iterable[str] = ()) -> tuple[list[SelectableWord], str]:
    """The words of an answer, those that touch a passage of `spans` selected; and the text behind the last word."""
    chosen = [(start, start + len(span)) for span in spans if span for start in _all(answer, span)]
    found, end = [], 0
    for number, match in enumerate(_PIECE.finditer(answer)):
        if number >= MOST_WORDS:
            break
        touched = any(start < match.end() and match.start() < stop for start, stop in chosen)
        found.append(SelectableWord(number, answer[end : match.start()], match.group(), touched))
        end = match.end()
    return found, answer[end:]


def passages(answer: str, numbers: Iterable[int]) -> tuple[str, ...]:
    """The passages that the words with these numbers make: neighbours are one, without punctuation at the ends."""
    matches = list(_PIECE.finditer(answer))
    wanted = sorted({number for number in numbers if 0 <= number < len(matches)})
    runs: list[list[int]] = []
    for number in wanted:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = (answer[matches[run[0]].start() : matches[run[-1]].end()] for run in runs)
    return tuple(dict.fromkeys(text.strip(PUNCTUATION) or text for text in texts))


def _all(text: str, part: str) -> list[int]:
    places, start = [], text.find(part)
    while start >= 0:
        places.append(start)
        start = text.find(part, start + 1)
    return places
