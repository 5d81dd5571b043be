"""How far LinFiK's forward form is from exact inner products as the step grows and shrinks, against its bound.

    error ≤ (η/2)·B·‖d‖² + 2u·l/η,   η = c / ‖d‖

u is read off the measured curve at its shortest step and B where the weights move by 0.1, so the figure shows whether
one bound fits the whole range; and how well one step of training, η from small to large, ranks rows as LinFiK does.

Run:  python benchmarks/linfik_error.py --figure docs/figures/linfik-error.svg          (half a minute on one core)
"""

from __future__ import annotations

import argparse
import json
import tempfile

import numpy as np
import torch

from headwater.core.statistics import spearman
from headwater.data.batches import Window, plan_batches
from headwater.features.perturbed import Movable
from headwater.methods.catalog import find_method
from headwater.methods.forward_difference import differences
from headwater.methods.scoring import prepare
from headwater.methods.targets import Target
from headwater.models.load import load_model
from headwater.models.reader import Reader
from headwater.report import plots
from headwater.tasks.mixed_pool import mixed_pool_task
from headwater.training.tiny import Recipe, task_rows, train_tiny

DISTANCES = [float(f"{c:.3g}") for c in 10 ** np.arange(-7, 1.26, 0.5)]
RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]
RECIPE = Recipe(epochs=3, width=64, vocabulary=1200, tokens_per_batch=2048)


def stage(rows: int, folder: str) -> tuple[Reader, list, Target]:
    """A model that knows everyday things, rows of every kind, and a medical target."""
    task = mixed_pool_task(0, rows=max(rows, 100), target=16, warm_up=600)
    train_tiny(task.warm_up, out=folder, seed=0, recipe=RECIPE)
    reader = Reader.of(load_model(folder), max_tokens=256)
    return reader, task_rows(task.rows[:rows]), Target("medical", tuple(task_rows(task.target)))


def one_step(movable: Movable, batches: list, target: list, rate: float) -> np.ndarray:
    """L_t(θ) − L_t(θ − rate·∇l(z)) of every row, one row a batch."""
    before = float(torch.cat([movable.losses(b) for b in target]).mean())
    found = []
    for batch in batches:
        direction = movable.direction([batch])
        moved = movable.moved(direction, rate * direction.norm)
        found.append(before - float(torch.cat([movable.losses(b, moved) for b in target]).mean()))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--figure", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reader, rows, target = stage(given.rows, folder)
    movable, window = Movable.select(reader.loaded), Window(256)
    batches = reader.batches(rows, window)
    single = [plan_batches([row], window)[0] for batch in batches for row in batch.rows]
    asked = reader.batches(target.rows, window)
    direction = movable.direction(asked)
    exact = movable.products(single, direction).numpy()
    found = differences(movable, direction, batches, DISTANCES)
    errors = {c: float(np.abs(values - exact).mean()) for c, values in found.items()}
    losses = float(torch.cat([movable.losses(batch) for batch in batches]).mean())
    steps = np.array(DISTANCES) / direction.norm
    rounding = errors[DISTANCES[0]] * steps[0]
    near = DISTANCES.index(0.1)
    curvature = errors[DISTANCES[near]] / steps[near]
    bound = curvature * steps + rounding / steps
    ranks = {c: spearman(values, exact) for c, values in found.items()}
    truth = {rate: one_step(movable, single, asked, rate) for rate in RATES}
    automatic = prepare(find_method("linfik", {"folds": 1}), reader, [target], rows)
    report = {
        "rows": len(rows),
        "parameters": movable.coverage.seen,
        "gradient norm": direction.norm,
        "mean |product|": float(np.abs(exact).mean()),
        "mean loss": losses,
        "implied smoothness B": 2 * curvature / direction.norm**2,
        "implied round-off u": rounding / (2 * losses),
        "automatic distance": automatic.notes,
        "distances": {f"{c:g}": {"error": errors[c], "rank agreement": ranks[c]} for c in DISTANCES},
        "one step of training": {
            f"{rate:g}": {
                "Spearman with the inner products": spearman(values, exact),
                "Spearman with the forward form": spearman(values, found[1e-3]),
            }
            for rate, values in truth.items()
        },
    }
    print(json.dumps(report, indent=2))
    if given.figure:
        logs = [np.log10(list(errors.values())), np.log10(bound)]
        figure = plots.curves(
            np.log10(DISTANCES),
            {"mean error of the forward form": logs[0], "bound, B and u fitted at two points": logs[1]},
            axes_names=("log10 of the distance the weights move", "log10 of the error"),
        )
        plots.save(figure, given.figure, description="error of LinFiK's forward form by step, beside its bound")


if __name__ == "__main__":
    main()
