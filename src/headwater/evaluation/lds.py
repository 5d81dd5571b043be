"""The linear datamodelling score (TRAK, arXiv 2303.14186, section 2): do summed scores predict retraining?

    LDS(query) = Spearman over subsets S of ( Σ_{i ∈ S} score(i, query),  −loss of the query after learning S )

The subsets are random halves of the pool, or a larger share of it: with 0.9 each model leaves out a tenth of the rows.
If a method has alternative options (`logra:damping=0.01|0.1`), the best is chosen on the first half of the queries, and
every method is reported on the second half. The interval of the mean is for other queries and other retrained models of
the same kind.

The ceiling is the same correlation between two banks that learned the same subsets with different seeds. What training
does by chance no method can predict, so a score near the ceiling is all that can be had. Where the rows that teach a
query's answer are known (`facts`), a line scores these 1 and all others 0: what knowing the cause is worth, if every
cause counts the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import rankdata

from headwater.core.errors import UsageError
from headwater.data.rows import Row
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.metrics import Estimate, estimate
from headwater.evaluation.own import MeasuredTask, Own, described, own_world, settings_json
from headwater.evaluation.result import Cost, Line, Result, as_table
from headwater.evaluation.retrained_elsewhere import train_missing
from headwater.evaluation.retraining import KNOWN, Bank, World, WorldSettings, make_world, random_subsets
from headwater.evaluation.stage import Scored, Stage, with_controls
from headwater.training.cache import OnShare

FEWEST = 8
"""With fewer models a rank correlation has no meaning."""

CEILING = "ceiling: another seed"
"""The line of a second bank."""

_GROUPS = 16


@dataclass(frozen=True)
class LdsSettings:
    """`models` is the number of retrainings; `own` your rows and recipe; the rest is as in `WorldSettings`.

    `keep` is the share of the rows that each model learns.
    `ceiling` trains a second bank with another seed, which takes as long as the first.
    """

    methods: tuple[str, ...] = ("rise", "rapidin", "graddot", "logra", "ekfac")
    pool: str = "two-domains"
    models: int = 64
    keep: float = 0.5
    rows: int = 0
    queries: int = 40
    epochs: int = 0
    rate: float = 0.0
    ceiling: bool = False
    seed: int = 0
    own: Own | None = None


def run_lds(settings: LdsSettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Measure the score of each method and control.

    Raises:
        UsageError: fewer than 8 models, or fewer than a method has options to choose from.
    """
    candidates = _candidates(settings)
    if settings.own is None:
        shared = {name: getattr(settings, name) for name in ("pool", "rows", "queries", "epochs", "rate", "seed")}
        world, name = make_world(WorldSettings(**shared), folder, listener.on_progress), settings.pool
    else:
        world, name = own_world(settings.own, folder, settings.seed), settings.own.title
    bank = Bank(world, listener.engine)
    subsets = random_subsets(len(world.rows), settings.models, settings.seed, settings.keep)
    listener.on_note(bank.cost(subsets))
    train_missing(bank, subsets, listener.on_progress)
    gains = -measure(bank, subsets, listener.on_progress)
    stage = world.stage()
    chosen = len(world.queries) // 2 if any(len(some) > 1 for some in candidates.values()) else 0
    truth = Truth(stage, subsets, gains, world.queries, chosen)
    lines = [_ceiling(world, truth, listener)] if settings.ceiling else []
    if world.causes:
        lines.append(_measured(KNOWN, summed(_indicated(world), subsets)[:, chosen:], gains[:, chosen:]))
    notes = [_trained(truth, len(world.rows)), *_unanswered(world, gains)]
    for number, (label, options) in enumerate(candidates.items()):
        listener.on_progress(f"scoring with {label}", number / len(candidates))
        line, note = _line(label, options, truth)
        lines.append(line)
        notes += [note] if note else []
    title = f"lds: do summed scores predict what retraining on {_share(settings.keep)} of the rows does?"
    about = described(MeasuredTask(name, stage, tuple(world.queries)), name)
    return Result("lds", title, settings_json(settings), ("LDS",), tuple(lines), tuple(notes), about)


def _candidates(settings: LdsSettings) -> dict[str, list[str]]:
    """The options to choose from of each method and control."""
    if settings.models < FEWEST:
        what = f"{settings.models} models are too few"
        raise UsageError(what, where="--models", remedy=f"train at least {FEWEST}; 64 is small")
    found = {label: alternatives(label) for label in settings.methods}
    controls = with_controls([one for some in found.values() for one in some])
    found |= {label: [label] for label in controls if label not in itertools.chain(*found.values())}
    for label, options in found.items():
        if len(options) > settings.models:
            what = f"{settings.models} models cannot choose among {len(options)} options"
            remedy = f"train {len(options)} models or more, or give fewer alternatives"
            raise UsageError(what, where=f"--method {label}", remedy=remedy)
    return found


def _share(keep: float) -> str:
    return "half" if keep == 0.5 else f"{keep:.0%}"


def _trained(truth: Truth, rows: int) -> str:
    """What the models learned, and how much their losses differ."""
    models, kept = len(truth.subsets), len(truth.subsets[0])
    spread = f"standard deviation of a query's loss over models {truth.gains.std(axis=0).mean():.3f} nats"
    what = f"{models} models, each trained on {kept:,} of {rows:,} rows, drawn at random"
    return f"{what}; {len(truth.queries) - truth.chosen} queries; {spread}."


def _unanswered(world: World, gains: Float[np.ndarray, "subsets queries"]) -> list[str]:
    """Names the queries of which no retrained model knows more than the model before: their scores are noise."""
    before = -world.losses(world.start)
    lost = [query.id for query, most, at in zip(world.queries, gains.max(axis=0), before, strict=True) if most <= at]
    if not lost:
        return []
    named = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
    what = (
        f"{len(lost)} of {len(world.queries)} queries are answered by no retrained model better than before ({named})"
    )
    return [f"{what}: what is measured of them is chance. Leave them out, or train longer."]


def _indicated(world: World) -> NDArray[np.float64]:
    """1 for the rows that are known to teach a query's answer, 0 for all others: `[rows, queries]`."""
    return np.array([[row.id in world.causes[query.id] for query in world.queries] for row in world.rows], np.float64)


@dataclass(frozen=True)
class Truth:
    """What retraining did.

    Attributes:
        stage: the pool, and the model that learned all of it.
        subsets: the rows that each model learned, as positions.
        gains: minus the loss of each query after each retraining, nats: `[models, queries]`.
        queries: the queries.
        chosen: options are chosen on this many first queries; the others are reported.
    """

    stage: Stage
    subsets: Sequence[Sequence[int]]
    gains: NDArray[np.float64]
    queries: Sequence[Row]
    chosen: int


def alternatives(label: str) -> list[str]:
    """All labels that `name:option=a|b,...` stands for."""
    name, sign, given = label.partition(":")
    pairs = [pair.partition("=") for pair in given.split(",")]
    choices = [[f"{option}={value}" for value in values.split("|")] for option, _, values in pairs]
    return [f"{name}:{','.join(some)}" for some in itertools.product(*choices)] if sign else [label]


def settled(label: str) -> str:
    """The label without the options that have alternatives."""
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


def summed(scores: Float[np.ndarray, "rows queries"], subsets: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """What the scores predict of each subset, `[subsets, queries]`: the sum over its rows."""
    return np.stack([scores[list(subset)].sum(axis=0) for subset in subsets])


def lds_values(
    scores: Float[np.ndarray, "rows queries"],
    subsets: Sequence[Sequence[int]],
    gains: Float[np.ndarray, "subsets queries"],
) -> NDArray[np.float64]:
    """The score of each query, `[queries]`; 0 if all predicted gains are equal."""
    return agreement(summed(scores, subsets), gains)


def agreement(
    predicted: Float[np.ndarray, "subsets queries"], gains: Float[np.ndarray, "subsets queries"]
) -> NDArray[np.float64]:
    """Spearman of predicted and measured gains of each query, `[queries]`; 0 if all predicted gains are equal."""
    ranks = [rankdata(values, axis=0) for values in (predicted, gains)]
    left, right = (found - found.mean(axis=0) for found in ranks)
    sizes = np.sqrt((left**2).sum(axis=0) * (right**2).sum(axis=0))
    found: NDArray[np.float64] = np.divide((left * right).sum(axis=0), sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    return found


def pseudo_values(
    predicted: Float[np.ndarray, "subsets queries"], gains: Float[np.ndarray, "subsets queries"]
) -> NDArray[np.float64]:
    """What each group of models adds to each query's score, by the jackknife: `[groups, queries]`.

        p(g, q) = G · LDS(q) − (G − 1) · LDS(q without the models of group g)

    A sixteenth of the models is left out at a time. Their means over groups estimate the score, and their spread says
    how it changes with other models: all queries are measured on the same models, so the spread over queries alone
    says too little.
    """
    groups, whole = min(_GROUPS, len(gains)), agreement(predicted, gains)
    left = [[i for i in range(len(gains)) if i % groups != out] for out in range(groups)]
    without = np.stack([agreement(predicted[kept], gains[kept]) for kept in left])
    found: NDArray[np.float64] = groups * whole - (groups - 1) * without
    return found


def over_models_and_queries(values: NDArray[np.float64], pseudo: NDArray[np.float64]) -> Estimate:
    """The mean of the queries' scores, with an interval for other models and other queries, inside -1 to 1."""
    around, mean = estimate(pseudo), float(values.mean())
    if around.low is None or around.high is None:
        return Estimate(mean, None, None)
    half = (around.high - around.low) / 2
    return Estimate(mean, max(mean - half, -1.0), min(mean + half, 1.0))


def _measured(label: str, predicted: NDArray[np.float64], gains: NDArray[np.float64], cost: Cost | None = None) -> Line:
    pseudo = pseudo_values(predicted, gains)
    found = {"LDS": over_models_and_queries(agreement(predicted, gains), pseudo)}
    return Line(label, found, cost or Cost(), samples={"LDS": as_table(pseudo)})


def _ceiling(world: World, truth: Truth, listener: Listener) -> Line:
    """The line of a second bank, trained on the same subsets with another seed."""
    bank = Bank(replace(world, seed=world.seed + 1), listener.engine)
    listener.on_note(bank.cost(truth.subsets))
    train_missing(bank, truth.subsets, listener.on_progress)
    again = -measure(bank, truth.subsets, listener.on_progress)
    return _measured(CEILING, again[:, truth.chosen :], truth.gains[:, truth.chosen :])


def _line(label: str, options: Sequence[str], truth: Truth) -> tuple[Line, str]:
    """A method's line on the reported queries, with the option that is best on the others; and a note."""
    split = truth.chosen
    tried: list[tuple[float, str, Scored, NDArray[np.float64]]] = []
    for option in options:
        scored = truth.stage.score(option, truth.queries)
        values = lds_values(scored.scores.values.astype(np.float64), truth.subsets, truth.gains)
        tried.append((float(values[:split].mean()) if split else 0.0, option, scored, values))
    best = max(tried, key=lambda t: t[0])
    scores = best[2].scores.values[:, split:].astype(np.float64)
    line = _measured(settled(label), summed(scores, truth.subsets), truth.gains[:, split:], best[2].cost)
    listed = ", ".join(f"{option} {value:.3f}" for value, option, *_ in tried)
    return line, f"{label}, on the other queries: {listed}." if len(options) > 1 else ""
