"""The models of the forgetting task: one that learned the poison, and one retrained without it, each made once.

By default both are tiny models, trained from scratch on the task's rows with one tokenizer. With another base model
they are two fine-tunings of it, on the same rows in the same order except for the poison.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headwater.core.files import whole_folder
from headwater.core.fingerprints import digest
from headwater.data.rows import Record
from headwater.data.tokens import Tokenization
from headwater.models.load import load_model
from headwater.tasks.contaminated import Contaminated
from headwater.training.cache import OnShare
from headwater.training.fitting import OnStep, Step, fit
from headwater.training.tiny import Recipe, new_model, task_rows, train_tokenizer
from headwater.unlearning.options import UnlearnOptions
from headwater.unlearning.rows import make_job
from headwater.unlearning.run import run_unlearning

SECONDS = "seconds.json"


@dataclass(frozen=True)
class Base:
    """Where training starts: a tiny model from scratch (`model` empty), or a model to fine-tune with an adapter.

    `rate` is of the fine-tuning, `epochs` of both; the rest of the tiny model's training is its recipe's.
    """

    model: str = ""
    epochs: int = 5
    rate: float = 2e-4


@dataclass(frozen=True)
class TimeTaken:
    """Seconds of wall time, and of all processors' time, which is the fairer measure on a shared machine."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Pair:
    """The folders of the contaminated and the retrained model, and the cost of training each."""

    contaminated: Path
    retrained: Path
    contaminating: TimeTaken
    retraining: TimeTaken


@contextmanager
def timed() -> Iterator[list[TimeTaken]]:
    """Measure the time of the block; when it has ended, the list has its one entry."""
    cost: list[TimeTaken] = []
    wall, processor = time.perf_counter(), time.process_time()
    yield cost
    cost.append(TimeTaken(time.perf_counter() - wall, time.process_time() - processor))


def make_pair(task: Contaminated, base: Base, folder: Path, *, seed: int, on_progress: OnShare) -> Pair:
    """Both models, trained unless they are in `folder` already."""
    key = digest([dict(row) for row in task.rows], asdict(base), str(seed))[:12]

    def trained(name: str, rows: Sequence[Record]) -> tuple[Path, TimeTaken]:
        def make() -> tuple[Any, Any]:
            if base.model:
                return _tuned(rows, base, seed)

            def report(step: Step) -> None:
                on_progress(f"training the {name} model, loss {step.loss:.2f}", step.step / step.steps)

            return _tiny(rows, task, base, seed=seed, report=report)

        return _kept(folder / f"{name}-{key}", make)

    contaminated, contaminating = trained("contaminated", task.rows)
    retrained, retraining = trained("retrained", task.unpoisoned)
    return Pair(contaminated, retrained, contaminating, retraining)


def _kept(target: Path, make: Callable[[], tuple[Any, Any]]) -> tuple[Path, TimeTaken]:
    """The folder with the model and tokenizer from `make`, and their cost; an existing folder is used again."""
    if not (target / SECONDS).is_file():
        with whole_folder(target) as part:
            with timed() as cost:
                model, tokenizer = make()
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
            (part / SECONDS).write_text(json.dumps(asdict(cost[0])), encoding="utf-8")
    return target, TimeTaken(**json.loads((target / SECONDS).read_text(encoding="utf-8")))


def _tiny(rows: Sequence[Record], task: Contaminated, base: Base, *, seed: int, report: OnStep) -> tuple[Any, Any]:
    """Train a tiny model from scratch; its tokenizer is of all rows, which makes both models' losses comparable."""
    recipe = replace(Recipe(), epochs=base.epochs)
    texts = [" ".join(row.fields().values()) for row in task_rows(task.rows)]
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    tokenization = Tokenization.of(tokenizer, max_tokens=recipe.context)
    model = new_model(tokenizer, recipe, seed=seed)
    rows_read = tokenization.encode(task_rows(rows))
    fit(model, rows_read, recipe.training, context=recipe.context, seed=seed, on_step=report)
    return model, tokenizer


def _tuned(rows: Sequence[Record], base: Base, seed: int) -> tuple[Any, Any]:
    """Fine-tune the base model on the rows with an adapter, and merge it."""
    examples = task_rows(rows)
    job = make_job(examples[:1], examples[1:], needs_retain=True, guard_share=0.0)
    options = UnlearnOptions(method="retrain", rate=base.rate, guard=None, seed=seed)
    steps = base.epochs * len(examples) // options.composition.rows
    result = run_unlearning(load_model(base.model), job, replace(options, steps=steps))
    return result.loaded.model.merge_and_unload(), result.loaded.tokenizer
