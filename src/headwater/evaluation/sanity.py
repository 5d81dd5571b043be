"""Sanity: checks of scores that need no ground truth, after Adebayo et al. (arXiv 1810.03292) and quanda.

weights     1 − Spearman of a query's scores with the model's weights and with random weights: the scores of a method
            that reads the model must change (0: the method ignores what the model learned)
detection   AP of the planted rows with random weights: whatever a method finds then, it finds by words alone
variety     distinct rows among all queries' top 10, as a share of 10 × queries: low if all queries find the same rows
seeds       Spearman of a query's scores with two seeds of the method: 1 is stable (1 for methods without a seed)
twins       share of added duplicates whose scores equal those of their originals within 1 % of the scores' spread
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from headwater.core.scores import Scores
from headwater.core.statistics import spearman
from headwater.data.corpus import open_corpus
from headwater.data.rows import Record, Row
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.metrics import detection_values, estimate, fixed
from headwater.evaluation.result import Line, Result
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
    """`rows` and `queries` are of the Howdy pool, `epochs` of its model; 0 takes the recipe's default."""

    methods: tuple[str, ...] = ("rise", "rapidin")
    rows: int = 600
    queries: int = 20
    epochs: int = 0
    seed: int = 0


def run_sanity(settings: SanitySettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Run every check for each method and control, on the Howdy pool; queries have their reference answers."""
    task = howdy_task(settings.seed, rows=settings.rows, queries=settings.queries)
    recipe = replace(Recipe(), epochs=settings.epochs) if settings.epochs else Recipe()
    how: dict[str, Any] = {"seed": settings.seed, "recipe": recipe, "on_progress": listener.on_progress}
    made = trained(folder / "models", task.name, task.rows, **how)
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
    return Result("sanity", "sanity: what scores must do", asdict(settings), SHOWN, tuple(lines), notes)


def randomised(loaded: LoadedModel, seed: int) -> LoadedModel:
    """The same architecture and tokenizer with random weights from the seed."""
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
        "seeds": _rank_agreement(first, again.scores.values),
        "twins": _twins(first, len(pool) - TWINS),
    }
    variety = fixed(len(np.unique(with_trained.scores.top(10))) / (10 * len(queries)))
    return Line(label, {n: estimate(v) for n, v in metrics.items()} | {"variety": variety}, with_trained.cost)


def reseeded(label: str) -> str | None:
    """The label with another seed; None for a method without a seed, or for a combination of methods."""
    if "+" in label or "=>" in label:
        return None
    named = parse_label(label)
    if not hasattr(find_entry(named.name).presets["default"], "seed"):
        return None
    return f"{label}{',' if ':' in label else ':'}seed={int(named.settings.get('seed', 0)) + 1}"


def _rank_agreement(a: Float[np.ndarray, "rows queries"], b: Float[np.ndarray, "rows queries"]) -> NDArray[np.float64]:
    """Spearman of each query's scores; if one side is constant, 1 if both are equal, else 0."""
    pairs = zip(a.T, b.T, strict=True)
    return np.array([spearman(x, y, if_constant=float(np.array_equal(x, y))) for x, y in pairs])


def _twins(scores: Float[np.ndarray, "rows queries"], first: int) -> NDArray[np.float64]:
    """For each query, the share of the duplicates (from `first` on) that have the scores of their originals."""
    close = np.abs(scores[first:] - scores[: len(scores) - first]) <= 0.01 * scores.std(axis=0)
    shares: NDArray[np.float64] = close.mean(axis=0).astype(np.float64)
    return shares
