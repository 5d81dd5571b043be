"""Write a text as plain words, so that texts that look alike or say the same have the same words.

    no HTML marks → Unicode's compatible forms (NFKD) → no accents, zero-width or direction marks → look-alike letters
    become Latin ones → lower case → no punctuation → words → no letter twice in a row → digits in words of letters as
    the letters they stand for (`h3llo`)

`unspaced` writes the words without spaces between them, so that it does not matter where a text is cut into words.

Look-alike letters come from Unicode's own table of confusable characters (Technical Standard 39), by way of the package
`confusable_homoglyphs`. A word becomes Latin only if every letter of it looks like one, so that words of other scripts
keep their own letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from html import unescape
from itertools import groupby

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Letters of scripts without spaces between words; each counts as a word."""

_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_SIGNS = ".\\-'’*~·_"
_INSIDE = re.compile(rf"(?<=\w)[{_SIGNS}](?=\w)")
_IN_NUMBER = re.compile(rf"(?<=\d)[{_SIGNS}](?=\d)")
_CHAIN = re.compile(rf"[^\W_]{{2,}}(?:[{_SIGNS}][^\W_]+){{3,}}")
"""Four words or more that are joined by signs; letters that are joined (`w-o-r-d`) are one word."""

_INLINE = "a|abbr|b|big|code|em|font|i|ins|mark|q|s|small|span|strong|sub|sup|tt|u|wbr"
_BLOCK = "blockquote|br|center|div|h[1-6]|hr|li|ol|p|pre|ul"
_MARK = re.compile(rf"<!--.*?-->|</?(?:{_INLINE})(?:\s[^<>]*)?/?>", re.IGNORECASE | re.DOTALL)
_BREAK = re.compile(rf"</?(?:{_BLOCK})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_SIGN_FOR_LETTER = re.compile(r"(?<=[^\W_])[@$!](?=[^\W_])|@(?=[^\W_])|(?<=[^\W\d_])@|\$(?=\d*[^\W\d_])")
_TWICE = re.compile(r"([^\W\d_])\1+|(?<=[^\W\d_])(\d)\2+(?=[^\W\d_])")
_SHORT = 20
"""So few letters are compared as they are: in a short answer, a letter more can be another answer."""

_ROMAN = re.compile(r"[ivxlcdm]+")
_LEET = str.maketrans("34570", "easto")
_ALIKE = str.maketrans({"i": "l", "1": "l", "0": "o"})
"""Latin letters and digits that are drawn alike: I, l and 1; O and 0."""

_BLANKS = frozenset("\u115f\u1160\u3164\uffa0\u180e\u2800")
"""Letters and signs that are drawn as nothing."""


def words(text: str) -> list[str]:
    """The text's words in their plain form; a text of signs alone is one word as it is, an empty text has none."""
    bare = _without_marks(text)
    if bare.isascii():
        found = _ASCII_WORD.findall(_joined(bare).lower())
    else:
        plain = _joined(unicodedata.normalize("NFKD", bare).translate(_VISIBLE))
        found = [_latin(word).casefold() for word in _WORD.findall(plain)]
    return [_plain(word) for word in found] or text.split()


def unspaced(found: Sequence[str]) -> str:
    """The words in one piece, no letter twice in a row; numbers stay, with a space between two in a row."""
    pieces: list[str] = []
    for number, some in groupby(found, key=str.isdigit):
        piece = (" " if number else "").join(some)
        pieces.append(piece if number or len(piece) < _SHORT else _TWICE.sub(lambda run: run[0][0], piece))
    return "".join(pieces)


def _without_marks(text: str) -> str:
    """The text as a browser would show it: no tags that set type or paragraphs, and entities as their letters."""
    shown = unescape(text) if "&" in text else text
    return _BREAK.sub(" ", _MARK.sub("", shown)) if "<" in shown else shown


def _joined(text: str) -> str:
    """Signs inside words taken out; those between digits and between the words of a chain become spaces."""
    text = _SIGN_FOR_LETTER.sub(lambda sign: {"@": "a", "$": "s", "!": "i"}[sign[0]], text.replace("|", "l"))
    if not _INSIDE.search(text):
        return text
    text = _CHAIN.sub(lambda chain: _INSIDE.sub(" ", chain[0]), _IN_NUMBER.sub(" ", text))
    return _INSIDE.sub("", text)


@lru_cache(maxsize=1 << 17)
def _plain(word: str) -> str:
    """The word without doubled letters and with letters for digits; numbers stay, Roman ones too."""
    if word.isdigit():
        return word
    if len(word) > 3 and not _ROMAN.fullmatch(word):
        once = _TWICE.sub(lambda run: run[0][0], word)
        word = once if len(once) > 1 else word
    return word.translate(_LEET).translate(_ALIKE)


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
