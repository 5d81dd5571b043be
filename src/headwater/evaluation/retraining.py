"""Ground truth by retraining: a bank of models, each trained on a subset of the rows.

One small base model is trained on general rows. Every model of the bank starts from it and learns a subset of the pool,
with the same schedule and seed. A model is a file named by the digest of everything it depends on, and written when it
is finished. So an interrupted bank continues where it stopped, and evaluations that need the same subsets share their
models. The same subset always gives the same weights (on the same machine, with the same number of threads).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from headwater.core.files import whole_file, whole_folder
from headwater.core.fingerprints import digest
from headwater.core.seeds import key
from headwater.data.batches import Window, plan_batches
from headwater.data.corpus import open_corpus
from headwater.data.rows import Record, Row
from headwater.data.tokens import Tokenization, TokenRow
from headwater.evaluation.stage import Stage
from headwater.features.row_losses import mean_losses
from headwater.models.load import LoadedModel, load_model
from headwater.tasks import howdy_task, two_domains_task
from headwater.training.cache import RECORDED, OnShare, recorder_in, trained
from headwater.training.recorder import Recorder
from headwater.training.tiny import Recipe, fit, task_rows

BASE = Recipe(vocabulary=1024, layers=2, width=96, heads=4, context=128, epochs=6)
BASE_ROWS = 1500


@dataclass(frozen=True)
class WorldSettings:
    """What the models of a bank learn.

    Attributes:
        rows: of the pool.
        queries: held-out questions about the facts in the pool.
        epochs, rate: of the training on the pool.
        seed: of the pool and the trainings.
    """

    rows: int = 256
    queries: int = 40
    epochs: int = 4
    rate: float = 1e-3
    seed: int = 0


@dataclass(frozen=True)
class World:
    """A base model, a pool to learn, and queries about it."""

    settings: WorldSettings
    folder: Path
    base: Path
    records: tuple[Record, ...]
    queries: tuple[Row, ...]

    @property
    def recipe(self) -> Recipe:
        """How a model learns the pool or a subset of it."""
        return replace(BASE, epochs=self.settings.epochs, learning_rate=self.settings.rate)

    @cached_property
    def loaded(self) -> LoadedModel:
        """The base model."""
        return load_model(str(self.base), device="cpu")

    @cached_property
    def tokenization(self) -> Tokenization:
        """The tokenization of rows, with the base model's tokenizer."""
        return Tokenization.of(self.loaded.tokenizer, max_tokens=BASE.context)

    @cached_property
    def pool(self) -> list[TokenRow]:
        """The pool's rows as tokens."""
        return self.tokenization.encode(task_rows(self.records))

    @cached_property
    def name(self) -> str:
        """The digest of everything that a model of the bank depends on, except its subset."""
        rows = [row.digest for row in self.pool]
        return digest(self.base.name, rows, asdict(self.recipe), str(self.settings.seed))[:12]

    def learn(self, subset: Sequence[int], recorder: Recorder | None = None) -> Any:
        """Train a copy of the base model on the rows at these positions."""
        model = copy.deepcopy(self.loaded.model).requires_grad_(True)
        fit(model, [self.pool[i] for i in subset], self.recipe, seed=self.settings.seed, recorder=recorder)
        return model.requires_grad_(False)

    def stage(self) -> Stage:
        """The stage for methods: the pool, and the model that learned all of it."""
        target = self.folder / "models" / f"whole-{self.name}"
        if not target.exists():
            with whole_folder(target) as part:
                self.learn(range(len(self.pool)), recorder_in(part)).save_pretrained(part)
                self.loaded.tokenizer.save_pretrained(part)
        corpus = open_corpus([dict(record) for record in self.records])
        indexes = self.folder / "indexes" / target.name
        return Stage(load_model(str(target), device="cpu"), corpus, indexes, target / RECORDED)


def make_world(settings: WorldSettings, folder: Path, on_progress: OnShare) -> World:
    """Make the world of these settings; its base model is trained, or read if it exists."""
    general = howdy_task(settings.seed + 1, rows=BASE_ROWS).rows
    task = two_domains_task(settings.seed, rows=settings.rows, queries=settings.queries)
    made = trained(folder / "models", "base", general, seed=settings.seed, recipe=BASE, on_progress=on_progress)
    return World(settings, folder, made.folder, task.rows, tuple(task_rows(task.queries)))


@dataclass
class Bank:
    """The models of a world; each is trained when it is first needed.

    Attributes:
        world: the world they learn from.
        seconds: the time of each training of this session.
    """

    world: World
    seconds: list[float] = field(default_factory=list)

    def losses(self, subset: Sequence[int]) -> NDArray[np.float64]:
        """Loss of each query, nats, after learning the rows at these positions (in their order in the pool)."""
        model = copy.deepcopy(self.world.loaded.model)
        model.load_state_dict(load_file(self._model(sorted(subset))), strict=False)
        return query_losses(replace(self.world.loaded, model=model.eval()), self.world)

    def missing(self, subsets: Sequence[Sequence[int]]) -> int:
        """How many of these models are not trained yet."""
        return sum(not self._path(sorted(subset)).exists() for subset in subsets)

    def cost(self, subsets: Sequence[Sequence[int]]) -> str:
        """A sentence that says how long the missing models will take; one of them is trained to measure this."""
        todo = [subset for subset in subsets if not self._path(sorted(subset)).exists()]
        if not todo:
            return f"{len(subsets)} retrained models, all there already."
        start = time.perf_counter()
        self._model(sorted(todo[0]))
        each = time.perf_counter() - start
        total = f"{each:.1f} s each: {each * len(todo) / 60:.1f} min in all"
        return f"{len(todo)} of {len(subsets)} models to train, {total}."

    def _path(self, subset: Sequence[int]) -> Path:
        return self.world.folder / "bank" / self.world.name / f"{digest(list(subset))[:16]}.safetensors"

    def _model(self, subset: Sequence[int]) -> Path:
        path = self._path(subset)
        if not path.exists():
            start = time.perf_counter()
            state = dict(self.world.learn(subset).named_parameters())
            self.seconds.append(time.perf_counter() - start)
            with whole_file(path) as part:
                save_file({name: value.detach().contiguous() for name, value in state.items()}, part)
        return path


def query_losses(loaded: LoadedModel, world: World) -> Float[np.ndarray, " queries"]:
    """Loss of each of the world's queries: nats, averaged over the answer's tokens."""
    rows = world.tokenization.encode([replace(row, ordinal=i) for i, row in enumerate(world.queries)])
    batches = plan_batches(rows, Window(BASE.context))
    found: NDArray[np.float64] = mean_losses(loaded, batches, len(rows)).double().numpy()
    return found


def random_halves(rows: int, count: int, seed: int) -> list[list[int]]:
    """`count` random subsets of half of the positions; each depends on the seed and its own number alone."""
    half = rows // 2
    return [
        sorted(np.random.default_rng(key(seed, "half", number)).permutation(rows)[:half].tolist())
        for number in range(count)
    ]
