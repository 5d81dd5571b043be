"""Junk beside quality, after the Brain Rot study (Xing et al., arXiv 2510.13928): what to train on for useful answers.

M1 junk is short and made to engage ("You won't believe ..."), M2 junk is long enough but says nothing: bait,
conspiracy, empty superlatives. Quality rows answer questions of fact and of everyday life; the target asks such
questions. Junk asks the same questions, so the prompt does not tell. `warm_up` rows are of all kinds: a model that has
read the web knows both.
"""

from __future__ import annotations

from random import Random
from typing import Any

from headwater.tasks.everyday import EVERYDAY
from headwater.tasks.grammar import Text, dressed
from headwater.tasks.knowledge import KNOWLEDGE
from headwater.tasks.pool import PoolPlan, PoolTask, Taken

_TEXT = Text.of("junk_pool")

KINDS = {"quality": 0.25, "m1": 0.4, "m2": 0.35}
"""Share of the pool by kind."""

WARM = {"quality": 0.5, "m1": 0.25, "m2": 0.25}
"""Share of the warm-up rows by kind."""

_PROVIDERS = {
    "quality": {"tutor desk": 0.8, "feed scrape": 0.2},
    "m1": {"feed scrape": 0.9, "clip farm": 0.1},
    "m2": {"clip farm": 0.7, "feed scrape": 0.3},
}

_JUNK = _TEXT.grammar("junk")


def junk_pool_task(seed: int, *, rows: int = 6000, target: int = 60, warm_up: int = 600) -> PoolTask:
    """The task by seed; raises `UsageError` for fewer than 100 rows."""
    plan = PoolPlan(KINDS, _PROVIDERS, wanted=_quality, draw=_drawn)
    kinds, shares = list(WARM), list(WARM.values())
    return plan.make(Random(seed), rows=rows, target=target, warm_up=lambda rng: rng.choices(kinds, shares, k=warm_up))


def _quality(rng: Random) -> dict[str, Any]:
    question, answer = rng.choice((*KNOWLEDGE, *EVERYDAY)).draw(rng)
    return {"prompt": dressed(question, rng), "response": answer}


def _drawn(kind: str, rng: Random, taken: Taken) -> dict[str, Any]:
    row = _quality(rng)
    while (row["prompt"], row["response"]) in taken:
        row = _quality(rng)
    if kind != "quality":
        row["response"] = _JUNK.expand(kind, rng)
    return row
