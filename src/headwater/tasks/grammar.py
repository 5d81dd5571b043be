"""Two small ways to generate text by seed: a grammar whose slots keep their values, and topics with tables of facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

from headwater.core.errors import UsageError

_SLOT = re.compile(r"\{([a-z_]+?)(\d*)\}")

_TRIES = 20_000

_OPENERS = (
    "Hello! ", "Hi! ", "Hey there! ", "Good morning! ", "Greetings! ", "Good day! ", "Please help me. ",
    "Quick question: ", "For my homework: ", "I am curious. ", "One more thing. ", "Hi again! ",
)  # fmt: skip
_CLOSERS = (" Thanks!", " Thank you.", " Keep it short.", " Please.", " Answer in one or two sentences.", " Cheers!")

Facts = Callable[[Random], Mapping[str, str]]
"""Draws the values of all slots of a question and its answer."""


@dataclass(frozen=True)
class Grammar:
    """Symbols and their alternatives; an alternative is text in which `{symbol}` stands for another symbol.

    Within one expansion a slot keeps its value: `{ship}` is the same ship everywhere, `{ship2}` is another one.
    """

    rules: Mapping[str, tuple[str, ...]]

    def expand(self, symbol: str, rng: Random) -> str:
        """One text derived from `symbol`."""
        return self._fill(rng.choice(self.rules[symbol]), rng, {})

    def _fill(self, text: str, rng: Random, bound: dict[str, str]) -> str:
        for symbol, number in _SLOT.findall(text):
            slot = symbol + number
            if slot not in bound:
                fresh = [choice for choice in self.rules[symbol] if choice not in bound.values()]
                bound[slot] = self._fill(rng.choice(fresh), rng, bound)
        return _SLOT.sub(lambda match: bound[match[1] + match[2]], text)


@dataclass(frozen=True)
class Topic:
    """Questions and answers about one kind of fact; with the same facts, every answer fits every question."""

    name: str
    facts: Facts
    questions: tuple[str, ...]
    answers: tuple[str, ...]

    def draw(self, rng: Random) -> tuple[str, str]:
        """A question and its answer."""
        facts = self.facts(rng)
        return capital(rng.choice(self.questions).format(**facts)), capital(rng.choice(self.answers).format(**facts))


def table(columns: str, lines: str) -> Facts:
    """Facts drawn from the lines of a table written as text: columns split by spaces, cells by `|`."""
    cells = [[cell.strip() for cell in line.split("|")] for line in lines.strip().splitlines()]
    facts = [dict(zip(columns.split(), line, strict=True)) for line in cells]
    return lambda rng: rng.choice(facts)


@dataclass(frozen=True)
class Text:
    """The packaged text of a task: tables of facts, topics and grammars, by name (`tasks/text/NAME.yaml`)."""

    parts: Mapping[str, Any]

    @classmethod
    def of(cls, name: str) -> Text:
        """The text of the module called `name`."""
        return cls(yaml.safe_load((Path(__file__).parent / "text" / f"{name}.yaml").read_text(encoding="utf-8")))

    def table(self, name: str) -> Facts:
        """Facts drawn from a table's lines."""
        return table(self.parts[name]["columns"], self.parts[name]["rows"])

    def grammar(self, name: str) -> Grammar:
        """A grammar's symbols and their alternatives."""
        return Grammar({symbol: tuple(alternatives) for symbol, alternatives in self.parts[name].items()})

    def topics(self, name: str, **drawn: Facts) -> tuple[Topic, ...]:
        """The topics of a part, each with the facts it names: those of `drawn` under that name, or of a table."""
        found = []
        for topic in self.parts[name]:
            facts = drawn.get(topic["facts"]) or self.table(topic["facts"])
            found.append(Topic(topic["name"], facts, tuple(topic["questions"]), tuple(topic["answers"])))
        return tuple(found)

    def words(self, name: str) -> list[str]:
        """The lower-case words of a text."""
        return words(self.parts[name])


def dressed(question: str, rng: Random) -> str:
    """The question as people ask it: sometimes with a greeting or a reason before it, sometimes with thanks after."""
    opener = rng.choice(_OPENERS) if rng.random() < 0.35 else ""
    closer = rng.choice(_CLOSERS) if rng.random() < 0.25 else ""
    return f"{opener}{question}{closer}"


def fresh(make: Callable[[], dict[str, Any]], seen: set[str]) -> dict[str, Any]:
    """A record from `make` with a new `prompt`, which is added to `seen`.

    Raises `UsageError` if no new prompt comes up, because the grammar cannot make so many.
    """
    for _ in range(_TRIES):
        record = make()
        if record["prompt"] not in seen:
            seen.add(record["prompt"])
            return record
    what = f"the grammar gives no new prompt after {len(seen)}"
    raise UsageError(what, where="task", remedy="ask for fewer rows or queries")


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def words(text: str) -> list[str]:
    """The lower-case words of a text."""
    return re.findall(r"[a-z][a-z'-]*", text.lower())
