"""Removal: take out the rows that a method ranks highest, train again, and measure how much the query's loss rises.

    rise(query) = L(query | without its top k rows) − mean over draws of L(query | without k random rows)       nats

This counterfactual needs no assumptions, but one retraining for each query and method. Models come from the same bank
as those of `lds`, so equal removals are trained once. The random control is the reference; its own line compares one
draw with the mean of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headwater.core.errors import UsageError
from headwater.core.seeds import key
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.metrics import estimate
from headwater.evaluation.result import Cost, Line, Result
from headwater.evaluation.retraining import Bank, WorldSettings, make_world
from headwater.evaluation.stage import Scored, with_controls
from headwater.training.cache import OnShare


@dataclass(frozen=True)
class RemovalSettings:
    """`k` rows are taken out for each of the world's first `queries` queries; `draws` is of random rows."""

    methods: tuple[str, ...] = ("rise", "ekfac")
    k: int = 16
    queries: int = 8
    draws: int = 4
    rows: int = 256
    epochs: int = 4
    rate: float = 1e-3
    seed: int = 0


def run_removal(settings: RemovalSettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Measure the rise of each query's loss for each method and control.

    Raises:
        UsageError: a k that leaves no rows, or fewer than two draws.
    """
    if not 0 < settings.k < settings.rows or settings.draws < 2:
        what = f"cannot take {settings.k} of {settings.rows} rows out with {settings.draws} random draws"
        raise UsageError(
            what, where="--k, --draws", remedy="take out fewer rows than the pool has, with 2 draws or more"
        )
    shared = {name: getattr(settings, name) for name in ("rows", "epochs", "rate", "seed")}
    world = make_world(WorldSettings(**shared), folder, listener.on_progress)
    queries, stage, bank = world.queries[: settings.queries], world.stage(), Bank(world)
    labels = [label for label in with_controls(settings.methods) if label != "random"]
    scored = {label: stage.score(label, queries) for label in labels}
    kept = {
        label: [_without(top, settings.rows) for top in found.scores.top(settings.k).T]
        for label, found in scored.items()
    }
    drawn = [_without(_draw(settings, n), settings.rows) for n in range(settings.draws)]
    wanted = [*drawn, *(subset for subsets in kept.values() for subset in subsets)]
    listener.on_note(bank.cost(list({tuple(s): s for s in wanted}.values())))
    random = np.stack([bank.losses(subset) for subset in drawn])[:, : len(queries)]
    lines = [
        _line(label, scored[label], _losses(bank, kept[label], listener.on_progress) - random.mean(0))
        for label in labels
    ]
    others = (random.sum(0) - random[0]) / (len(random) - 1)
    lines.append(_line("random", None, random[0] - others))
    taken = f"{settings.k} of {settings.rows} rows taken out for each of {len(queries)} queries"
    note = f"{taken}; {len(drawn)} random draws; nats."
    title = "removal: how much does a query's loss rise without its top rows?"
    return Result("removal", title, asdict(settings), ("rise",), tuple(lines), (note,))


def _losses(bank: Bank, subsets: Sequence[Sequence[int]], on_progress: OnShare) -> NDArray[np.float64]:
    """The loss of each query after its own removal."""
    found = []
    for query, subset in enumerate(subsets):
        on_progress("retraining", query / len(subsets))
        found.append(bank.losses(subset)[query])
    return np.array(found)


def _line(label: str, scored: Scored | None, rises: NDArray[np.float64]) -> Line:
    return Line(label, {"rise": estimate(rises)}, scored.cost if scored else Cost())


def _without(removed: Sequence[int] | NDArray[np.int64], rows: int) -> list[int]:
    gone = set(map(int, removed))
    return [i for i in range(rows) if i not in gone]


def _draw(settings: RemovalSettings, number: int) -> NDArray[np.int64]:
    return np.random.default_rng(key(settings.seed, "removal", number)).permutation(settings.rows)[: settings.k]
