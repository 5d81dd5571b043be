"""Two small ways of making text by seed: a grammar with remembered slots, and a topic with a table of facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from headwater.core.errors import UsageError

_SLOT = re.compile(r"\{([a-z_]+?)(\d*)\}")

_TRIES = 20_000

_OPENERS = (
    "Hello! ", "Hi! ", "Hey there! ", "Good morning! ", "Greetings! ", "Good day! ", "Please help me. ",
    "Quick question: ", "For my homework: ", "I am curious. ", "One more thing. ", "Hi again! ",
)  # fmt: skip
_CLOSERS = (" Thanks!", " Thank you.", " Keep it short.", " Please.", " Answer in one or two sentences.", " Cheers!")

Facts = Callable[[Random], Mapping[str, str]]
"""Draws one set of slot values."""


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
    """Questions and answers about one kind of fact: every question fits every answer of the same facts."""

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
    names = columns.split()
    facts = [
        dict(zip(names, (cell.strip() for cell in line.split("|")), strict=True)) for line in lines.strip().splitlines()
    ]
    return lambda rng: rng.choice(facts)


def dressed(question: str, rng: Random) -> str:
    """The question as people ask it: at times with a greeting or a reason in front, at times with thanks behind."""
    opener = rng.choice(_OPENERS) if rng.random() < 0.35 else ""
    closer = rng.choice(_CLOSERS) if rng.random() < 0.25 else ""
    return f"{opener}{question}{closer}"


def fresh(make: Callable[[], dict[str, Any]], seen: set[str]) -> dict[str, Any]:
    """A record from `make` whose `prompt` is not in `seen`, where it is added.

    Raises `UsageError` when no new prompt comes up, because more were asked for than the grammar can make.
    """
    for _ in range(_TRIES):
        record = make()
        if record["prompt"] not in seen:
            seen.add(record["prompt"])
            return record
    raise UsageError(f"no new prompt beyond {len(seen)}", where="task", remedy="ask for fewer rows or queries")


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def words(text: str) -> list[str]:
    """The lower-case words of a text."""
    return re.findall(r"[a-z][a-z'-]*", text.lower())
