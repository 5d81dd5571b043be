"""Sanity: checks of scores that need no ground truth, after Adebayo et al. (arXiv 1810.03292) and quanda.

weights     1 − Spearman of a query's scores with the model's weights and with random weights: the scores of a method
            that reads the model must change (0: the method ignores what the model learned). Random weights are each
            tensor's own numbers in another order, so that every model can be tested, with an adapter or without.
detection   AP of the planted rows with random weights: whatever a method finds then, it finds by words alone
variety     distinct rows among all queries' top 10, as a share of 10 × queries: low if all queries find the same rows
seeds       Spearman of a query's scores with two seeds of the method: 1 is stable (1 for methods without a seed)
twins       share of added duplicates whose scores equal those of their originals within 1 % of the scores' spread
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from headwater.core.errors import ModelError
from headwater.core.seeds import key
from headwater.core.statistics import spearman
from headwater.data.corpus import open_corpus
from headwater.data.records import as_record
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.metrics import detection_values, fixed
from headwater.evaluation.own import MeasuredTask, Own, described, measured_on_own, settings_json
from headwater.evaluation.result import Line, Result
from headwater.evaluation.stage import Stage, parse_label, with_controls
from headwater.methods.catalog import find_entry
from headwater.models.load import LoadedModel, wrap_model
from headwater.models.load import load_model as load
from headwater.tasks import howdy_task
from headwater.training.cache import OnShare, trained
from headwater.training.tiny import Recipe, task_rows

TWINS = 20
SHOWN = ("weights", "detection", "trained", "variety", "seeds", "twins")


@dataclass(frozen=True)
class SanitySettings:
    """`rows` and `queries` are of the Howdy pool, `epochs` of its model; 0 takes the recipe's default.

    `own` is your own model, rows and queries instead; `detection` and `trained` are then measured if it has ground
    truth.
    """

    methods: tuple[str, ...] = ("rise", "rapidin")
    rows: int = 600
    queries: int = 20
    epochs: int = 0
    seed: int = 0
    own: Own | None = None


def run_sanity(settings: SanitySettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Run every check for each method and control; queries of the Howdy pool have their reference answers."""
    labels = with_controls(settings.methods)
    notes: list[str] = []
    if settings.own is None:
        measured = _howdy(settings, folder, listener.on_progress)
    else:
        measured, notes = measured_on_own(settings.own, folder, where="sanity")
    own, rows = measured.stage, measured.stage.rows
    twins = [{**as_record(row), "id": f"twin-{row.id}"} for row in rows[:TWINS]]
    pool = open_corpus([*map(as_record, rows), *twins])
    twin_ids = {twin["id"] for twin in twins}
    positives = {query: ids | ({f"twin-{i}" for i in ids} & twin_ids) for query, ids in measured.positives.items()}
    models = {"trained": own.loaded, "random": shuffled(own.loaded, settings.seed)}
    stages = [Stage(model, pool, own.folder / name, own.recorded, own.reading) for name, model in models.items()]
    lines = []
    for number, label in enumerate(labels):
        listener.on_progress(f"checking {label}", number / len(labels))
        lines.append(_line(label, stages, replace(measured, positives=positives), len(twins)))
    shown = tuple(name for name in SHOWN if name in lines[0].metrics)
    note = f"{len(rows) + len(twins):,} rows with {len(twins)} duplicates."
    if measured.positives:
        note += " `trained` and `detection` are AP of the rows to find with trained and with random weights."
    title = "sanity: what scores must do"
    about = described(measured, measured.name)
    return Result("sanity", title, settings_json(settings), shown, tuple(lines), (note, *notes), about)


def _howdy(settings: SanitySettings, folder: Path, on_progress: OnShare) -> MeasuredTask:
    task = howdy_task(settings.seed, rows=settings.rows, queries=settings.queries)
    recipe = replace(Recipe(), epochs=settings.epochs) if settings.epochs else Recipe()
    how: dict[str, Any] = {"seed": settings.seed, "recipe": recipe, "on_progress": on_progress}
    made = trained(folder / "models", task.name, task.rows, **how)
    queries = task_rows([{**query, "response": query["reference"]} for query in task.queries])
    corpus, indexes = open_corpus([dict(row) for row in task.rows]), folder / "indexes" / f"sanity-{made.folder.name}"
    stage = Stage(load(str(made.folder)), corpus, indexes, made.recorded)
    return MeasuredTask("howdy", stage, tuple(queries), task.positives)


def shuffled(loaded: LoadedModel, seed: int) -> LoadedModel:
    """The same model with the numbers of every tensor of weights in a random order.

    Raises:
        ModelError: weights are stored as codes, whose order means something else.
    """
    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                what = f"'{name}' is quantised, so its weights cannot be drawn anew"
                raise ModelError(what, where=loaded.name, remedy="load the model without --quantization")
            order = torch.randperm(parameter.numel(), generator=torch.Generator().manual_seed(key(seed, name)))
            parameter.copy_(parameter.flatten()[order.to(parameter.device)].view_as(parameter))
    return wrap_model(model, loaded.tokenizer, f"{loaded.name}, random weights")


def _line(label: str, stages: Sequence[Stage], measured: MeasuredTask, twins: int) -> Line:
    queries, positives = measured.queries, dict(measured.positives)
    with_trained, with_random = (stage.score(label, queries) for stage in stages)
    again = stages[0].score(other, queries) if (other := reseeded(label)) else with_trained
    first, second = with_trained.scores.values, with_random.scores.values
    values = {"weights": 1 - _rank_agreement(first, second), "seeds": _rank_agreement(first, again.scores.values)}
    values["twins"] = _twins(first, len(first) - twins)
    if positives:
        values["detection"] = detection_values(with_random.scores, positives, ())["AP"]
        values["trained"] = detection_values(with_trained.scores, positives, ())["AP"]
    variety = fixed(len(np.unique(with_trained.scores.top(10))) / (10 * len(queries)))
    line = Line.of(label, values, SHOWN, cost=with_trained.cost)
    return replace(line, metrics={**line.metrics, "variety": variety})


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
