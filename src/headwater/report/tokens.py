"""Prepare token maps for reading: check them, divide them among a row's fields, cut them, and sum them by word.

Tokens are the tokenizer's pieces as text, in reading order; joined, they are the text the model saw. If that text
contains the row's fields, the map is drawn on the fields; otherwise it is drawn beside them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from headwater.core.errors import DataError, NumericError
from headwater.core.trace import TokenMap

PUNCTUATION = " .,;:!?…'\"“”‘’()[]{}*_\n\t"
"""These are stripped from both ends of a word; the brackets of special tokens such as `</s>` are not."""
LONGEST_WORD = 30
"""Characters; in a longer run without a space (a URL, a language without spaces) each token counts as a word."""


@dataclass(frozen=True)
class Piece:
    """One token: its text, its number if it has one, and whether it comes from the template (`framing`)."""

    text: str
    value: float | None
    framing: bool = False


def checked(tokens: TokenMap, *, where: str) -> tuple[Piece, ...]:
    """The pieces of a map.

    Raises:
        DataError: tokens and values differ in number.
        NumericError: a value is NaN or infinite.
    """
    if len(tokens.tokens) != len(tokens.values):
        raise DataError(f"{len(tokens.tokens)} tokens with {len(tokens.values)} values", where=where)
    for place, value in enumerate(tokens.values):
        if value is not None:
            require_finite(value, where=f"{where}, token {place} {tokens.tokens[place]!r}")
    return tuple(Piece(text, value) for text, value in zip(tokens.tokens, tokens.values, strict=True))


def require_finite(value: float, *, where: str) -> None:
    """Raise `NumericError` for a NaN or an infinity."""
    if not math.isfinite(value):
        raise NumericError(f"the value is {value}", where=where, remedy="a report needs finite numbers")


def over_fields(pieces: Sequence[Piece], fields: Sequence[str]) -> list[tuple[Piece, ...]] | None:
    """The pieces of each field if the joined tokens contain all `fields` in order, else None.

    A token belongs to the field that contains its last character. Tokens between fields are `framing` and belong to the
    field that follows; those after the last field belong to the last.
    """
    if not fields:
        return None
    whole = "".join(piece.text for piece in pieces)
    ends: list[tuple[int, int]] = []
    position = 0
    for field in fields:
        start = whole.find(field, position)
        if start < 0:
            return None
        position = start + len(field)
        ends.append((start, position))
    parts: list[list[Piece]] = [[] for _ in fields]
    place, begin = 0, 0
    for piece in pieces:
        end = begin + len(piece.text)
        while place + 1 < len(fields) and (begin >= ends[place][1] or end > ends[place + 1][0]):
            place += 1
        start, stop = ends[place]
        parts[place].append(Piece(piece.text, piece.value, framing=begin >= stop or end <= start))
        begin = end
    return [tuple(part) for part in parts]


def strongest_passage(pieces: Sequence[Piece], width: int) -> tuple[int, int]:
    """Bounds of the `width` consecutive pieces with the highest sum of |values|; of equal passages, the first."""
    sums = [0.0, *accumulate(abs(piece.value or 0.0) for piece in pieces)]
    last = max(len(pieces) - width, 0)
    start = max(range(last + 1), key=lambda s: sums[min(s + width, len(pieces))] - sums[s])
    return start, min(start + width, len(pieces))


def by_word(maps: Iterable[Sequence[Piece]], count: int, *, lowest: bool = False) -> list[tuple[str, float]]:
    """The `count` words with the highest positive sums over all maps, highest first, or the `lowest` negative ones.

    A word is a run without white space. Words that differ only in case or in punctuation around them are the same word.
    Tokens of the template are not words.
    """
    sums: dict[str, float] = defaultdict(float)
    shown: dict[str, str] = {}
    for pieces in maps:
        for text, value in _words(pieces):
            bare = text.strip(PUNCTUATION) or text.strip()
            sums[bare.casefold()] += value
            shown.setdefault(bare.casefold(), bare)
    sign = -1 if lowest else 1
    ranked = sorted((item for item in sums.items() if sign * item[1] > 0 and item[0]), key=lambda item: -sign * item[1])
    return [(shown[word], value) for word, value in ranked[:count]]


def _words(pieces: Sequence[Piece]) -> Iterable[tuple[str, float]]:
    group: list[Piece] = []
    for piece in [*(piece for piece in pieces if not piece.framing), Piece(" ", None)]:
        if group and (piece.text[:1].isspace() or group[-1].text[-1:].isspace()):
            text = "".join(p.text for p in group)
            parts = [group] if len(text.strip()) <= LONGEST_WORD else [[p] for p in group]
            yield from (("".join(p.text for p in part), sum(p.value or 0.0 for p in part)) for part in parts)
            group = []
        group.append(piece)
