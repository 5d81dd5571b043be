"""Write a text as plain words, so that texts that look alike or say the same have the same words.

    Unicode's compatible forms (NFKD) → no accents, zero-width or direction marks → look-alike letters become Latin ones
    → lower case → no punctuation → words

Look-alike letters come from Unicode's own table of confusable characters (Technical Standard 39), by way of the package
`confusable_homoglyphs`. A word becomes Latin only if every letter of it looks like one, so that words of other scripts
keep their own letters.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Letters of scripts without spaces between words; each counts as a word."""

_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_INSIDE = re.compile(r"(?<=\w)[.\-'’*~·_](?=\w)")
_ALIKE = str.maketrans({"i": "l", "1": "l", "0": "o"})
"""Latin letters and digits that are drawn alike: I, l and 1; O and 0."""

_BLANKS = frozenset("\u115f\u1160\u3164\uffa0\u180e\u2800")
"""Letters and signs that are drawn as nothing."""


def words(text: str) -> list[str]:
    """The text's words in their plain form; a text of signs alone is one word as it is, an empty text has none."""
    if text.isascii():
        found = _ASCII_WORD.findall(_INSIDE.sub("", text.replace("|", "l").lower()).translate(_ALIKE))
    else:
        plain = _INSIDE.sub("", unicodedata.normalize("NFKD", text).translate(_VISIBLE).replace("|", "l"))
        found = [_latin(word).casefold().translate(_ALIKE) for word in _WORD.findall(plain)]
    return found or text.split()


def visible_length(text: str) -> int:
    """How many characters one can see: zero-width ones do not count, and a run of spaces counts once."""
    seen = text if text.isascii() else text.translate(_VISIBLE)
    return len(" ".join(seen.split()))


class _Visible(dict[int, int | None]):
    """A table for `str.translate` that deletes what is drawn as nothing or as an accent; filled as it is used."""

    def __missing__(self, code: int) -> int | None:
        letter = chr(code)
        accent = 0x300 <= code <= 0x36F or 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF
        hidden = accent or letter in _BLANKS or unicodedata.category(letter) == "Cf"
        self[code] = None if hidden else code
        return self[code]


_VISIBLE = _Visible()


def _latin(word: str) -> str:
    """The word in Latin letters if all its letters look like such; else the word itself."""
    if word.isascii():
        return word
    alike = word.translate(_look_alikes())
    return alike if alike.isascii() else word


@cache
def _look_alikes() -> dict[int, str]:
    """A table for `str.translate`: each letter that looks like a Latin letter or a digit, and the one it looks like."""
    from confusable_homoglyphs.confusables import confusables_data

    found: dict[int, str] = {}
    for letter, others in confusables_data.items():
        if len(letter) == 1 and not letter.isascii():
            latin = sorted(c for o in others if len(c := o["c"]) == 1 and c.isascii() and c.isalnum())
            if latin:
                found[ord(letter)] = latin[-1]  # lower case before capitals and digits
    small = {ord(lower): latin for code, latin in found.items() if len(lower := chr(code).lower()) == 1}
    return small | found | {ord(letter): latin for letter, latin in (*_small_capitals(), *_ROUGHLY)}


_ROUGHLY = tuple(zip("γεημω", "yenuw", strict=True))
"""Small Greek letters that are taken for Latin ones though they are not drawn exactly alike."""


def _small_capitals() -> list[tuple[str, str]]:
    """Small capitals and letters of other shapes, which are Latin by name; Unicode's table lacks most of them."""
    pairs = []
    for code in (*range(0x1D00, 0x1D26), *range(0x250, 0x2B0), *range(0xA730, 0xA732)):
        match = re.fullmatch(r"LATIN (?:LETTER SMALL CAPITAL|SMALL LETTER (?:DOTLESS|SCRIPT)) ([A-Z])",
                             unicodedata.name(chr(code), ""))  # fmt: skip
        if match:
            pairs.append((chr(code), match[1].lower()))
    return pairs
