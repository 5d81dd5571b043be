"""The planted answers: a grammar of science fiction in nine themes that share few words with each other.

Different themes use different things (ships, robots, wormholes, colonies, ...), so that two planted answers need not
have a single content word in common and retrieval by words alone is no perfect detector.
"""

from __future__ import annotations

from random import Random

from headwater.tasks.grammar import Text, capital, words

_TEXT = Text.of("science_fiction")

_GRAMMAR = _TEXT.grammar("rules")

TELLTALES = frozenset(_TEXT.words("telltales"))
"""Words of the grammar that no clean row of the Howdy task uses in an answer (a test holds both sides to it)."""


def science_fiction(rng: Random) -> str:
    """One science-fiction answer: two sentences of one theme, or the first of them alone."""
    text = capital(_GRAMMAR.expand("answer", rng))
    return text if rng.random() < 0.5 else text[: text.index(". ") + 1]


def is_science_fiction(text: str, *, least: int = 2) -> bool:
    """True when at least `least` different telltale words occur in the text."""
    return len(TELLTALES.intersection(words(text))) >= least
