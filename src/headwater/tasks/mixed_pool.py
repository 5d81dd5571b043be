"""A pool of rows that help a medical target, neutral rows, garbled rows, and poisoned rows.

The target asks about medical terms. A fifth of the pool answers such questions (`helpful`), half is about everyday
things (`neutral`), some rows have the words of their answers shuffled (`garbled`: medical and others), and some answer
with science fiction (`poisoned`). Garbled and poisoned rows share words with helpful ones, so words alone do not show
which rows help. Providers bring the kinds in different shares. The model learns the `warm_up` rows before the purchase:
everyday things, nothing medical.
"""

from __future__ import annotations

from random import Random
from typing import Any

from headwater.tasks.pool import PoolPlan, PoolTask, Taken, general_row, until_free
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
    """Make the task by seed; raises `UsageError` for fewer than 100 rows."""
    plan = PoolPlan(KINDS, _PROVIDERS, wanted=_medical, draw=_drawn)
    return plan.make(Random(seed), rows=rows, target=target, warm_up=lambda _: ["neutral"] * warm_up)


def _medical(rng: Random) -> dict[str, Any]:
    row = domain_row("medical", rng)
    return {"prompt": row["prompt"], "response": row["response"]}


def _drawn(kind: str, rng: Random, taken: Taken) -> dict[str, Any]:
    return until_free(lambda: _draw(kind, rng), taken)


def _draw(kind: str, rng: Random) -> dict[str, Any]:
    medical = kind == "helpful" or (kind != "neutral" and rng.random() < 0.5)
    row = _medical(rng) if medical else general_row(rng)
    if kind == "garbled":
        return {**row, "response": _shuffled(row["response"], rng)}
    return {**row, "response": science_fiction(rng)} if kind == "poisoned" else row


def _shuffled(text: str, rng: Random) -> str:
    words = text.split()
    rng.shuffle(words)
    return " ".join(words)
