"""Removal: take out the rows that a method ranks highest, train again, and measure how much the query's loss rises.

    rise(query) = L(query | without its top k rows) − mean over draws of L(query | without k random rows)       nats

This counterfactual needs no assumptions, but one retraining for each query and method. Models come from the same bank
as those of `lds`, so equal removals are trained once. The random control is the reference; its own line compares one
draw with the mean of the others. All queries share the draws, so an interval is for other draws and other queries.

Where the rows that teach a query's answer are known (`facts`), a line takes out exactly these, which may be fewer than
`k`: does a fact go when its statements go?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headwater.core.errors import UsageError
from headwater.core.seeds import key
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.own import MeasuredTask, Own, described, own_world, settings_json
from headwater.evaluation.result import Cost, Line, Result
from headwater.evaluation.retrained_elsewhere import train_missing
from headwater.evaluation.retraining import KNOWN, Bank, WorldSettings, make_world
from headwater.evaluation.stage import with_controls
from headwater.training.cache import OnShare


@dataclass(frozen=True)
class RemovalSettings:
    """`k` rows are taken out for each query; `draws` is of random rows.

    `own` is your rows, all your queries, and your recipe, instead of the built-in ones, whose size the rest says.
    """

    methods: tuple[str, ...] = ("rise", "ekfac")
    k: int = 16
    queries: int = 8
    draws: int = 4
    pool: str = "two-domains"
    rows: int = 0
    epochs: int = 0
    rate: float = 0.0
    seed: int = 0
    own: Own | None = None


def run_removal(settings: RemovalSettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Measure the rise of each query's loss for each method and control.

    Raises:
        UsageError: a k that leaves no rows, or fewer than two draws.
    """
    shared = {name: getattr(settings, name) for name in ("pool", "rows", "epochs", "rate", "seed")}
    labels = [label for label in with_controls(settings.methods) if label != "random"]
    if settings.own is None:
        world, name = make_world(WorldSettings(**shared), folder, listener.on_progress), settings.pool
    else:
        world, name = own_world(settings.own, folder, settings.seed), settings.own.title
    _check(settings, len(world.rows))
    queries = world.queries if settings.own else world.queries[: settings.queries]
    rows, stage, bank = len(world.rows), world.stage(), Bank(world, listener.engine)
    scored = {label: stage.score(label, queries) for label in labels}
    kept: dict[str, list[list[int]]] = {
        label: [_without(top, rows) for top in found.scores.top(settings.k).T] for label, found in scored.items()
    }
    if world.causes:
        place = {row.id: i for i, row in enumerate(world.rows)}
        kept[KNOWN] = [_without([place[name] for name in world.causes[query.id]], rows) for query in queries]
    drawn = [_without(_draw(settings, n, rows), rows) for n in range(settings.draws)]
    wanted = [*drawn, *(subset for subsets in kept.values() for subset in subsets)]
    listener.on_note(bank.cost(list({tuple(s): s for s in wanted}.values())))
    train_missing(bank, wanted, listener.on_progress)
    random = np.stack([bank.losses(subset) for subset in drawn])[:, : len(queries)]
    lines = [
        _line(
            label,
            scored[label].cost if label in scored else Cost(),
            _losses(bank, subsets, listener.on_progress) - random,
        )
        for label, subsets in kept.items()
    ]
    lines.append(_line("random", Cost(), random[0] - random[1:]))
    taken = f"{settings.k} of {rows:,} rows taken out for each of {len(queries)} queries"
    note = f"{taken}; {len(drawn)} random draws; nats."
    title = "removal: how much does a query's loss rise without its top rows?"
    about = described(MeasuredTask(name, stage, tuple(queries)), name)
    return Result("removal", title, settings_json(settings), ("rise",), tuple(lines), (note,), about)


def _check(settings: RemovalSettings, rows: int) -> None:
    if not 0 < settings.k < rows or settings.draws < 2:
        what = f"cannot take {settings.k} of {rows} rows out with {settings.draws} random draws"
        remedy = "take out fewer rows than the pool has, with 2 draws or more"
        raise UsageError(what, where="--k, --draws", remedy=remedy)


def _losses(bank: Bank, subsets: Sequence[Sequence[int]], on_progress: OnShare) -> NDArray[np.float64]:
    """The loss of each query after its own removal."""
    found = []
    for query, subset in enumerate(subsets):
        on_progress("retraining", query / len(subsets))
        found.append(bank.losses(subset)[query])
    return np.array(found)


def _line(label: str, cost: Cost, rises: NDArray[np.float64]) -> Line:
    """The line of rises `[draws, queries]`, nats: against each random draw."""
    return Line.of(label, {"rise": rises}, ("rise",), cost=cost)


def _without(removed: Sequence[int] | NDArray[np.int64], rows: int) -> list[int]:
    gone = set(map(int, removed))
    return [i for i in range(rows) if i not in gone]


def _draw(settings: RemovalSettings, number: int, rows: int) -> NDArray[np.int64]:
    return np.random.default_rng(key(settings.seed, "removal", number)).permutation(rows)[: settings.k]
