"""The closed loop: value a pool for a target, train on the best share, and see whether the target's loss falls faster.

The arms are each method's best share of the rows, a random share, and the whole pool. Every arm starts from the same
model, takes the same number of steps with the same number of rows a step, and is measured on held-out rows like the
target's. Seeds vary the order of rows, the random share, and (for `alinfik`) the labelled sample. Intervals are over
seeds.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headwater.core.errors import UsageError, unknown_name
from headwater.core.files import write_text
from headwater.core.seeds import key
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.metrics import fixed
from headwater.evaluation.result import Cost, Line, Result
from headwater.methods.catalog import find_method
from headwater.methods.scoring import attribute
from headwater.methods.targets import Target
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader
from headwater.tasks.junk_pool import junk_pool_task
from headwater.tasks.mixed_pool import mixed_pool_task
from headwater.tasks.pool import PoolTask
from headwater.tasks.real_text import real_text_task
from headwater.training.cache import trained
from headwater.training.fitting import response_loss
from headwater.training.tiny import Recipe, task_rows

POOLS: Mapping[str, Callable[..., PoolTask]] = {
    "mixed": mixed_pool_task,
    "junk": junk_pool_task,
    "real": real_text_task,
}
CONTROLS = ("bm25", "embedding", "loss")
CONTEXT = 128
REAL = Recipe(epochs=2, width=96, vocabulary=2400, tokens_per_batch=2048, context=CONTEXT)
"""The model before the purchase of real text: two epochs over other real text."""


@dataclass(frozen=True)
class SelectionSettings:
    """The settings of a run.

    Attributes:
        pool: `mixed`, `junk`, or `real`: text of Debian packages.
        methods: the methods that choose rows, beside the controls.
        rows: of the pool.
        share: the share of the pool that an arm takes.
        labels: the share of the pool that ALinFiK's teacher labels.
        steps, items, rate: of the training: steps, rows a step, highest learning rate.
        seeds: of the arms' trainings.
        seed: of the pool and of the model that every arm starts from.
        text: the folder below which the packages of the pool `real` are.
    """

    pool: str = "mixed"
    methods: tuple[str, ...] = ("alinfik",)
    rows: int = 6000
    share: float = 0.1
    labels: float = 0.1
    steps: int = 120
    items: int = 16
    rate: float = 1e-3
    seeds: tuple[int, ...] = (0, 1, 2)
    seed: int = 0
    text: str = "/usr"

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise unknown_name("pool", self.pool, POOLS, where="selection")
        if not 0 < self.share < 1 or len(self.seeds) < 1 or self.steps < 10:
            what = f"cannot run with a share of {self.share}, {len(self.seeds)} seeds, {self.steps} steps"
            raise UsageError(what, where="selection", remedy="give 0 < share < 1, and at least a seed and 10 steps")


@dataclass(frozen=True)
class Arm:
    """One way of choosing: held-out loss (nats a token) at each measured step, `[seeds, points]`, and its cost."""

    name: str
    losses: NDArray[np.float64]
    seconds: float
    kinds: Mapping[str, float]


def run_selection(settings: SelectionSettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Run every arm; learning curves go to `selection-POOL-curves.json` in the folder."""
    where = {"place": settings.text} if settings.pool == "real" else {}
    task = POOLS[settings.pool](settings.seed, rows=settings.rows, **where)
    recipe = REAL if settings.pool == "real" else buyer_recipe()
    how: dict[str, Any] = {"seed": settings.seed, "recipe": recipe, "on_progress": listener.on_progress}
    made = trained(folder, f"buyer-{settings.pool}", task.warm_up, **how)
    ground = _Ground.of(task, load_model(str(made.folder)), settings)
    names = [*dict.fromkeys((*settings.methods, *CONTROLS)), "random", "all data"]
    arms = []
    for place, name in enumerate(names):
        listener.on_progress(f"choosing and training: {name}", place / len(names))
        arms.append(ground.arm(name))
    points = ground.points
    curves = {"steps": points, "arms": {arm.name: arm.losses.tolist() for arm in arms}}
    write_text(folder / f"selection-{settings.pool}-curves.json", json.dumps(curves))
    return Result(
        task="selection",
        title=f"Does the chosen {100 * settings.share:g} % of the {settings.pool} pool teach the target faster?",
        settings=asdict(settings),
        shown=("loss taken off", "final loss", "steps to random's end", "wanted share"),
        lines=_lines(arms, points),
        notes=_notes(settings, ground),
    )


def buyer_recipe() -> Recipe:
    """The model before the purchase: three epochs over its warm-up rows."""
    return Recipe(epochs=3, width=96, vocabulary=1800, tokens_per_batch=2048, context=CONTEXT)


def _lines(arms: Sequence[Arm], points: Sequence[int]) -> tuple[Line, ...]:
    """Every arm's numbers; steps to random's end are a share of all steps, 2 where it never got there."""
    (random,) = (arm for arm in arms if arm.name == "random")
    lines = []
    for arm in arms:
        reached = [steps_to(curve, end, points) for curve, end in zip(arm.losses, random.losses[:, -1], strict=True)]
        values = {
            "loss taken off": arm.losses[:, 0] - arm.losses[:, -1],
            "final loss": arm.losses[:, -1],
            "steps to random's end": np.array(reached),
        }
        line = Line.of(arm.name, values, tuple(values), cost=Cost(build_seconds=round(arm.seconds, 2)))
        wanted = fixed(sum(v for k, v in arm.kinds.items() if k in ("helpful", "quality")))
        lines.append(replace(line, metrics={**line.metrics, "wanted share": wanted}))
    return tuple(lines)


def steps_to(curve: NDArray[np.float64], goal: float, points: Sequence[int]) -> float:
    """The first measured step at which the curve is at or below `goal`, as a share of all steps; 2 if there is none."""
    there = np.flatnonzero(curve <= goal)
    return points[int(there[0])] / points[-1] if len(there) else 2.0


def _notes(settings: SelectionSettings, ground: _Ground) -> tuple[str, ...]:
    return (
        f"{settings.rows:,} rows, {ground.count:,} chosen; {settings.steps} steps of {settings.items} rows from one "
        f"model for every arm; loss on {len(ground.held_out[0].rows)} held-out rows like the target's; "
        f"{len(settings.seeds)} seeds, Student's 95 % intervals over seeds.",
        "steps to random's end: share of all steps after which the random share's final loss is reached; 2: never.",
        "wanted share: the share of the chosen rows that are of the kind planted for the target.",
        f"alinfik labels {100 * settings.labels:g} % of the pool.",
    )


@dataclass(frozen=True)
class _Ground:
    """Everything that all arms share."""

    settings: SelectionSettings
    task: PoolTask
    reader: Reader
    rows: tuple[Row, ...]
    tokens: tuple[TokenRow, ...]
    target: Target
    held_out: tuple[TokenBatch, ...]

    @classmethod
    def of(cls, task: PoolTask, loaded: LoadedModel, settings: SelectionSettings) -> _Ground:
        reader = Reader.of(loaded, max_tokens=CONTEXT)
        rows = tuple(task_rows(task.rows))
        held = _batches(reader.tokenize(task_rows(task.held_out)))
        target = Target(settings.pool, tuple(task_rows(task.target)))
        return cls(settings, task, reader, rows, tuple(reader.tokenize(rows)), target, tuple(held))

    @property
    def count(self) -> int:
        """How many rows an arm takes."""
        return max(1, round(self.settings.share * len(self.rows)))

    @property
    def points(self) -> list[int]:
        """Steps at which the held-out loss is measured."""
        every = max(1, self.settings.steps // 20)
        return sorted({*range(0, self.settings.steps, every), self.settings.steps})

    def arm(self, name: str) -> Arm:
        """Choose rows and train on them, once for each seed."""
        chosen, losses = np.arange(len(self.rows)), []
        seconds = 0.0
        for number, seed in enumerate(self.settings.seeds):
            begin = time.perf_counter()
            if number == 0 or name == "random" or self._learns(name):
                chosen = self._choose(name, seed)
                seconds = max(seconds, time.perf_counter() - begin)
            losses.append(self._train([self.tokens[i] for i in chosen], seed))
        kinds = [str(self.rows[i].metadata["kind"]) for i in chosen]
        return Arm(name, np.array(losses), seconds, {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)})

    @staticmethod
    def _learns(name: str) -> bool:
        """Whether the method's scores depend on a drawn sample, so that every seed has its own scores."""
        return name != "all data" and find_method(name).learning is not None

    def _choose(self, name: str, seed: int) -> NDArray[np.int64]:
        if name == "all data":
            return np.arange(len(self.rows))
        drawn = sorted(range(len(self.rows)), key=lambda i: key(seed, "selection", self.rows[i].id))
        if name == "random":
            return np.array(drawn[: self.count])
        method = find_method(name)
        sample: list[Row] = []
        if method.learning is not None:
            method = find_method(name, {"seed": seed})
            sample = [self.rows[i] for i in drawn[: round(self.settings.labels * len(self.rows))]]
        values = attribute(method, self.reader, self.rows, [self.target], sample).values[:, 0]
        best: NDArray[np.int64] = np.argsort(-values, kind="stable")[: self.count]
        return best

    def _train(self, rows: Sequence[TokenRow], seed: int) -> list[float]:
        """Train, and return the held-out losses at the measured steps; every epoch takes the rows in a new order."""
        settings, model = self.settings, copy.deepcopy(self.reader.loaded.model).requires_grad_(True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, betas=(0.9, 0.95), fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings.steps))
        order = _order(len(rows), settings.steps * settings.items, seed)
        losses = [self._measure(model)]
        for step in range(settings.steps):
            some = [rows[i] for i in order[step * settings.items : (step + 1) * settings.items]]
            loss = torch.stack([response_loss(model, b) for b in _batches(some)]).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step + 1 in self.points:
                losses.append(self._measure(model))
        return losses

    @torch.no_grad()
    def _measure(self, model: Any) -> float:
        total = sum(float(response_loss(model, batch)) * len(batch.rows) for batch in self.held_out)
        return total / sum(len(batch.rows) for batch in self.held_out)


def _batches(rows: Sequence[TokenRow]) -> list[TokenBatch]:
    return plan_batches(rows, Window(CONTEXT), tokens_per_batch=100_000)


def _order(rows: int, count: int, seed: int) -> NDArray[np.int64]:
    """The positions of the rows to train on, epoch after epoch."""
    generator = np.random.default_rng(seed)
    epochs = [generator.permutation(rows) for _ in range(math.ceil(count / rows))]
    return np.concatenate(epochs)[:count]


def _rate(step: int, steps: int) -> float:
    """Warm-up over a tenth of the steps, then half a cosine down to a tenth of the rate."""
    return min(1.0, (step + 1) / (0.1 * steps)) * (0.55 + 0.45 * math.cos(math.pi * step / steps))
