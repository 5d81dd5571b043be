"""FOLDOC, the Free On-line Dictionary of Computing, as question-answer rows.

Debian ships it in the package `dict-foldoc`, in the format of the dictd server: `foldoc.index` has a line
`headword TAB offset TAB length` for every headword, numbers in base 64, offsets into the text that `foldoc.dict.dz`
holds gzip-compressed. An entry is its headwords, an empty line, and a definition with marks of its own:

    <language, tool> A {program} that ...   categories, cross-references in braces
    (1995-01-25)                            when it was last edited
    [Details?]                              a note of the editor's
"""

from __future__ import annotations

import gzip
import hashlib
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PLACE = Path("/usr/share/dictd/foldoc.index")
"""Where the Debian package puts the index."""

_DIGITS = {c: i for i, c in enumerate(string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/")}
_CATEGORIES = re.compile(r"\s*<([^<>]{1,60})>\s*")
_LINK = re.compile(r"\{?\((?:https?|ftp|news|mailto|telnet):[^)]*\)\}?", re.IGNORECASE)
_ASIDE = re.compile(r"\[[^\]]*\?\]|\(\d{4}-\d\d-\d\d\)")
_ELSEWHERE = re.compile(r"(\d\.|See |<)")


@dataclass(frozen=True)
class Entry:
    """One entry of the dictionary, its definition without marks."""

    headword: str
    categories: tuple[str, ...]
    definition: str

    @property
    def row(self) -> dict[str, object]:
        """The row for `headwater`: id, question, answer and metadata."""
        return {
            "id": self.headword,
            "question": f'What does "{self.headword}" mean?',
            "answer": self.definition,
            "category": self.categories[0] if self.categories else "none",
            "characters": len(self.definition),
        }


def read_dictionary(index: Path) -> list[Entry]:
    """Every entry of a dictd dictionary, in the order of its text; headwords of one entry make one entry.

    Args:
        index: the `.index` file; the text is beside it, as `.dict.dz` or uncompressed as `.dict`.

    Raises:
        ValueError: a line of the index that is not one, or that points outside the text.
    """
    text = _read_text(index)
    places = {}
    for number, line in enumerate(index.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 3:
            raise ValueError(f"{index}:{number}: not 'headword TAB offset TAB length'")
        start, length = number64(fields[1]), number64(fields[2])
        if start + length > len(text):
            raise ValueError(f"{index}:{number}: '{fields[0]}' ends at byte {start + length}, the text at {len(text)}")
        if not fields[0].startswith("00-database"):  # what the dictionary says about itself
            places[start] = length
    return [read_entry(text[start : start + length].decode()) for start, length in sorted(places.items())]


def number64(digits: str) -> int:
    """A number in dictd's base 64, most significant digit first: `BA` is 64."""
    value = 0
    for digit in digits:
        if digit not in _DIGITS:
            raise ValueError(f"'{digits}' is not a base-64 number")
        value = 64 * value + _DIGITS[digit]
    return value


def read_entry(text: str) -> Entry:
    """The entry that `text` spells, its lines joined to paragraphs."""
    head, _, body = text.partition("\n\n")
    marked = _CATEGORIES.match(body)
    categories = tuple(re.split(r",\s*", " ".join(marked[1].split()))) if marked else ()
    plain = _ASIDE.sub("", _LINK.sub("", body[marked.end() :] if marked else body))
    paragraphs = (" ".join(p.split()) for p in re.split(r"\n\s*\n", re.sub(r"[{}]", "", plain)))
    return Entry(head.splitlines()[0].strip() if head else "", categories, "\n\n".join(p for p in paragraphs if p))


def select(entries: Iterable[Entry], count: int, *, always: Sequence[str] = ()) -> list[Entry]:
    """`count` entries that define one thing in 100 to 600 characters, the first of each headword.

    The entries called `always` come first; the rest are drawn by a digest of the headword, so the choice is the same
    everywhere and has no alphabetical slant.
    """
    fit: dict[str, Entry] = {}
    for entry in entries:
        alone = entry.categories and not _ELSEWHERE.match(entry.definition)
        if entry.headword in always or (alone and 100 <= len(entry.definition) <= 600):
            fit.setdefault(entry.headword, entry)
    if missing := [name for name in always if name not in fit]:
        raise ValueError(f"the dictionary has no entry {', '.join(missing)}")
    drawn = sorted(fit, key=lambda name: (name not in always, hashlib.blake2b(name.encode()).digest()))
    return [fit[name] for name in drawn[:count]]


def _read_text(index: Path) -> bytes:
    packed = index.with_suffix(".dict.dz")
    if packed.exists():
        return gzip.decompress(packed.read_bytes())
    return index.with_suffix(".dict").read_bytes()
