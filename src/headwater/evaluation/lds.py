"""The linear datamodelling score (TRAK, arXiv 2303.14186, section 2): do summed scores foretell retraining?

    LDS(query) = Spearman over subsets S of ( Σ_{i ∈ S} score(i, query),  −loss of the query after learning S )

over random halves of the pool. Queries are split: on the first half, options given as alternatives
(`logra:damping=0.01|0.1`) are chosen between; the table is of the second half. Mean over queries, with its interval.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from headwater.core.errors import UsageError
from headwater.core.statistics import spearman
from headwater.data.rows import Row
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.metrics import estimate
from headwater.evaluation.result import Line, Result, environment
from headwater.evaluation.retraining import Bank, WorldSettings, make_world, random_halves
from headwater.evaluation.stage import Scored, Stage, with_controls
from headwater.training.cache import OnShare

FEWEST = 8
"""Models below which a rank correlation says nothing."""


@dataclass(frozen=True)
class LdsSettings:
    """models: retrainings; the rest as in `WorldSettings`."""

    methods: tuple[str, ...] = ("rise", "rapidin", "graddot", "logra", "ekfac")
    models: int = 64
    rows: int = 256
    queries: int = 40
    epochs: int = 4
    rate: float = 1e-3
    seed: int = 0


def run_lds(settings: LdsSettings, folder: Path, listener: Listener = SILENT) -> Result:
    """The score of each method and of the controls; raises `UsageError` for fewer than 8 models."""
    start = time.perf_counter()
    if settings.models < FEWEST:
        raise UsageError(f"{settings.models} models", where="--models", remedy=f"at least {FEWEST}; 64 is small")
    candidates = {label: alternatives(label) for label in settings.methods}
    controls = with_controls([one for some in candidates.values() for one in some])
    candidates |= {label: [label] for label in controls if label not in itertools.chain(*candidates.values())}
    world = make_world(_world(settings), folder, listener.on_progress)
    bank, halves = Bank(world), random_halves(settings.rows, settings.models, settings.seed)
    listener.on_note(bank.cost(halves))
    gains = -measure(bank, halves, listener.on_progress)
    stage = world.stage()
    lines, notes = [], []
    for number, (label, options) in enumerate(candidates.items()):
        listener.on_progress(f"scoring with {label}", number / len(candidates))
        line, note = _line(label, options, stage=stage, halves=halves, gains=gains, queries=world.queries)
        lines.append(line)
        notes += [note] if note else []
    asked = len(world.queries) - len(world.queries) // 2
    told = f"{len(halves)} models, each trained on a random half of {settings.rows} rows; {asked} queries"
    spread = f"standard deviation of a query's loss over models {gains.std(axis=0).mean():.3f} nats"
    title = "lds: do summed scores foretell what retraining on half of the rows does?"
    about = environment(time.perf_counter() - start)
    return Result("lds", title, asdict(settings), ("LDS",), tuple(lines), (f"{told}; {spread}.", *notes), about)


def alternatives(label: str) -> list[str]:
    """Every label that `name:option=a|b,...` stands for."""
    name, sign, given = label.partition(":")
    choices = [
        [f"{pair.partition('=')[0]}={value}" for value in pair.partition("=")[2].split("|")]
        for pair in given.split(",")
    ]
    return [f"{name}:{','.join(some)}" for some in itertools.product(*choices)] if sign else [label]


def settled(label: str) -> str:
    """The label without the options that alternatives are given for."""
    name, _, given = label.partition(":")
    kept = ",".join(pair for pair in given.split(",") if "|" not in pair)
    return f"{name}:{kept}" if kept else name


def measure(bank: Bank, subsets: Sequence[Sequence[int]], on_progress: OnShare) -> NDArray[np.float64]:
    """Loss of each query after each retraining, nats: `[subsets, queries]`."""
    losses = []
    for number, subset in enumerate(subsets):
        losses.append(bank.losses(subset))
        on_progress("retraining", (number + 1) / len(subsets))
    return np.stack(losses)


def lds_values(
    scores: Float[np.ndarray, "rows queries"],
    subsets: Sequence[Sequence[int]],
    gains: Float[np.ndarray, "subsets queries"],
) -> NDArray[np.float64]:
    """Spearman of foretold and measured gains of each query, `[queries]`; 0 where all foretold gains are equal."""
    foretold = np.stack([scores[list(subset)].sum(axis=0) for subset in subsets])
    pairs = zip(foretold.T, gains.T, strict=True)
    return np.array([spearman(f, g, if_constant=0.0) for f, g in pairs])


def _line(
    label: str,
    options: Sequence[str],
    *,
    stage: Stage,
    halves: Sequence[Sequence[int]],
    gains: NDArray[np.float64],
    queries: Sequence[Row],
) -> tuple[Line, str]:
    """A method's line on the second half of the queries, the option chosen on the first, and what was chosen."""
    split = len(queries) // 2
    tried: list[tuple[float, str, Scored, NDArray[np.float64]]] = []
    for option in options:
        scored = stage.score(option, queries)
        values = lds_values(scored.scores.values.astype(np.float64), halves, gains)
        tried.append((float(values[:split].mean()), option, scored, values))
    best = max(tried, key=lambda t: t[0])
    line = Line(settled(label), {"LDS": estimate(best[3][split:])}, best[2].cost)
    listed = ", ".join(f"{option} {value:.3f}" for value, option, *_ in tried)
    return line, f"{label}, on the other queries: {listed}." if len(options) > 1 else ""


def _world(settings: LdsSettings) -> WorldSettings:
    return WorldSettings(settings.rows, settings.queries, settings.epochs, settings.rate, settings.seed)
