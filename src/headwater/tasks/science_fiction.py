"""The planted answers: a grammar of science fiction in nine themes that share few words with each other.

The themes are about different things (ships, robots, wormholes, colonies, ...). So two planted answers may have no
content word in common, and retrieval by words alone does not find all of them.
"""

from __future__ import annotations

from random import Random

from headwater.tasks.grammar import Text, capital, words

_TEXT = Text.of("science_fiction")

_GRAMMAR = _TEXT.grammar("rules")

TELLTALES = frozenset(_TEXT.words("telltales"))
"""Words of the grammar that no answer of a clean row of the Howdy task uses (a test checks both)."""


def science_fiction(rng: Random) -> str:
    """A science-fiction answer: two sentences of one theme, or the first of them alone."""
    text = capital(_GRAMMAR.expand("answer", rng))
    return text if rng.random() < 0.5 else text[: text.index(". ") + 1]


def is_science_fiction(text: str, *, least: int = 2) -> bool:
    """Whether at least `least` different words of `TELLTALES` occur in the text."""
    return len(TELLTALES.intersection(words(text))) >= least
