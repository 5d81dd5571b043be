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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwater.core.errors import UsageError, unknown_name
from headwater.core.files import write_text
from headwater.core.fingerprints import digest
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.data.tokens import TokenRow
from headwater.evaluation.choosing import Chooser
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.result import Cost, Line, Result
from headwater.methods.targets import Target
from headwater.models.load import LoadedModel, load_model
from headwater.models.losses import loss_table, target_logits
from headwater.models.reader import Reader
from headwater.tasks.junk_pool import junk_pool_task
from headwater.tasks.mixed_pool import mixed_pool_task
from headwater.tasks.pool import PoolTask
from headwater.tasks.real_text import real_text_task
from headwater.training.cache import trained
from headwater.training.tiny import Recipe, task_rows

POOLS: Mapping[str, Callable[..., PoolTask]] = {
    "mixed": mixed_pool_task,
    "junk": junk_pool_task,
    "real": real_text_task,
}
CONTROLS = ("bm25", "embedding", "loss")
WEIGHINGS = ("tokens", "rows")
CONTEXT = 128
TOKENS_PER_BATCH = 1024
"""Padded tokens of a forward pass in training and measuring; it changes the time and not the losses."""
REAL = Recipe(epochs=2, width=96, vocabulary=2400, tokens_per_batch=2048, context=CONTEXT)
"""The model before the purchase of real text: two epochs over other real text."""


@dataclass(frozen=True)
class SelectionSettings:
    """The settings of a run.

    Attributes:
        pool: `mixed`, `junk`, or `real`: text of Debian packages.
        methods: the methods that choose rows, beside the controls; by default ALinFiK, for a training with AdamW.
        rows: of the pool.
        share: the share of the pool that an arm takes.
        labels: the share of the pool that ALinFiK's teacher labels.
        steps, items, rate: of the training: steps, rows a step, highest learning rate.
        seeds: of the arms' trainings.
        seed: of the pool and of the model that every arm starts from.
        weigh: `tokens`: a step lowers the mean loss over its rows' tokens, as most trainers do, so that long rows count
            more; `rows`: the mean of its rows' losses, which a value is about. The held-out loss is taken alike.
        text: the folder below which the packages of the pool `real` are.
    """

    pool: str = "mixed"
    methods: tuple[str, ...] = ("alinfik:preset=training",)
    rows: int = 6000
    share: float = 0.1
    labels: float = 0.1
    steps: int = 120
    items: int = 16
    rate: float = 1e-3
    seeds: tuple[int, ...] = (0, 1, 2)
    seed: int = 0
    weigh: str = "tokens"
    text: str = "/usr"

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise unknown_name("pool", self.pool, POOLS, where="selection")
        if self.weigh not in WEIGHINGS:
            raise unknown_name("weighing", self.weigh, WEIGHINGS, where="selection")
        if not 0 < self.share < 1 or len(self.seeds) < 1 or self.steps < 10:
            what = f"cannot run with a share of {self.share}, {len(self.seeds)} seeds, {self.steps} steps"
            raise UsageError(what, where="selection", remedy="give 0 < share < 1, and at least a seed and 10 steps")


@dataclass(frozen=True)
class Arm:
    """One way of choosing.

    Attributes:
        name: its label.
        losses: held-out loss (nats) at each measured step, `[seeds, points]`.
        seconds: of scoring the pool, with one seed.
        kinds: the share of the chosen rows of each kind, `[seeds]`.
    """

    name: str
    losses: NDArray[np.float64]
    seconds: float
    kinds: Mapping[str, NDArray[np.float64]]


def run_selection(settings: SelectionSettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Run every arm; learning curves go to `selection-POOL-curves.json` in the folder.

    Scores and curves are kept in `selection-POOL/` of the folder, so a run that was stopped goes on.
    """
    where = {"place": settings.text} if settings.pool == "real" else {}
    task = POOLS[settings.pool](settings.seed, rows=settings.rows, **where)
    recipe = REAL if settings.pool == "real" else buyer_recipe()
    how: dict[str, Any] = {"seed": settings.seed, "recipe": recipe, "on_progress": listener.on_progress}
    made = trained(folder, f"buyer-{settings.pool}", task.warm_up, **how)
    ground = _Ground.of(task, load_model(str(made.folder)), settings, folder)
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
        wanted = [share for kind, share in arm.kinds.items() if kind in ("helpful", "quality")]
        values["wanted share"] = sum(wanted, np.zeros(len(arm.losses)))
        lines.append(Line.of(arm.name, values, tuple(values), cost=Cost(build_seconds=round(arm.seconds, 2))))
    return tuple(lines)


def steps_to(curve: NDArray[np.float64], goal: float, points: Sequence[int]) -> float:
    """The first measured step at which the curve is at or below `goal`, as a share of all steps; 2 if there is none."""
    there = np.flatnonzero(curve <= goal)
    return points[int(there[0])] / points[-1] if len(there) else 2.0


def _notes(settings: SelectionSettings, ground: _Ground) -> tuple[str, ...]:
    return (
        f"{settings.rows:,} rows, {ground.count:,} chosen; {settings.steps} steps of {settings.items} rows from one "
        f"model for every arm, each on the mean over its {settings.weigh}; loss on {len(ground.held_out)} held-out "
        f"rows like the target's, mean over its {settings.weigh}; {len(settings.seeds)} seeds, Student's 95 % "
        "intervals over seeds.",
        "steps to random's end: share of all steps after which the random share's final loss is reached; 2: never.",
        "wanted share: the share of the chosen rows that are of the kind planted for the target.",
        f"alinfik labels {100 * settings.labels:g} % of the pool.",
    )


@dataclass(frozen=True)
class _Ground:
    """Everything that all arms share."""

    settings: SelectionSettings
    chooser: Chooser
    tokens: tuple[TokenRow, ...]
    held_out: tuple[TokenRow, ...]

    @classmethod
    def of(cls, task: PoolTask, loaded: LoadedModel, settings: SelectionSettings, folder: Path) -> _Ground:
        reader = Reader.of(loaded, max_tokens=CONTEXT)
        rows, held_out = tuple(task_rows(task.rows)), reader.tokenize(task_rows(task.held_out))
        target = Target(settings.pool, tuple(task_rows(task.target)))
        chooser = Chooser(folder / f"selection-{settings.pool}", reader, rows, target)
        return cls(settings, chooser, tuple(reader.tokenize(rows)), tuple(held_out))

    @property
    def count(self) -> int:
        """How many rows an arm takes."""
        return max(1, round(self.settings.share * len(self.tokens)))

    @property
    def points(self) -> list[int]:
        """Steps at which the held-out loss is measured."""
        every = max(1, self.settings.steps // 20)
        return sorted({*range(0, self.settings.steps, every), self.settings.steps})

    def arm(self, name: str) -> Arm:
        """Choose rows and train on them, once for each seed; what an earlier run has done is read from its files."""
        losses, seconds, kinds = [], [], []
        for seed in self.settings.seeds:
            chosen, took = self._choose(name, seed)
            losses.append(self._trained(chosen, seed))
            seconds.append(took)
            kinds.append([str(self.chooser.rows[i].metadata["kind"]) for i in chosen])
        shares = {
            kind: [one.count(kind) / len(one) for one in kinds] for kind in sorted({k for one in kinds for k in one})
        }
        return Arm(name, np.array(losses), max(seconds), {kind: np.array(share) for kind, share in shares.items()})

    def _choose(self, name: str, seed: int) -> tuple[NDArray[np.int64], float]:
        """The positions of an arm's rows, and the seconds that choosing them took."""
        if name == "all data":
            return np.arange(len(self.tokens)), 0.0
        if name == "random":
            return np.array(self.chooser.drawn(seed)[: self.count]), 0.0
        labels = round(self.settings.labels * len(self.tokens))
        scores = self.chooser.scores(name, seed=seed, labels=labels)
        best: NDArray[np.int64] = np.argsort(-scores.values, kind="stable")[: self.count]
        return best, scores.seconds

    def _trained(self, chosen: NDArray[np.int64], seed: int) -> list[float]:
        """The held-out losses at the measured steps of a training on these rows."""
        settings = self.settings
        how: list[Any] = [settings.steps, settings.items, settings.rate, settings.weigh, seed, self.points]
        held_out = [row.ids.tolist() for row in self.held_out]
        name = digest(self.chooser.identity, held_out, how, chosen.tolist())[:16]
        file = self.chooser.folder / f"curve-{name}.json"
        if not file.exists():
            write_text(file, json.dumps(self._train([self.tokens[i] for i in chosen], seed)))
        losses: list[float] = json.loads(file.read_text(encoding="utf-8"))
        return losses

    def _train(self, rows: Sequence[TokenRow], seed: int) -> list[float]:
        """Train, and measure at the measured steps; every epoch takes the rows in a new order."""
        settings, model = self.settings, copy.deepcopy(self.chooser.reader.loaded.model).requires_grad_(True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, betas=(0.9, 0.95), fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings.steps))
        order = _order(len(rows), settings.steps * settings.items, seed)
        losses = [self._measure(model)]
        for step in range(settings.steps):
            some = [rows[i] for i in order[step * settings.items : (step + 1) * settings.items]]
            optimizer.zero_grad()
            for batch in _batches(some):
                (_summed(model, batch, settings.weigh) / _counted(some, settings.weigh)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step + 1 in self.points:
                losses.append(self._measure(model))
        return losses

    @torch.no_grad()
    def _measure(self, model: Any) -> float:
        """The held-out loss, in nats."""
        weigh = self.settings.weigh
        total = sum(float(_summed(model, batch, weigh)) for batch in _batches(self.held_out))
        return total / _counted(self.held_out, weigh)


def _summed(model: Any, batch: TokenBatch, weigh: str) -> Tensor:
    """The sum of the rows' losses (each the mean over its response tokens), or of all tokens' losses; nats."""
    batch = batch.to(model.device)
    logits, place = target_logits(model, batch.input_ids, batch.response)
    kept = batch.response.gather(1, place)
    totals = batch.sum_windows(loss_table(logits[kept], batch.targets.gather(1, place), kept).sum(1))
    return (totals / batch.target_counts).sum() if weigh == "rows" else totals.sum()


def _counted(rows: Sequence[TokenRow], weigh: str) -> int:
    """What `_summed` sums over: rows, or response tokens."""
    return len(rows) if weigh == "rows" else sum(int(row.response.sum()) for row in rows)


def _batches(rows: Sequence[TokenRow]) -> list[TokenBatch]:
    """Rows of similar length together, so that little is padded."""
    return plan_batches(rows, Window(CONTEXT), tokens_per_batch=TOKENS_PER_BATCH)


def _order(rows: int, count: int, seed: int) -> NDArray[np.int64]:
    """The positions of the rows to train on, epoch after epoch."""
    generator = np.random.default_rng(seed)
    epochs = [generator.permutation(rows) for _ in range(math.ceil(count / rows))]
    return np.concatenate(epochs)[:count]


def _rate(step: int, steps: int) -> float:
    """Warm-up over a tenth of the steps, then half a cosine down to a tenth of the rate."""
    return min(1.0, (step + 1) / (0.1 * steps)) * (0.55 + 0.45 * math.cos(math.pi * step / steps))
