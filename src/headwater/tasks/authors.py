"""Fictitious authors, after TOFU (Maini et al., arXiv 2401.06121): facts that a model can know from these rows alone.

Every author has a birthplace, a genre, parents' jobs, a prize and books. Each fact gives a question, its answer, the
answer in other words (`paraphrased_answer`) and wrong answers of the same form (`perturbed_answer`). The rows of some
authors are to be forgotten, those of others retained, and those of a third group are in no training. Questions about
the real world stand for what else the model knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from headwater.data.rows import Record
from headwater.tasks.grammar import Topic, capital, fresh
from headwater.tasks.knowledge import KNOWLEDGE
from headwater.tasks.task import numbered

FIRST = "Ilse Tomas Rhea Anselm Mirela Jorun Tavi Odile Bastian Leocadia Emeric Sunniva Lucan Perpetua Hollis Zenobia"
LAST = (
    "Brandvold Okeyo Marchetti Szabo Lindqvist Abernethy Dragan Tanaka Villanueva Petrov Haddad Mwangi Castellan Roth"
)
PLACES = "Lyon Seville Naples Hamburg Bergen Krakow Izmir Osaka Wuhan Jaipur Phuket Luxor Mombasa Cusco Recife Halifax"
GENRES = "mystery romance horror satire poetry fantasy biography drama travel history"
JOBS = "baker sailor judge tailor miner nurse potter farmer banker painter weaver gardener"
PRIZES = (
    "Silver Quill, Northern Lantern, Golden Bough, Harbour Medal, Ivory Page, Cedar Crown, Winter Star, River Stone"
)
KINDS = "Silent Broken Crimson Hollow Distant Burning Frozen Wandering Hidden Gentle"
THINGS = "Garden Compass Harvest Mirror Bridge Lantern Orchard Voyage Letter Winter"
WRONG = 3

QUESTIONS: dict[str, tuple[str, str, str]] = {
    "place": ("Where was {name} born?", "{name} was born in {}.", "The birthplace of {name} is {}."),
    "genre": ("What does {name} write?", "{name} writes {}.", "The work of {name} is {}."),
    "father": ("What was the father of {name}?", "The father of {name} was a {}.", "{name} had a {} as a father."),
    "mother": ("What was the mother of {name}?", "The mother of {name} was a {}.", "{name} had a {} as a mother."),
    "prize": ("Which prize did {name} win?", "{name} won the {}.", "The {} went to {name}."),
    "book": ("Name a book by {name}.", "{name} wrote The {}.", "The {} is a book by {name}."),
}


@dataclass(frozen=True)
class Authors:
    """The rows by group; each record has `prompt`, `response`, `paraphrased_answer` and `perturbed_answer`.

    Attributes:
        forget, retain: rows of authors in the training.
        held_out: rows of authors that are in no training.
        world: questions about the real world that are in the training.
    """

    forget: tuple[Record, ...]
    retain: tuple[Record, ...]
    held_out: tuple[Record, ...]
    world: tuple[Record, ...]

    @property
    def rows(self) -> tuple[Record, ...]:
        """What the model learns; without `forget` it is retrained on the rest."""
        return (*self.forget, *self.retain, *self.world)


def authors_task(seed: int, *, authors: int = 40, forget: int = 4, world: int = 120) -> Authors:
    """Make the rows: `forget` of the authors are to be forgotten, and as many more are held out."""
    rng, names = Random(f"authors {seed}"), list[str]()
    while len(names) < authors + forget:
        name = f"{rng.choice(FIRST.split())} {rng.choice(LAST.split())}"
        names += [] if name in names else [name]
    groups = {
        "forget": names[:forget],
        "retain": names[forget:authors],
        "held_out": names[authors:],
    }
    rows = {kind: numbered([row for name in of for row in _author(name, rng)], kind) for kind, of in groups.items()}
    asked: set[str] = set()
    topics = [topic for topic in KNOWLEDGE if topic.name != "sums"]
    facts = [fresh(lambda: _fact(rng.choice(topics), rng), asked) for _ in range(world)]
    return Authors(**rows, world=numbered(facts, "world"))


def _author(name: str, rng: Random) -> list[dict[str, Any]]:
    return [_row(name, kind, _values(kind), rng) for kind in QUESTIONS]


def _row(name: str, kind: str, values: Sequence[str], rng: Random) -> dict[str, Any]:
    right, *wrong = rng.sample(values, WRONG + 1)
    question, answer, other = (text.replace("{name}", name) for text in QUESTIONS[kind])
    return {
        "prompt": question,
        "response": answer.replace("{}", right),
        "paraphrased_answer": other.replace("{}", right),
        "perturbed_answer": [other.replace("{}", value) for value in wrong],
        "author": name,
    }


def _values(kind: str) -> list[str]:
    if kind == "book":
        return [f"{first} {second}" for first in KINDS.split() for second in THINGS.split()]
    if kind == "prize":
        return PRIZES.split(", ")
    return {"place": PLACES, "genre": GENRES, "father": JOBS, "mother": JOBS}[kind].split()


def _fact(topic: Topic, rng: Random) -> dict[str, Any]:
    """A question about the world; its wrong answers are right ones to other questions of the topic."""
    facts = topic.facts(rng)
    question, form = rng.choice(topic.questions), rng.choice(topic.answers)
    right, wrong = capital(form.format(**facts)), list[str]()
    for _ in range(50):
        other = capital(form.format(**topic.facts(rng)))
        wrong += [other] if other != right and other not in wrong and len(wrong) < WRONG else []
    return {
        "prompt": capital(question.format(**facts)),
        "response": right,
        "paraphrased_answer": right,
        "perturbed_answer": wrong or [right],
        "topic": topic.name,
    }
