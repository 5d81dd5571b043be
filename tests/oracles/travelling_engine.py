"""An engine without other processes, in which everything travels as it does between processes.

The work is made from its recipe as JSON, once a worker; blocks are pickled on their way, receipts are JSON text; blocks
are computed in a shuffled order within a window, and committed in their own order.
"""

from __future__ import annotations

import itertools
import json
import pickle
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from headwater.engines.blocks import Block, OnCommit, Place, Receipt, Work, WorkRecipe, commit, whole


@dataclass(frozen=True)
class Travelling:
    """Compute blocks with so many workers, which share nothing with whoever runs them."""

    workers: int = 2

    @property
    def elsewhere(self) -> bool:
        return True

    def run(self, blocks: Iterable[Block[Any]], work: Work[Any], on_commit: OnCommit | None = None) -> None:
        described = json.dumps(asdict(work.recipe()))
        makers = [WorkRecipe(**json.loads(described)).make(Place()) for _ in range(self.workers)]
        stream, dice = iter(blocks), random.Random(self.workers)
        while window := list(itertools.islice(stream, 2 * self.workers)):
            texts: dict[int, str] = {}
            for block in dice.sample(window, len(window)):
                arrived = pickle.loads(pickle.dumps(block))
                texts[block.number] = json.dumps(asdict(whole(dice.choice(makers), arrived)))
            for block in window:
                commit(work, Receipt(**json.loads(texts[block.number])), on_commit)
