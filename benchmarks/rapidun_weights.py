"""Do RapidUn's weights know which rows are mistaken for poison, and does knowing it help? By influence and mapping.

    python benchmarks/rapidun_weights.py [--folder runs/eval] [--seeds 3] [--mistaken 0.25] [--train]

A share of the forget rows is clean in truth, and as large a share of the retain rows is poison: rows as a trace or a
hasty reader finds them. Table 1: the area under the ROC curve with which the weights tell right from mistaken rows
(0.5: not at all), and how many rows of equal weight they amount to, for ways of measuring influence, k and τ. With
`--train`, table 2: what unlearning with these weights comes to. The contaminated models are those of `headwater eval
forgetting` and are used again if they are in the folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from headwater.evaluation.forgetting import ForgettingSettings, make_task
from headwater.evaluation.forgetting_metrics import measure
from headwater.evaluation.forgetting_models import Base, make_pair
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.methods.method import Method
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.tasks.contaminated import Contaminated
from headwater.training.tiny import task_rows
from headwater.unlearning import mapping
from headwater.unlearning.options import UnlearnOptions
from headwater.unlearning.rows import UnlearnJob, make_job
from headwater.unlearning.run import run_unlearning
from headwater.unlearning.targets import Run
from headwater.unlearning.views import Influence, make_views, measure_influence
from headwater.unlearning.weights import Weights, influence_weights, uniform_weights
from headwater.unlearning.weights_file import save_weights

INFLUENCES: tuple[tuple[str, dict[str, Any], bool], ...] = (
    ("gradcos", {"buckets": 16_384}, True),
    ("graddot", {"buckets": 16_384}, False),
    ("rapidin", {"buckets": 16_384}, True),
    ("rise", {}, True),
)
TEMPERATURES = (0.5, 1.0, 2.0)
"""Multiples of the published τ."""


@dataclass(frozen=True)
class Place:
    """One seed's task, the folder of its contaminated model, and the rows as a job."""

    task: Contaminated
    model: Path

    def reader(self) -> Reader:
        return Reader.of(load_model(str(self.model)), max_tokens=512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/eval"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--mistaken", type=float, default=0.25)
    parser.add_argument("--train", action="store_true")
    given = parser.parse_args()
    for seed in range(given.seeds):
        place = prepare(given.folder, seed, given.mistaken)
        for line in told(place, seed):
            print(json.dumps(line), flush=True)
        if given.train:
            for line in trained(place, seed, given.folder):
                print(json.dumps(line), flush=True)


def prepare(folder: Path, seed: int, mistaken: float) -> Place:
    settings = ForgettingSettings(mistaken=mistaken)
    task = make_task(settings, settings.rows, seed)
    pair = make_pair(task, Base(), folder, seed=seed, on_progress=lambda words, share: None)
    return Place(task, pair.contaminated)


def told(place: Place, seed: int) -> Iterator[dict[str, Any]]:
    """Table 1: what the weights know."""
    reader = place.reader()
    job = make_job(task_rows(place.task.forget), task_rows(place.task.retain), needs_retain=True)
    right = {row["id"]: bool(row["planted"]) for row in (*place.task.forget, *place.task.retain)}
    for name, settings, cosine in INFLUENCES:
        influence = measured(reader, job, find_method(name, settings), cosine=cosine)
        for k in (None, 40):
            views = make_views(influence, k=k, exclude_self=k is None)
            for times in TEMPERATURES if k is None else (1.0,):
                line: dict[str, Any] = {"seed": seed, "influence": name, "cosine": cosine, "k": k, "tau ×": times}
                line |= common(influence.values, np.array([right[row.id] for row in (*job.forget, *job.retain)]))
                for group, rows, scores, how in (
                    ("forget", job.forget, views.forget, mapping.FORGET),
                    ("retain", job.retain, views.retain, mapping.RETAIN),
                ):
                    weights = mapping.map_scores(scores, replace(how, tau=times * how.tau))
                    planted = np.array([right[row.id] for row in rows])
                    good = planted if group == "forget" else ~planted
                    line[f"{group} AUC"] = round(auc(good, weights.weights), 3)
                    line[f"{group} effective rows"] = round(weights.effective_rows, 1)
                    if not good.all():
                        line[f"{group} weight, right"] = round(float(weights.weights[good].mean()), 2)
                        line[f"{group} weight, mistaken"] = round(float(weights.weights[~good].mean()), 2)
                yield line


def common(values: np.ndarray, planted: np.ndarray) -> dict[str, float]:
    """Mean influence of different rows on each other: among poison, among clean rows, between the two."""
    others = values + np.diag(np.full(len(values), np.nan))
    pairs = {"poison": (planted, planted), "clean": (~planted, ~planted), "across": (planted, ~planted)}
    return {f"mean, {name}": round(float(np.nanmean(others[np.ix_(i, j)])), 4) for name, (i, j) in pairs.items()}


def auc(good: np.ndarray, weights: np.ndarray) -> float:
    return float(roc_auc_score(good, weights)) if 0 < good.sum() < len(good) else float("nan")


def trained(place: Place, seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Table 2: what unlearning with them comes to, beside uniform weights and those of one who knows the truth.

    Weights from a file leave the guard as it was given, poison included; those made in the run also say how far each
    guard row is trusted.
    """
    job = make_job(task_rows(place.task.forget), task_rows(place.task.retain), needs_retain=True)
    planted = {row["id"]: bool(row["planted"]) for row in (*place.task.forget, *place.task.retain)}
    before = measure(place.reader().loaded, place.task)
    plain = uniform_weights(job.forget, job.retain)
    known = [replace(r, weight=0.0 if planted[r.id] != (r.group == "forget") else 1.0) for r in plain.rows]
    right = replace(job, guard=tuple(row for row in job.guard if not planted[row.id]))
    arms: list[tuple[str, UnlearnJob, str | Weights, str]] = [
        ("uniform", job, "uniform", "rise"),
        ("the truth, guard as given", job, replace(plain, rows=tuple(known)), "rise"),
        ("the truth, guard too", right, replace(plain, rows=tuple(known)), "rise"),
        ("rise, guard as given", job, from_influence(place, job, "rise"), "rise"),
        *((name, job, "influence", name) for name in ("rise", "gradcos", "rapidin")),
        ("rise, shuffled", job, "shuffled", "rise"),
        ("gradcos, shuffled", job, "shuffled", "gradcos"),
    ]
    for name, given, weights, influence in arms:
        file = folder / f"weights-{seed}.csv"
        chosen = weights if isinstance(weights, str) else str(save_weights(weights, file))
        settings = {} if influence == "rise" else {"buckets": 16_384}
        options = UnlearnOptions(weights=chosen, influence=influence, settings=settings, seed=seed)
        result = run_unlearning(place.reader(), given, options)
        after = measure(result.loaded, place.task)
        yield {
            "seed": seed,
            "weights": name,
            "outcome": result.outcome,
            "steps": result.readings[-1].step,
            "ASR seen": round(after.seen, 3),
            "ASR unseen": round(after.unseen, 3),
            "clean perplexity": round(float(np.exp(after.clean_loss - before.clean_loss)), 3),
            "clean F1": round(after.utility, 3),
            "right under triggers": round(after.repaired, 3),
        }


def from_influence(place: Place, job: UnlearnJob, name: str) -> Weights:
    influence = measured(place.reader(), job, find_method(name))
    return influence_weights(influence, job.forget, job.retain)


def measured(reader: Reader, job: UnlearnJob, method: Method, *, cosine: bool = True) -> Influence:
    run = Run.of(reader, job, UnlearnOptions())
    return measure_influence(Bound.of(method, reader), run.forget, run.retain, cosine=cosine)


if __name__ == "__main__":
    main()
