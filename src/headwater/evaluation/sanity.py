"""Sanity: what can be asked of scores without any ground truth, after Adebayo et al. (arXiv 1810.03292) and quanda.

weights     1 − Spearman of a query's scores before and after the model's weights are drawn anew: a method that reads
            the model must change (0: it does not look at what was learnt)
detection   AP of the planted rows with the random weights: what is left is the lexical floor
variety     distinct rows among all queries' top 10, as a share of 10 × queries: not the same few rows for everyone
seeds       Spearman of a query's scores under two seeds of the method: 1 is stable (methods without one: 1)
twins       share of planted duplicates whose scores equal their original's within 1 % of the scores' spread
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from headwater.core.scores import Scores
from headwater.core.statistics import spearman
from headwater.data.corpus import open_corpus
from headwater.data.rows import Record, Row
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.metrics import detection_values, estimate
from headwater.evaluation.result import Line, Result, environment
from headwater.evaluation.stage import Stage, parse_label, with_controls
from headwater.methods.catalog import find_entry
from headwater.models.load import LoadedModel, wrap_model
from headwater.models.load import load_model as load
from headwater.tasks import howdy_task
from headwater.training.cache import trained
from headwater.training.tiny import Recipe, task_rows

TWINS = 20
SHOWN = ("weights", "detection", "trained", "variety", "seeds", "twins")


@dataclass(frozen=True)
class SanitySettings:
    """rows, queries: of the Howdy pool. epochs: of its model; 0 is the recipe's own. seed: all follows from it."""

    methods: tuple[str, ...] = ("rise", "rapidin")
    rows: int = 600
    queries: int = 20
    epochs: int = 0
    seed: int = 0


def run_sanity(settings: SanitySettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Every check of each method and control on the Howdy pool, whose queries carry their reference answers."""
    start = time.perf_counter()
    task = howdy_task(settings.seed, rows=settings.rows, queries=settings.queries)
    recipe = replace(Recipe(), epochs=settings.epochs) if settings.epochs else Recipe()
    made = trained(
        folder / "models", task.name, task.rows, seed=settings.seed, recipe=recipe, on_progress=listener.on_progress
    )
    pool = [*task.rows, *({**row, "id": f"twin-{row['id']}"} for row in task.rows[:TWINS])]
    queries = task_rows([{**query, "response": query["reference"]} for query in task.queries])
    loaded = load(str(made.folder))
    stages = [
        Stage(model, open_corpus([dict(row) for row in pool]), folder / "indexes" / f"sanity-{name}", made.recorded)
        for name, model in (("trained", loaded), ("random", randomised(loaded, settings.seed)))
    ]
    planted = [row["id"] for row in pool if row["planted"]]
    positives = {query.id: frozenset(planted) for query in queries}
    lines = []
    labels = with_controls(settings.methods)
    for number, label in enumerate(labels):
        listener.on_progress(f"checking {label}", number / len(labels))
        lines.append(_line(label, stages, lambda scores: detection_values(scores, positives, ())["AP"], queries, pool))
    explained = "`trained` and `detection` are AP of the planted rows with trained and with random weights"
    notes = (f"{len(pool)} rows with {TWINS} duplicates; {explained}.",)
    about = environment(time.perf_counter() - start)
    return Result("sanity", "sanity: what scores must do", asdict(settings), SHOWN, tuple(lines), notes, about)


def randomised(loaded: LoadedModel, seed: int) -> LoadedModel:
    """The same architecture and tokenizer with weights drawn anew from the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        return wrap_model(type(loaded.model)(loaded.model.config), loaded.tokenizer, f"{loaded.name}, random weights")


def _line(
    label: str,
    stages: Sequence[Stage],
    precision: Callable[[Scores], NDArray[np.float64]],
    queries: Sequence[Row],
    pool: Sequence[Record],
) -> Line:
    with_trained, with_random = (stage.score(label, queries) for stage in stages)
    again = stages[0].score(other, queries) if (other := reseeded(label)) else with_trained
    first, second = with_trained.scores.values, with_random.scores.values
    metrics = {
        "weights": 1 - _rank_agreement(first, second),
        "detection": precision(with_random.scores),
        "trained": precision(with_trained.scores),
        "variety": np.array([len(np.unique(with_trained.scores.top(10))) / (10 * len(queries))]),
        "seeds": _rank_agreement(first, again.scores.values),
        "twins": _twins(first, len(pool) - TWINS),
    }
    return Line(label, {name: estimate(values) for name, values in metrics.items()}, with_trained.cost)


def reseeded(label: str) -> str | None:
    """The same named with another seed; None for one without, or for a combination."""
    if "+" in label or "=>" in label:
        return None
    named = parse_label(label)
    if not hasattr(find_entry(named.name).presets["default"], "seed"):
        return None
    return f"{label}{',' if ':' in label else ':'}seed={int(named.settings.get('seed', 0)) + 1}"


def _rank_agreement(a: Float[np.ndarray, "rows queries"], b: Float[np.ndarray, "rows queries"]) -> NDArray[np.float64]:
    """Spearman of each query's scores, 0 where one side is constant."""
    pairs = zip(a.T, b.T, strict=True)
    return np.array([spearman(x, y, if_constant=float(np.array_equal(x, y))) for x, y in pairs])


def _twins(scores: Float[np.ndarray, "rows queries"], first: int) -> NDArray[np.float64]:
    """For each query, the share of the duplicates (at `first` and after) that score as their originals do."""
    close = np.abs(scores[first:] - scores[: len(scores) - first]) <= 0.01 * scores.std(axis=0)
    shares: NDArray[np.float64] = close.mean(axis=0).astype(np.float64)
    return shares
