"""Pools for valuation: rows of several kinds from several providers, and a target that needs one of the kinds."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from headwater.core.errors import UsageError
from headwater.data.rows import Record
from headwater.tasks.everyday import EVERYDAY
from headwater.tasks.grammar import dressed
from headwater.tasks.knowledge import KNOWLEDGE
from headwater.tasks.task import numbered

Taken = Container[tuple[str, str]]
"""Pairs of prompt and response that may not be drawn again."""
Draw = Callable[[str, Random, Taken], dict[str, Any]]
"""Draws a row of a kind that is not among those taken."""


@dataclass(frozen=True)
class PoolTask:
    """A pool, the target to buy it for, and the rows that the buyer's model knows already.

    Attributes:
        rows: the pool, shuffled; each has `id`, `prompt`, `response`, `kind` and `provider`.
        target: rows of the task that the buyer wants the model to do well.
        held_out: further rows like the target's, for measuring.
        warm_up: rows that the buyer's model has been trained on.
    """

    rows: tuple[Record, ...]
    target: tuple[Record, ...]
    held_out: tuple[Record, ...]
    warm_up: tuple[Record, ...]


@dataclass(frozen=True)
class PoolPlan:
    """How to make a pool.

    Attributes:
        kinds: share of the pool by kind.
        providers: for each kind, the share that each provider brings.
        wanted: draws a row like the target's.
        draw: draws a row of a kind.
    """

    kinds: Mapping[str, float]
    providers: Mapping[str, Mapping[str, float]]
    wanted: Callable[[Random], dict[str, Any]]
    draw: Draw

    def make(self, rng: Random, *, rows: int, target: int, warm_up: Callable[[Random], Sequence[str]]) -> PoolTask:
        """Make the task; `warm_up` gives the kinds of the warm-up rows.

        No target row's text occurs in the pool or among the warm-up rows.

        Raises:
            UsageError: fewer than 100 rows.
        """
        if rows < 100:
            raise UsageError(f"a pool of {rows} rows is too small", where="selection", remedy="take at least 100")
        taken: dict[tuple[str, str], Record] = {}
        while len(taken) < 2 * target:
            row = self.wanted(rng)
            taken[row["prompt"], row["response"]] = row
        asked = list(taken.values())
        kinds = [kind for kind, share in self.kinds.items() for _ in range(round(share * rows))]
        pool = [self._supplied(kind, rng, taken) for kind in kinds]
        rng.shuffle(pool)
        before = [self._supplied(kind, rng, taken) for kind in warm_up(rng)]
        return PoolTask(
            rows=numbered(pool, "row"),
            target=numbered(asked[:target], "target"),
            held_out=numbered(asked[target:], "held"),
            warm_up=numbered(before, "known"),
        )

    def _supplied(self, kind: str, rng: Random, taken: Taken) -> dict[str, Any]:
        row, shares = self.draw(kind, rng, taken), self.providers[kind]
        return {**row, "kind": kind, "provider": rng.choices(list(shares), list(shares.values()))[0]}


def general_row(rng: Random) -> dict[str, Any]:
    """A clean question of fact or of everyday life, with its answer."""
    question, answer = rng.choice((*KNOWLEDGE, *EVERYDAY)).draw(rng)
    return {"prompt": dressed(question, rng), "response": answer}


def until_free(make: Callable[[], dict[str, Any]], taken: Taken) -> dict[str, Any]:
    """The first row from `make` that is not taken."""
    while ((row := make())["prompt"], row["response"]) in taken:
        pass
    return row
