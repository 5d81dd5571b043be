"""A pool of junk and quality rows, after the Brain Rot study (Xing et al., arXiv 2510.13928).

M1 junk is short and made to engage ("You won't believe ..."). M2 junk is long but has no content: bait, conspiracy,
empty superlatives. Quality rows answer questions of fact and of everyday life, and the target asks such questions. Junk
rows have the same questions, so the prompt does not show what is junk. `warm_up` rows are of all kinds, because a model
that has read the web has seen them all.
"""

from __future__ import annotations

from random import Random
from typing import Any

from headwater.tasks.grammar import Text
from headwater.tasks.pool import PoolPlan, PoolTask, Taken, general_row, until_free

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
    """Make the task by seed; raises `UsageError` for fewer than 100 rows."""
    plan = PoolPlan(KINDS, _PROVIDERS, wanted=general_row, draw=_drawn)
    kinds, shares = list(WARM), list(WARM.values())
    return plan.make(Random(seed), rows=rows, target=target, warm_up=lambda rng: rng.choices(kinds, shares, k=warm_up))


def _drawn(kind: str, rng: Random, taken: Taken) -> dict[str, Any]:
    row = until_free(lambda: general_row(rng), taken)
    return row if kind == "quality" else {**row, "response": _JUNK.expand(kind, rng)}
