"""Read the texts that Debian packages: dictionaries of the dictd server, WordNet, and fortune files.

    apt-get install dict-foldoc dict-jargon wordnet-base fortunes

They are real text with a known domain, which packages of Python do not hold.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headwater.core.errors import DataError

PACKAGES = "dict-foldoc dict-jargon wordnet-base fortunes"
NOUNS = {
    **{5: "animal", 6: "artifact", 8: "body", 9: "cognition", 13: "food", 15: "place", 17: "object"},
    **{18: "person", 19: "phenomenon", 20: "plant", 26: "state", 27: "substance"},
}
"""WordNet's numbers of noun domains, with our names; other domains keep the name of their part of speech."""

_BASE64 = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
_DOMAIN = re.compile(r"<([^<>]{1,60})>\s*")
_NOISE = re.compile(r"\[[^\]]*\]|\(\d{4}-\d\d-\d\d\)|\(?(?:https?|ftp|news|mailto):\S+|[{}]")


@dataclass(frozen=True)
class DictionaryEntry:
    """A word, what it means in plain words, and the domain it belongs to."""

    word: str
    meaning: str
    domain: str


def read_dictd(place: Path, name: str) -> list[DictionaryEntry]:
    """The entries of the dictionary `name` below `place`, in the order of its text.

    Their domain is the first category in angle brackets, as FOLDOC gives it, or the dictionary's name.

    Raises:
        DataError: the dictionary is not there.
    """
    folder = place / "share/dictd"
    index, packed = folder / f"{name}.index", folder / f"{name}.dict.dz"
    _require(index)
    text = gzip.decompress(packed.read_bytes())
    places: dict[int, int] = {}
    for line in index.read_text(encoding="utf-8").splitlines():
        word, start, length = line.split("\t")[:3]
        if not word.startswith("00-database"):
            places[_number(start)] = _number(length)
    entries = (text[start : start + length].decode("utf-8", "replace") for start, length in sorted(places.items()))
    return [found for entry in entries if (found := _entry(entry, name)) is not None]


def read_wordnet(place: Path) -> list[DictionaryEntry]:
    """WordNet's synsets below `place`: the first word of each, its gloss without examples, and its domain."""
    found = []
    for part in ("noun", "verb", "adj", "adv"):
        source = place / f"share/wordnet/data.{part}"
        _require(source)
        for line in source.read_text(encoding="utf-8").splitlines():
            if line.startswith(" "):
                continue
            facts, _, gloss = line.partition(" | ")
            fields, meaning = facts.split(" "), gloss.split('; "')[0].strip().rstrip(";")
            domain = NOUNS.get(int(fields[1]), part) if part == "noun" else part
            found.append(DictionaryEntry(fields[4].replace("_", " "), meaning, domain))
    return found


def read_fortunes(place: Path) -> list[DictionaryEntry]:
    """The fortunes below `place`, one entry each; their word is empty and their domain is the file's name."""
    folder = place / "share/games/fortunes" if (place / "share/games/fortunes").is_dir() else place / "games/fortunes"
    _require(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.suffix)
    return [
        DictionaryEntry("", " ".join(text.split()), path.name)
        for path in files
        for text in path.read_text(encoding="utf-8", errors="replace").split("\n%\n")
        if text.strip()
    ]


def _entry(text: str, name: str) -> DictionaryEntry | None:
    head, _, body = text.partition("\n")
    body = "\n".join(line for line in body.splitlines() if line.startswith((" ", "\t")) or not line)
    domain = _DOMAIN.search(body)
    meaning = " ".join(_NOISE.sub(" ", _DOMAIN.sub(" ", body, count=1)).split())
    if not meaning or meaning.startswith(("See ", "->")):
        return None
    return DictionaryEntry(head.strip(), meaning, domain[1].split(",")[0].strip() if domain else name)


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = 64 * value + _BASE64[digit]
    return value


def _require(path: Path) -> None:
    if not path.exists():
        remedy = f"apt-get install {PACKAGES}, or name the folder they were unpacked to (its usr) with --text"
        raise DataError("this text is not installed", where=str(path), remedy=remedy)


def short(entries: list[DictionaryEntry], *, least: int = 20, most: int = 400) -> Iterator[DictionaryEntry]:
    """The entries whose meaning has so many characters; longer ones are cut at the end of a sentence or left out."""
    for entry in entries:
        meaning = entry.meaning
        if len(meaning) > most:
            end = meaning.rfind(". ", 0, most)
            meaning = meaning[: end + 1] if end > 0 else ""
        if len(meaning) >= least:
            yield DictionaryEntry(entry.word, meaning, entry.domain)
