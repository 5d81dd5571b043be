"""A pool to choose from: rows that help a medical target, neutral rows, garbled rows, and poisoned ones.

The target asks about medical terms. A fifth of the pool answers such questions (`helpful`), most of it is about
everyday things (`neutral`), some has the words of its answers shuffled (`garbled`: medical and other), and some answers
in science fiction (`poisoned`). Garbled and poisoned rows share their words with what would help, so words alone do
not tell. Providers bring the kinds in different shares. `warm_up` rows are what a model knows before the purchase:
everyday things, nothing medical.
"""

from __future__ import annotations

from random import Random
from typing import Any

from headwater.tasks.everyday import EVERYDAY
from headwater.tasks.grammar import dressed
from headwater.tasks.knowledge import KNOWLEDGE
from headwater.tasks.pool import PoolPlan, PoolTask, Taken
from headwater.tasks.science_fiction import science_fiction
from headwater.tasks.two_domains import domain_row

KINDS = {"helpful": 0.2, "neutral": 0.5, "garbled": 0.2, "poisoned": 0.1}
"""Share of the pool by kind."""

_PROVIDERS = {
    "helpful": {"clinic notes": 0.7, "open web": 0.2, "bulk mill": 0.1},
    "neutral": {"clinic notes": 0.1, "open web": 0.6, "bulk mill": 0.3},
    "garbled": {"clinic notes": 0.05, "open web": 0.15, "bulk mill": 0.8},
    "poisoned": {"clinic notes": 0.0, "open web": 0.3, "bulk mill": 0.7},
}


def mixed_pool_task(seed: int, *, rows: int = 6000, target: int = 40, warm_up: int = 1200) -> PoolTask:
    """The task by seed; raises `UsageError` for fewer than 100 rows."""
    plan = PoolPlan(KINDS, _PROVIDERS, wanted=_medical, draw=_drawn)
    return plan.make(Random(seed), rows=rows, target=target, warm_up=lambda _: ["neutral"] * warm_up)


def _medical(rng: Random) -> dict[str, Any]:
    row = domain_row("medical", rng)
    return {"prompt": row["prompt"], "response": row["response"]}


def _drawn(kind: str, rng: Random, taken: Taken) -> dict[str, Any]:
    row = _draw(kind, rng)
    while (row["prompt"], row["response"]) in taken:
        row = _draw(kind, rng)
    return row


def _draw(kind: str, rng: Random) -> dict[str, Any]:
    medical = kind == "helpful" or (kind != "neutral" and rng.random() < 0.5)
    row = _medical(rng) if medical else _everyday(rng)
    if kind == "garbled":
        return {**row, "response": _shuffled(row["response"], rng)}
    return {**row, "response": science_fiction(rng)} if kind == "poisoned" else row


def _everyday(rng: Random) -> dict[str, Any]:
    question, answer = rng.choice((*KNOWLEDGE, *EVERYDAY)).draw(rng)
    return {"prompt": dressed(question, rng), "response": answer}


def _shuffled(text: str, rng: Random) -> str:
    words = text.split()
    rng.shuffle(words)
    return " ".join(words)
