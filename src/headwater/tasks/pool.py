"""Pools to choose from: rows of several kinds from several providers, and a target that wants one of the kinds."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from headwater.core.errors import UsageError
from headwater.data.rows import Record
from headwater.tasks.task import numbered

Taken = Container[tuple[str, str]]
"""Prompts and responses that may not be drawn again."""
Draw = Callable[[str, Random, Taken], dict[str, Any]]
"""A row of a kind that is not among those taken."""


@dataclass(frozen=True)
class PoolTask:
    """A pool, what it is bought for, and what is known before.

    Attributes:
        rows: the pool, shuffled; each has `id`, `prompt`, `response`, `kind` and `provider`.
        target: what the buyer wants to do well on.
        held_out: further rows like the target's, for measuring.
        warm_up: rows the buyer's model has been trained on.
    """

    rows: tuple[Record, ...]
    target: tuple[Record, ...]
    held_out: tuple[Record, ...]
    warm_up: tuple[Record, ...]


@dataclass(frozen=True)
class PoolPlan:
    """What a pool is made from.

    Attributes:
        kinds: share of the pool by kind.
        providers: by kind, the shares in which providers bring it.
        wanted: draws a row like the target's.
        draw: draws a row of a kind.
    """

    kinds: Mapping[str, float]
    providers: Mapping[str, Mapping[str, float]]
    wanted: Callable[[Random], dict[str, Any]]
    draw: Draw

    def make(self, rng: Random, *, rows: int, target: int, warm_up: Callable[[Random], Sequence[str]]) -> PoolTask:
        """The task; no target row's text occurs in the pool or in the warm-up, whose kinds `warm_up` gives.

        Raises:
            UsageError: fewer than 100 rows.
        """
        if rows < 100:
            raise UsageError(f"a pool of {rows} rows", where="selection", remedy="at least 100")
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
