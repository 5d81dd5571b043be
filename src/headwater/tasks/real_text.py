"""A pool of real text: what does it hold for a model that should explain the words of one domain?

Questions and answers from WordNet, FOLDOC and the Jargon File, and texts from fortune files, by provider and domain.
Some rows of every domain are corrupted (their words shuffled, or the answer to another question), and some are junk.
The target asks for words of one domain. The base model has read other entries, of other domains.

    helpful   rows of the target's domain
    other     rows of other domains
    corrupt   rows of the target's domain and of others, shuffled or with a strange answer
    junk      signs without words
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from headwater.core.errors import DataError
from headwater.data.rows import Record
from headwater.tasks.dictionaries import DictionaryEntry, read_dictd, read_fortunes, read_wordnet, short
from headwater.tasks.pool import PoolTask
from headwater.tasks.task import numbered

SHARES = {
    **{"foldoc": 0.24, "jargon": 0.07, "fortunes": 0.12, "animal": 0.08, "plant": 0.07, "food": 0.05, "place": 0.07},
    **{"person": 0.08, "artifact": 0.10, "corrupt": 0.08, "junk": 0.04},
}
"""Share of the pool by source; WordNet's nouns come by domain."""

BEFORE = {"verb": 0.25, "adj": 0.25, "noun": 0.2, "state": 0.05, "cognition": 0.05, "fortunes": 0.2}
"""Share of the base model's rows by source."""

_SIGNS = "#@~|/\\<>=+*_-^%$&0123456789"
_ASKED = {"foldoc": "What does the term {} mean in computing?", "jargon": "What do hackers mean by {}?"}


def real_text_task(
    seed: int,
    *,
    rows: int = 3600,
    target: int = 80,
    warm_up: int = 6000,
    domain: str = "animal",
    place: str | Path = "/usr",
) -> PoolTask:
    """Make the task from the packages below `place`.

    Args:
        seed: of all draws.
        rows: of the pool, at least 100; with all sources at their shares, the text lasts for about 12,000.
        target: how many target rows; as many more are held out for measuring.
        warm_up: rows of the base model; none of them is in the pool.
        domain: of the target, one of WordNet's in `SHARES`.
        place: the folder that holds `share/dictd`, `share/wordnet` and the fortunes.

    Raises:
        DataError: a package is not installed, or a source has too few entries.
    """
    rng = Random(seed)
    sources = _sources(Path(place), rng)
    asked = [{**_row(domain, e), "kind": "helpful"} for e in _take(sources, domain, 2 * target)]
    pool: list[dict[str, Any]] = []
    for source, share in SHARES.items():
        count = round(share * rows)
        if source == "junk":
            pool += [_junk(rng) for _ in range(count)]
        elif source == "corrupt":
            pool += _corrupted(sources, count, domain, rng)
        else:
            kind = "helpful" if source == domain else "other"
            pool += [{**_row(source, entry), "kind": kind} for entry in _take(sources, source, count)]
    for row in pool:
        row["provider"] = _provider(row, rng)
    rng.shuffle(pool)
    before = [_row(s, e) for s, share in BEFORE.items() for e in _take(sources, s, round(share * warm_up))]
    return PoolTask(
        rows=numbered(pool, "row"),
        target=numbered(asked[:target], "target"),
        held_out=numbered(asked[target:], "held"),
        warm_up=numbered(before, "known"),
    )


def _sources(place: Path, rng: Random) -> dict[str, list[DictionaryEntry]]:
    """The entries of each source in random order; taking them from the end leaves none twice."""
    found: dict[str, list[DictionaryEntry]] = {
        name: list(short(read_dictd(place, name))) for name in ("foldoc", "jargon")
    }
    found["fortunes"] = list(short(read_fortunes(place)))
    for entry in short(read_wordnet(place)):
        found.setdefault(entry.domain, []).append(entry)
    for entries in found.values():
        rng.shuffle(entries)
    return found


def _take(sources: dict[str, list[DictionaryEntry]], name: str, count: int) -> list[DictionaryEntry]:
    entries = sources.get(name, [])
    if len(entries) < count:
        what = f"the source '{name}' has {len(entries):,} entries left, {count:,} are wanted"
        raise DataError(what, where="real text", remedy="take a smaller pool, target or warm-up")
    taken, entries[:] = entries[:count], entries[count:]
    return taken


def _row(source: str, entry: DictionaryEntry) -> dict[str, Any]:
    if not entry.word:
        return {"text": entry.meaning, "domain": entry.domain, "source": source}
    ask = _ASKED.get(source, "What does the word {} mean?").format(entry.word)
    return {"prompt": ask, "response": entry.meaning, "domain": entry.domain, "source": source}


def _corrupted(sources: dict[str, list[DictionaryEntry]], count: int, domain: str, rng: Random) -> list[dict[str, Any]]:
    """Half of them of the target's domain; every second has its words shuffled, the others a strange answer."""
    found = []
    for place in range(count):
        source = domain if place % 2 else rng.choice(["foldoc", "plant", "person"])
        (entry,) = _take(sources, source, 1)
        row, words = _row(source, entry), entry.meaning.split()
        rng.shuffle(words)
        strange = rng.choice(sources["fortunes"]).meaning[:200]
        row["response"] = " ".join(words) if place % 4 < 2 else strange
        found.append({**row, "kind": "corrupt"})
    return found


def _junk(rng: Random) -> dict[str, Any]:
    text = "".join(rng.choice(_SIGNS) for _ in range(rng.randint(20, 120)))
    row = {"prompt": f"What does the word {text[:6]} mean?", "response": text[6:]}
    return {**row, "domain": "none", "source": "junk", "kind": "junk"}


_PROVIDERS = {"foldoc": "computing desk", "jargon": "computing desk", "fortunes": "cookie jar", "junk": "scrape"}


def _provider(row: Record, rng: Random) -> str:
    """Most corrupted and junk rows come from the scrape; one row in ten of any source is sold by a second seller."""
    if row["kind"] == "corrupt" and rng.random() < 0.7:
        return "scrape"
    return "resale" if rng.random() < 0.1 else _PROVIDERS.get(row["source"], "word house")
