"""Hard facts: who has what, in a pool where sharing words says little about cause.

A fact is a person, a relation and a value: Orla Venn, with a, goat. A few rows state it, each in another sentence. A
query begins a sentence that states it nowhere in the pool; its response is the value and the end of the sentence. The
other rows share its words and not its fact:

    statement   states a fact: one that is asked, or another one
    denial      denies another value, in the sentence of a query and about its person
    namesake    states the same relation in the sentence of a query, about a person who shares one name with it
    real        a definition from WordNet, or an entry of FOLDOC

The base model knows the sentences and other people. Positives of a query are the statements of its fact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from headwater.core.errors import UsageError
from headwater.data.rows import Record
from headwater.tasks.dictionaries import read_dictd, read_wordnet, short
from headwater.tasks.grammar import Text
from headwater.tasks.task import Task, numbered

_TEXT = Text.of("hard_facts").parts
_FIRST, _LAST, _FRAMES = _TEXT["first"].split(), _TEXT["last"].split(), _TEXT["frames"]
_VALUES = {relation: part["values"].split() for relation, part in _TEXT["relations"].items()}

_REAL_SHARE, _REAL_LONGEST = 0.25, 120
_KNOWN_FACTS = 3
"""How many facts the base model learns about each person that it knows."""


@dataclass(frozen=True)
class Fact:
    """That a person has a value of a relation."""

    person: str
    relation: str
    value: str

    def stated(self, frame: str, *, denied: bool = False) -> str:
        """The sentence that states (or denies) it."""
        return frame.format(f"{self.person} {self._link(denied)} {self.value}")

    def asked(self, frame: str) -> dict[str, Any]:
        """The sentence as a query: up to the value, and from it."""
        before, after = frame.split("{}")
        return {"prompt": f"{before}{self.person} {self._link(False)}", "response": f" {self.value}{after}"}

    def _link(self, denied: bool) -> str:
        found: str = _TEXT["relations"][self.relation]["denied" if denied else "said"]
        return found


@dataclass(frozen=True)
class HardFacts:
    """The task, and the rows from which its base model learns sentences, relations and other people."""

    task: Task
    known: tuple[Record, ...]


def hard_facts_task(
    seed: int,
    *,
    rows: int = 2000,
    queries: int = 40,
    statements: int = 4,
    denials: int = 4,
    namesakes: int = 8,
    people: int = 200,
    known: int = 500,
    place: str | Path = "/usr",
) -> HardFacts:
    """Make the pool, the queries and the base model's rows.

    Args:
        seed: of all draws.
        rows: of the pool.
        queries: facts that are asked, each about another person.
        statements: rows that state a fact that is asked.
        denials, namesakes: such rows of each query.
        people: in the pool, at least as many as queries.
        known: people whom the base model knows; none of them is in the pool.
        place: the folder that holds `share/wordnet` and `share/dictd`.

    Raises:
        DataError: a dictionary is not installed.
        UsageError: the rows are too few for the queries.
    """
    rng = Random(seed)
    names = [f"{first} {last}" for first in _FIRST for last in _LAST]
    rng.shuffle(names)
    world = _Facts(names[:people], rng)
    asked = [world.fact(person) for person in names[:queries]]
    real = _real(Path(place), rng)
    pool, asking = [], []
    for fact in asked:
        frames = rng.sample(_FRAMES, statements + 1)
        pool += [_row("statement", fact, fact.stated(frame)) for frame in frames[1:]]
        pool += [_row("denial", other, other.stated(frames[0], denied=True)) for other in world.others(fact, denials)]
        pool += [_row("namesake", other, other.stated(frames[0])) for other in world.namesakes(fact, namesakes)]
        asking.append({**fact.asked(frames[0]), **_about(fact)})
    pool += [{"text": text, "kind": "real"} for text in real[: round(_REAL_SHARE * rows)]]
    if len(pool) > rows:
        what = f"{queries} queries need {len(pool):,} rows: statements, denials, namesakes and real text"
        raise UsageError(
            what, where=f"--rows {rows}", remedy=f"ask for {len(pool):,} rows or more, or for fewer queries"
        )
    while len(pool) < rows:
        fact = world.fact(rng.choice(names[queries:people]))
        pool.append(_row("statement", fact, fact.stated(rng.choice(_FRAMES))))
    rng.shuffle(pool)
    finished, queried = numbered(pool, "row"), numbered(asking, "query")
    task = Task("facts", finished, queried, {q["id"]: _statements(finished, q) for q in queried})
    return HardFacts(task, _known(names[people : people + known], real[round(_REAL_SHARE * rows) :], rng))


class _Facts:
    """The facts of a world: each person has one value of each relation, drawn when it is first needed."""

    def __init__(self, people: Sequence[str], rng: Random) -> None:
        self._people, self._rng = people, rng
        self._values: dict[tuple[str, str], str] = {}

    def fact(self, person: str, relation: str = "") -> Fact:
        """A fact about this person; of a random relation if none is given."""
        relation = relation or self._rng.choice(list(_VALUES))
        key = (person, relation)
        if key not in self._values:
            self._values[key] = self._rng.choice(_VALUES[relation])
        return Fact(person, relation, self._values[key])

    def others(self, fact: Fact, count: int) -> list[Fact]:
        """Facts that are not so: other values for the same person and relation."""
        wrong = [value for value in _VALUES[fact.relation] if value != fact.value]
        return [Fact(fact.person, fact.relation, value) for value in self._rng.sample(wrong, count)]

    def namesakes(self, fact: Fact, count: int) -> list[Fact]:
        """The same relation of people who share one name with this fact's person."""
        names = set(fact.person.split())
        sharing = [person for person in self._people if len(names & set(person.split())) == 1]
        return [self.fact(person, fact.relation) for person in self._rng.sample(sharing, min(count, len(sharing)))]


def _about(fact: Fact) -> dict[str, str]:
    return {"person": fact.person, "relation": fact.relation, "value": fact.value}


def _row(kind: str, fact: Fact, text: str) -> dict[str, Any]:
    return {"text": text, "kind": kind, **_about(fact)}


def _statements(rows: Sequence[Record], query: Mapping[str, Any]) -> frozenset[str]:
    """The ids of the rows that state the query's fact."""
    same = ("person", "relation", "value")
    stating = (row for row in rows if row["kind"] in ("statement", "namesake"))
    return frozenset(row["id"] for row in stating if all(row[name] == query[name] for name in same))


def _real(place: Path, rng: Random) -> list[str]:
    """Short definitions of WordNet and FOLDOC, half of each, in random order."""
    sources = [
        list(short(list(read), most=_REAL_LONGEST)) for read in (read_wordnet(place), read_dictd(place, "foldoc"))
    ]
    fewest = min(len(source) for source in sources)
    found = [f"{e.word}: {e.meaning}" for source in sources for e in rng.sample(source, fewest)]
    rng.shuffle(found)
    return found


def _known(people: Sequence[str], real: Sequence[str], rng: Random) -> tuple[Record, ...]:
    """What the base model learns: facts about these people, some of them denied, and a tenth of real text."""
    world, texts = _Facts(people, rng), []
    for person in people:
        for relation in rng.sample(list(_VALUES), _KNOWN_FACTS):
            fact = world.fact(person, relation)
            frames = rng.sample(_FRAMES, 5)
            texts += [fact.stated(frame) for frame in frames[1:]]
            texts += [world.others(fact, 1)[0].stated(frames[0], denied=True)]
    texts += real[: len(texts) // 10]
    rng.shuffle(texts)
    return numbered([{"text": text} for text in texts], "known")
