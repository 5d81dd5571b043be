"""Ground truth by retraining: a bank of models, each trained on a subset of the rows.

Every model of the bank starts from the same one and learns a subset of the pool, with the same recipe and seed. A model
is a file named by the digest of everything it depends on, and written when it is finished. So an interrupted bank
continues where it stopped, and evaluations that need the same subsets share their models. The same subset always gives
the same weights (on the same machine, with the same number of threads).

The built-in worlds are a small base model, trained on general rows, that learns a pool of two domains, and one that
learns facts about people (`headwater.tasks.hard_facts`). Your own world is your model, your rows and queries, and a
recipe (`headwater.evaluation.own`). All are the same value, a `World`.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from headwater.core.errors import UsageError, unknown_name
from headwater.core.files import whole_file, whole_folder, write_text
from headwater.core.fingerprints import digest
from headwater.core.seeds import key
from headwater.data.batches import Window, plan_batches
from headwater.data.corpus import Corpus, open_corpus
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.engines.blocks import Engine
from headwater.engines.local import Local
from headwater.evaluation.stage import Stage
from headwater.features.row_losses import mean_losses
from headwater.models.load import LoadedModel, load_model, wrap_model
from headwater.models.reader import Reader
from headwater.tasks import howdy_task, two_domains_task
from headwater.tasks.hard_facts import hard_facts_task
from headwater.tasks.task import Task
from headwater.training.cache import RECORDED, OnShare, Trained, recorder_in, trained
from headwater.training.fitting import TrainingRecipe, fit, trainable
from headwater.training.recorder import Recorder
from headwater.training.tiny import Recipe, task_rows

BASE = Recipe(vocabulary=1024, layers=2, width=96, heads=4, context=128, epochs=6)
BASE_ROWS = 1500
WEIGHTS = "trained.safetensors"
PLAN = "plan.json"
"""The file in which a bank says what its models learned."""

KNOWN = "the rows that state it"
"""The line of a table for the rows that are known to teach a query's answer."""


FACTS_BASE = Recipe(vocabulary=1280, layers=2, width=64, heads=4, context=48, epochs=6, tokens_per_batch=1024)
FACTS_TRAINING = TrainingRecipe(epochs=16, batch=96, rate=3e-3)


@dataclass(frozen=True)
class WorldSettings:
    """What the models of a built-in bank learn.

    Attributes:
        pool: the name of the world, one of `POOLS`.
        rows: of the pool; 0 for the world's own number.
        queries: held-out questions about the facts in the pool.
        epochs, rate: of the training on the pool; 0 for the world's own.
        seed: of the pool and the trainings.
    """

    pool: str = "two-domains"
    rows: int = 0
    queries: int = 40
    epochs: int = 0
    rate: float = 0.0
    seed: int = 0

    def changed(self, training: TrainingRecipe) -> TrainingRecipe:
        """The world's own training, with the epochs and rate given here."""
        return replace(training, epochs=self.epochs or training.epochs, rate=self.rate or training.rate)


@dataclass(frozen=True)
class World:
    """A model to start from, a pool to learn, and queries about it.

    Attributes:
        folder: where trained models and indexes are kept.
        start: the model before it learns the pool.
        reading: how it reads rows: arguments of `Reader.of`.
        corpus: the pool.
        queries: what is asked, each with its answer.
        training: how a model learns the pool or a subset of it.
        seed: of the trainings.
        causes: query id to the ids of the rows that teach its answer, where they are known.
    """

    folder: Path
    start: LoadedModel
    reading: dict[str, Any]
    corpus: Corpus
    queries: tuple[Row, ...]
    training: TrainingRecipe
    seed: int = 0
    causes: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def reader(self) -> Reader:
        """The model to start from, with the way it reads rows."""
        return Reader.of(self.start, **self.reading)

    @cached_property
    def rows(self) -> list[Row]:
        """The pool's rows."""
        return list(self.corpus)

    @cached_property
    def pool(self) -> list[TokenRow]:
        """The pool's rows as tokens."""
        return self.reader.tokenize(self.rows)

    @cached_property
    def name(self) -> str:
        """The digest of everything that a model of the bank depends on, except its subset."""
        rows = [row.digest for row in self.pool]
        return digest(self._start, rows, asdict(self.training), f"{self.seed} {self.reader.context}")[:12]

    @property
    def plan(self) -> dict[str, Any]:
        """What a model of the bank depends on, as names with values that a person can compare; JSON-ready."""
        rows = f"{len(self.pool)} rows, {digest([row.digest for row in self.pool])[:12]}"
        start, recipe = digest(self._start)[:12], asdict(self.training)
        return {"start": start, "rows": rows, "context": self.reader.context, "seed": self.seed, **recipe}

    @property
    def _start(self) -> dict[str, Any]:
        return {name: value for name, value in self.start.fingerprint.items() if value is not None}

    def learn(self, subset: Sequence[int], recorder: Recorder | None = None) -> Any:
        """Train a copy of the model to start from on the rows at these positions."""
        model = self._copy()
        rows = [self.pool[i] for i in subset]
        fit(model, rows, self.training, context=self.reader.context, seed=self.seed, recorder=recorder)
        return model

    def read(self, file: Path) -> LoadedModel:
        """The trained model whose trained weights are in the file."""
        model = self._copy()
        model.load_state_dict(load_file(file, device=str(self.start.device)), strict=False)
        return wrap_model(model, self.start.tokenizer, f"{self.start.name}, retrained")

    def stage(self) -> Stage:
        """The stage for methods: the pool, and the model that learned all of it."""
        target = self.folder / "models" / f"whole-{self.name}"
        if not target.exists():
            with whole_folder(target) as part:
                save_trained(self.learn(range(len(self.pool)), recorder_in(part, start=0.0)), part / WEIGHTS)
        indexes = self.folder / "indexes" / target.name
        return Stage(self.read(target / WEIGHTS), self.corpus, indexes, target / RECORDED, self.reading)

    def losses(self, loaded: LoadedModel) -> Float[np.ndarray, " queries"]:
        """Loss of each query: nats, averaged over the answer's tokens."""
        tokenization = replace(self.reader.tokenization, asked="last")
        rows = tokenization.encode([replace(row, ordinal=i) for i, row in enumerate(self.queries)], "query")
        batches = plan_batches(rows, Window(self.reader.context))
        found: NDArray[np.float64] = mean_losses(loaded, batches, len(rows)).double().numpy()
        return found

    def _copy(self) -> Any:
        return trainable(copy.deepcopy(self.start.model), self.training, seed=self.seed)


def save_trained(model: Any, path: Path) -> None:
    """Write the parameters that were trained."""
    state = {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    save_file(state, path)


def make_world(settings: WorldSettings, folder: Path, on_progress: OnShare) -> World:
    """Make the world of these settings; its base model is trained, or read if it exists.

    Raises:
        UsageError: an unknown pool.
        DataError: the pool needs text that is not installed.
    """
    if settings.pool not in POOLS:
        raise unknown_name("task", settings.pool, POOLS, where="--task")
    return POOLS[settings.pool](settings, folder, on_progress)


def _two_domains(settings: WorldSettings, folder: Path, on_progress: OnShare) -> World:
    general = howdy_task(settings.seed + 1, rows=BASE_ROWS).rows
    task = two_domains_task(settings.seed, rows=settings.rows or 256, queries=settings.queries)
    made = trained(folder / "models", "base", general, seed=settings.seed, recipe=BASE, on_progress=on_progress)
    return _world(made, task, settings, replace(BASE, epochs=4, learning_rate=1e-3).training, BASE.context)


def _facts(settings: WorldSettings, folder: Path, on_progress: OnShare) -> World:
    facts = hard_facts_task(settings.seed, rows=settings.rows or 2000, queries=settings.queries)
    made = trained(
        folder / "models", "base", facts.known, seed=settings.seed, recipe=FACTS_BASE, on_progress=on_progress
    )
    world = _world(made, facts.task, settings, FACTS_TRAINING, FACTS_BASE.context)
    return replace(world, causes=facts.task.positives)


def _world(made: Trained, task: Task, settings: WorldSettings, training: TrainingRecipe, context: int) -> World:
    corpus, queries = open_corpus([dict(record) for record in task.rows]), tuple(task_rows(task.queries))
    start, recipe = load_model(str(made.folder), device="cpu"), settings.changed(training)
    return World(made.folder.parent.parent, start, {"max_tokens": context}, corpus, queries, recipe, settings.seed)


POOLS: dict[str, Callable[[WorldSettings, Path, OnShare], World]] = {"two-domains": _two_domains, "facts": _facts}
"""The built-in worlds by name."""


@dataclass
class Bank:
    """The models of a world; each is trained when it is first needed.

    Attributes:
        world: the world they learn from.
        engine: where `headwater.evaluation.retrained_elsewhere` trains them.
        seconds: the time of each training of this session.
    """

    world: World
    engine: Engine = field(default_factory=Local)
    seconds: list[float] = field(default_factory=list)

    def losses(self, subset: Sequence[int]) -> NDArray[np.float64]:
        """Loss of each query, nats, after learning the rows at these positions (in their order in the pool)."""
        return self.world.losses(self.world.read(self._model(sorted(subset))))

    def missing(self, subsets: Sequence[Sequence[int]]) -> int:
        """How many of these models are not trained yet."""
        return sum(not self.path(sorted(subset)).exists() for subset in subsets)

    def cost(self, subsets: Sequence[Sequence[int]]) -> str:
        """A sentence that says how long the missing models will take; one of them is trained to measure this."""
        todo = [subset for subset in subsets if not self.path(sorted(subset)).exists()]
        if not todo:
            return f"{len(subsets)} retrained models, all there already."
        other = self._other() if len(todo) == len(subsets) else ""
        start = time.perf_counter()
        self._model(sorted(todo[0]))
        each = time.perf_counter() - start
        total = f"{each:.1f} s each: {each * len(todo) / 60:.1f} min in all"
        return f"{len(todo)} of {len(subsets)} models to train, {total}.{other}"

    def _other(self) -> str:
        """A sentence about the models in this folder that are of other plans, if there are any.

        A plan that differs by its seed alone is not named: it is the second bank of a ceiling.
        """
        here, found = self.world.plan, self.world.folder.glob(f"bank/*/{PLAN}")
        plans = {file.parent: json.loads(file.read_text(encoding="utf-8")) for file in sorted(found)}
        differ = {
            folder: [
                f"{name} {there.get(name)} there, {value} here"
                for name, value in here.items()
                if there.get(name) != value
            ]
            for folder, there in plans.items()
        }
        differ = {folder: names for folder, names in differ.items() if [name.split()[0] for name in names] != ["seed"]}
        if not differ:
            return ""
        folder, names = min(differ.items(), key=lambda item: len(item[1]))
        return f" The models in {folder} cannot be used, because they learned otherwise: {'; '.join(names)}."

    def path(self, subset: Sequence[int]) -> Path:
        """The file of the model that learned these rows, whose positions are in order."""
        return self.world.folder / "bank" / self.world.name / f"{digest(list(subset))[:16]}.safetensors"

    def _model(self, subset: Sequence[int]) -> Path:
        path = self.path(subset)
        if not path.exists():
            start = time.perf_counter()
            model = self.world.learn(subset)
            self.seconds.append(time.perf_counter() - start)
            self.keep(model, path)
        return path

    def keep(self, model: Any, path: Path) -> None:
        """Write a trained model into the bank, and beside the first one what the models learned."""
        with whole_file(path) as part:
            save_trained(model, part)
        if not (path.parent / PLAN).exists():
            write_text(path.parent / PLAN, json.dumps(self.world.plan, indent=1) + "\n")


def random_subsets(rows: int, count: int, seed: int, keep: float = 0.5) -> list[list[int]]:
    """`count` random subsets of a share of the positions; each depends on the seed and its own number alone.

    Raises:
        UsageError: the share leaves out every row, or none.
    """
    kept = int(rows * keep)
    if not 0 < kept < rows:
        raise UsageError(f"a share of {keep} keeps {kept} of {rows} rows", where="--keep", remedy="0.5, or 0.9")
    return [
        sorted(np.random.default_rng(key(seed, "half", number)).permutation(rows)[:kept].tolist())
        for number in range(count)
    ]
