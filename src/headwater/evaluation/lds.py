"""The linear datamodelling score (TRAK, arXiv 2303.14186, section 2): do summed scores predict retraining?

    LDS(query) = Spearman over subsets S of ( Σ_{i ∈ S} score(i, query),  −loss of the query after learning S )

The subsets are random halves of the pool. If a method has alternative options (`logra:damping=0.01|0.1`), the best is
chosen on the first half of the queries. The table has the mean over the second half, with its interval.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import rankdata

from headwater.core.errors import UsageError
from headwater.core.statistics import interval_reach
from headwater.data.rows import Row
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.metrics import Estimate, fixed
from headwater.evaluation.result import Line, Result
from headwater.evaluation.retraining import Bank, WorldSettings, make_world, random_halves
from headwater.evaluation.stage import Scored, Stage, with_controls
from headwater.training.cache import OnShare

FEWEST = 8
"""With fewer models a rank correlation has no meaning."""

_GROUPS = 16


@dataclass(frozen=True)
class LdsSettings:
    """`models` is the number of retrainings; the rest is as in `WorldSettings`."""

    methods: tuple[str, ...] = ("rise", "rapidin", "graddot", "logra", "ekfac")
    models: int = 64
    rows: int = 256
    queries: int = 40
    epochs: int = 4
    rate: float = 1e-3
    seed: int = 0


def run_lds(settings: LdsSettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Measure the score of each method and control; raises `UsageError` for fewer than 8 models."""
    if settings.models < FEWEST:
        what = f"{settings.models} models are too few"
        raise UsageError(what, where="--models", remedy=f"train at least {FEWEST}; 64 is small")
    candidates = {label: alternatives(label) for label in settings.methods}
    controls = with_controls([one for some in candidates.values() for one in some])
    candidates |= {label: [label] for label in controls if label not in itertools.chain(*candidates.values())}
    shared = WorldSettings(settings.rows, settings.queries, settings.epochs, settings.rate, settings.seed)
    world = make_world(shared, folder, listener.on_progress)
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
    reported = len(world.queries) - len(world.queries) // 2
    trained = f"{len(halves)} models, each trained on a random half of {settings.rows} rows; {reported} queries"
    spread = f"standard deviation of a query's loss over models {gains.std(axis=0).mean():.3f} nats"
    title = "lds: do summed scores predict what retraining on half of the rows does?"
    return Result("lds", title, asdict(settings), ("LDS",), tuple(lines), (f"{trained}; {spread}.", *notes))


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


def lds_values(
    scores: Float[np.ndarray, "rows queries"],
    subsets: Sequence[Sequence[int]],
    gains: Float[np.ndarray, "subsets queries"],
) -> NDArray[np.float64]:
    """Spearman of predicted and measured gains of each query, `[queries]`; 0 if all predicted gains are equal."""
    predicted = np.stack([scores[list(subset)].sum(axis=0) for subset in subsets])
    ranks = [rankdata(values, axis=0) for values in (predicted, gains)]
    left, right = (found - found.mean(axis=0) for found in ranks)
    sizes = np.sqrt((left**2).sum(axis=0) * (right**2).sum(axis=0))
    found: NDArray[np.float64] = np.divide((left * right).sum(axis=0), sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    return found


def over_models_and_queries(
    scores: Float[np.ndarray, "rows queries"],
    subsets: Sequence[Sequence[int]],
    gains: Float[np.ndarray, "subsets queries"],
) -> Estimate:
    """The mean over queries, with an interval for other queries and other retrained models of the same kind.

    All queries are measured on the same models, so the spread over queries says too little. The models' part is that
    of a jackknife that leaves out a sixteenth of them at a time; the variances are added, and Student's t takes the
    smaller number.
    """
    values = lds_values(scores, subsets, gains)
    groups = min(_GROUPS, len(subsets))
    left = [[i for i in range(len(subsets)) if i % groups != out] for out in range(groups)]
    means = np.array([lds_values(scores, [subsets[i] for i in kept], gains[kept]).mean() for kept in left])
    of_models = (groups - 1) * float(means.var())
    if len(values) < 2:
        return fixed(float(values.mean()))
    of_queries = float(values.var(ddof=1)) / len(values)
    half = interval_reach(min(len(values), groups)) * float(np.sqrt(of_models + of_queries))
    return Estimate(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half)


def _line(
    label: str,
    options: Sequence[str],
    *,
    stage: Stage,
    halves: Sequence[Sequence[int]],
    gains: NDArray[np.float64],
    queries: Sequence[Row],
) -> tuple[Line, str]:
    """A method's line on the second half of the queries, with the option that is best on the first; and a note."""
    split = len(queries) // 2
    tried: list[tuple[float, str, Scored, NDArray[np.float64]]] = []
    for option in options:
        scored = stage.score(option, queries)
        values = lds_values(scored.scores.values.astype(np.float64), halves, gains)
        tried.append((float(values[:split].mean()), option, scored, values))
    best = max(tried, key=lambda t: t[0])
    found = over_models_and_queries(best[2].scores.values[:, split:].astype(np.float64), halves, gains[:, split:])
    line = Line(settled(label), {"LDS": found}, best[2].cost)
    listed = ", ".join(f"{option} {value:.3f}" for value, option, *_ in tried)
    return line, f"{label}, on the other queries: {listed}." if len(options) > 1 else ""
