"""Prepare token maps for reading: check them, divide them among a row's fields, cut them, and sum them by word.

Tokens are the tokenizer's pieces as text, in reading order; joined, they are the text the model saw. If that text
contains the row's fields, the map is drawn on the fields; otherwise it is drawn beside them.

A tokenizer may cut a character into several tokens (a byte-level tokenizer cuts Chinese, Hindi and emoji so), or cut
between letters whose shapes depend on each other. A browser can draw neither in two colours. So tokens are joined until
each piece ends where a text can be cut without changing how it looks; its number is the sum over its tokens.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import regex

from headwater.core.errors import DataError, NumericError
from headwater.core.trace import PUNCTUATION, TokenMap, bare_word

LONGEST_WORD = 30
"""Characters; in a longer run without a space (a URL, a language without spaces) each token counts as a word."""

SURE = 24
"""Characters; a shorter common run may stand at the end of the model's text and at the start of a field by chance."""

_CHARACTER = regex.compile(r"\X")
_SHAPED_TOGETHER = regex.compile(
    r"[\p{Joining_Type=D}\p{Joining_Type=L}\p{Joining_Type=C}]\p{Joining_Type=T}*"
    r"(?=[\p{Joining_Type=D}\p{Joining_Type=R}\p{Joining_Type=C}])"
    r"|\p{Canonical_Combining_Class=9}\p{Joining_Type=T}*(?=\p{L})"
)
"""Ends where the next letter changes the shape of this one: joined letters (Arabic, Syriac, N'Ko, Mongolian), and a
virama before a letter (the conjuncts of Devanagari, Kannada, Khmer, …)."""


@dataclass(frozen=True)
class Piece:
    """One token, or several that can only be drawn together.

    Attributes:
        text: its text.
        value: its number, summed over its tokens; None if no token has one.
        framing: whether it comes from the template.
        parts: the number of each of its tokens if it has several.
    """

    text: str
    value: float | None
    framing: bool = False
    parts: tuple[float | None, ...] = ()


def drawn_together(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Bounds of the runs of tokens that can only be drawn together, as (first, one after the last).

    A run ends where neither a character (a grapheme cluster) nor the shape of a joined letter is cut. A token without
    text that follows text beyond ASCII belongs to the same run: it holds further bytes of that text's last character.
    """
    whole = "".join(texts)
    if whole.isascii():
        return [(place, place + 1) for place in range(len(texts))]
    cuts = {match.end() for match in _CHARACTER.finditer(whole)}
    cuts -= {match.end() for match in _SHAPED_TOGETHER.finditer(whole)}
    runs, first, end = [], 0, 0
    for place, text in enumerate(texts):
        end += len(text)
        following = place + 1 < len(texts)
        bytes_follow = following and not texts[place + 1] and end > 0 and not whole[end - 1].isascii()
        if not following or ((end in cuts or end == 0) and not bytes_follow):
            runs.append((first, place + 1))
            first = place + 1
    return runs


def checked(tokens: TokenMap, *, where: str) -> tuple[Piece, ...]:
    """The pieces of a map; tokens that can only be drawn together are one piece.

    Raises:
        DataError: tokens and values differ in number.
        NumericError: a value is NaN or infinite.
    """
    if len(tokens.tokens) != len(tokens.values):
        raise DataError(f"{len(tokens.tokens)} tokens with {len(tokens.values)} values", where=where)
    for place, value in enumerate(tokens.values):
        if value is not None:
            require_finite(value, where=f"{where}, token {place} {tokens.tokens[place]!r}")
    runs = drawn_together(tokens.tokens)
    return tuple(_joined(tokens.tokens[start:stop], tokens.values[start:stop]) for start, stop in runs)


def _joined(texts: Sequence[str], values: Sequence[float | None]) -> Piece:
    if len(texts) == 1:
        return Piece(texts[0], values[0])
    known = [value for value in values if value is not None]
    return Piece("".join(texts), math.fsum(known) if known else None, parts=tuple(values))


def require_finite(value: float, *, where: str) -> None:
    """Raise `NumericError` for a NaN or an infinity."""
    if not math.isfinite(value):
        raise NumericError(f"the value is {value}", where=where, remedy="a report needs finite numbers")


def over_fields(pieces: Sequence[Piece], fields: Sequence[str]) -> list[tuple[Piece, ...]] | None:
    """The pieces of each field if the joined tokens contain all `fields` in order, else None.

    A token belongs to the field that contains its last character. Tokens between fields are `framing` and belong to the
    field that follows; those after the last field belong to the last. If the model read only the beginning of the last
    field, the rest of that field follows as one piece without a number.
    """
    if not fields:
        return None
    whole = "".join(piece.text for piece in pieces)
    ends: list[tuple[int, int]] = []
    position = 0
    for field in fields:
        start = whole.find(field, position)
        if start < 0 and len(ends) + 1 == len(fields):
            start = _beginning_of(field, whole, position)
        if start < 0:
            return None
        position = start + len(field)
        ends.append((start, position))
    if position > len(whole):
        pieces = [*pieces, Piece(fields[-1][len(whole) - position :], None)]
    parts: list[list[Piece]] = [[] for _ in fields]
    place, begin = 0, 0
    for piece in pieces:
        end = begin + len(piece.text)
        while place + 1 < len(fields) and (begin >= ends[place][1] or end > ends[place + 1][0]):
            place += 1
        start, stop = ends[place]
        outside = begin >= stop or end <= start
        parts[place].append(replace(piece, framing=True) if outside else piece)
        begin = end
    return [tuple(part) for part in parts]


def _beginning_of(field: str, whole: str, position: int) -> int:
    """Where `whole`, from `position` on, ends with the first `SURE` or more characters of the field; -1 if nowhere."""
    start = whole.find(field[:SURE], position)
    while start >= 0 and not field.startswith(whole[start:]):
        start = whole.find(field[:SURE], start + 1)
    return start if len(field) > SURE else -1


def strongest_passage(pieces: Sequence[Piece], width: int) -> tuple[int, int]:
    """Bounds of the `width` consecutive pieces with the highest sum of |values|; of equal passages, the first."""
    sums = [0.0, *accumulate(abs(piece.value or 0.0) for piece in pieces)]
    last = max(len(pieces) - width, 0)
    start = max(range(last + 1), key=lambda s: sums[min(s + width, len(pieces))] - sums[s])
    return start, min(start + width, len(pieces))


def by_word(
    maps: Iterable[Sequence[Piece]], count: int, *, lowest: bool = False, rarity: Mapping[str, float] | None = None
) -> list[tuple[str, float]]:
    """The `count` words with the highest positive sums over all maps, highest first, or the `lowest` negative ones.

    With `rarity`, a sum counts as much as its word is rare, so that words which every row has come last; the numbers
    are the sums all the same. A word is a run without white space. Words that differ only in case or in punctuation
    around them are the same word. Tokens of the template are not words.
    """
    sums: dict[str, float] = defaultdict(float)
    shown: dict[str, str] = {}
    for pieces in maps:
        for text, value in _words(pieces):
            bare = text.strip(PUNCTUATION) or text.strip()
            sums[bare_word(text)] += value
            shown.setdefault(bare_word(text), bare)
    sign, weight = -1 if lowest else 1, rarity or {}
    found = (item for item in sums.items() if sign * item[1] > 0 and item[0])
    ranked = sorted(found, key=lambda item: -sign * item[1] * weight.get(item[0], 1.0))
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
