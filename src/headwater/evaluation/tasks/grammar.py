"""Two small ways of making text by seed: a grammar with remembered slots, and a topic with a table of facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

_SLOT = re.compile(r"\{([a-z_]+?)(\d*)\}")

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
        def slot(match: re.Match[str]) -> str:
            name = match[1] + match[2]
            if name not in bound:
                fresh = [choice for choice in self.rules[match[1]] if choice not in bound.values()]
                bound[name] = self._fill(rng.choice(fresh), rng, bound)
            return bound[name]

        return _SLOT.sub(slot, text)


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


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def words(text: str) -> list[str]:
    """The lower-case words of a text."""
    return re.findall(r"[a-z][a-z'-]*", text.lower())
