"""Clean questions about facts: places, animals, words, the sky, numbers, units, dates."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from headwater.tasks.grammar import Text

_TEXT = Text.of("knowledge")

_UNITS = _TEXT.table("units")

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _unit(rng: Random) -> Mapping[str, str]:
    facts, n = _UNITS(rng), rng.randint(2, 9)
    return {**facts, "n": str(n), "total": str(n * int(facts["factor"]))}


def _sum(rng: Random) -> Mapping[str, str]:
    a, b = rng.randint(1, 20), rng.randint(1, 20)
    thing = rng.choice(("apples", "stamps", "coins", "books", "eggs", "marbles"))
    return {"a": str(a), "b": str(b), "c": str(a + b), "thing": thing}


def _product(rng: Random) -> Mapping[str, str]:
    a, b = rng.randint(2, 10), rng.randint(2, 10)
    return {"a": str(a), "b": str(b), "c": str(a * b)}


def _comparison(rng: Random) -> Mapping[str, str]:
    a, b = rng.sample(range(2, 100), 2)
    return {"a": str(a), "b": str(b), "big": str(max(a, b)), "small": str(min(a, b))}


def _weekday(rng: Random) -> Mapping[str, str]:
    start, step = rng.randrange(7), rng.randint(1, 4)
    word = ("one day", "two days", "three days", "four days")[step - 1]
    return {"day": DAYS[start], "step": word, "then": DAYS[(start + step) % 7]}


def _clock(rng: Random) -> Mapping[str, str]:
    hour, hours = rng.randint(1, 11), rng.randint(1, 6)
    what = rng.choice(("train", "class", "film", "meeting", "concert", "ferry"))
    return {"h": str(hour), "n": str(hours), "end": str((hour + hours - 1) % 12 + 1), "what": what}


KNOWLEDGE = _TEXT.topics(
    "knowledge", unit=_unit, sum=_sum, product=_product, comparison=_comparison, weekday=_weekday, clock=_clock
)
