"""Runs in the shape of TOFU and MUSE: on an offline stand-in, or on any models and rows given by paths.

Without a model, fictitious authors are made (`headwater.tasks.authors`): one tiny model learns all rows, one all but
those to forget, and each method unlearns them from the first. With models, the ones given are measured. Every model's
measures are also written as `<LABEL>/TOFU_EVAL.json` and `TOFU_SUMMARY.json` (or `MUSE_...`), which is what
open-unlearning writes and what its tools read, for example as the logs of a retrained model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headwater.core.errors import NumericError, UsageError, unknown_name
from headwater.core.files import write_text
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.evaluation.forgetting import parse_unlearning
from headwater.evaluation.known_metrics import Measure, Subject, muse_measures, summary, tofu_measures
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.metrics import fixed
from headwater.evaluation.result import Line, Result
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader
from headwater.tasks.authors import Authors, authors_task
from headwater.training.cache import trained
from headwater.training.tiny import Recipe, task_rows
from headwater.unlearning.rows import make_job
from headwater.unlearning.run import run_unlearning

SHAPES = ("tofu", "muse")
MAX_TOKENS = 512
RECIPE = Recipe(vocabulary=1200, layers=2, width=128, heads=4, context=128, epochs=24)
DEFAULT_METHODS = ("rapidun", "graddiff", "npo", "simnpo")
FULL, RETRAINED = "before unlearning", "retrained"


@dataclass(frozen=True)
class ProtocolSettings:
    """The settings of a run.

    Attributes:
        shape: `tofu` or `muse`.
        methods: for the stand-in, as in `headwater eval forgetting`.
        model, before, retrained: folders or hub names; without `model` the stand-in is made.
        forget, retain, world, held_out: rows. TOFU needs `perturbed_answer` columns in the first three, of which
            `world` may be missing; MUSE needs held-out rows.
        authors: of the stand-in; a tenth is to be forgotten.
        epochs: of the stand-in's training; 0 is its default.
        seed: of the stand-in, the training and the unlearning.
    """

    shape: str = "tofu"
    methods: tuple[str, ...] = DEFAULT_METHODS
    model: str = ""
    before: str = ""
    retrained: str = ""
    forget: str = ""
    retain: str = ""
    world: str = ""
    held_out: str = ""
    authors: int = 40
    epochs: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Sets:
    """The rows of a protocol."""

    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    world: tuple[Row, ...]
    held_out: tuple[Row, ...]


def run_protocol(settings: ProtocolSettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Measure all models, the retrained one first; write open-unlearning's files into `folder`."""
    if settings.shape not in SHAPES:
        raise unknown_name("shape", settings.shape, SHAPES, where="--shape")
    notes: list[str] = []
    sets, models = _given(settings) if settings.model else _stand_in(settings, folder, listener, notes)
    found: dict[str, dict[str, Measure]] = {}
    for number, (label, model) in enumerate(models.items()):
        listener.on_progress(f"measuring {label}", number / len(models))
        subject = Subject(Reader.of(model() if callable(model) else model, max_tokens=MAX_TOKENS))
        found[label] = _measures(settings.shape, subject, sets, found.get(RETRAINED))
        _write(folder / f"{settings.shape}-{re.sub(r'[^a-z0-9]+', '-', label.lower())}", settings.shape, found[label])
    numbers = {label: summary(measures) for label, measures in found.items()}
    shown = [n for n in ORDER[settings.shape] if any(n in values for values in numbers.values())]
    lines = [
        Line(label, {n: fixed(values[n]) for n in values}) for label, values in numbers.items() if shown[0] in values
    ]
    title = f"{settings.shape.upper()}-shaped: forgetting some rows and keeping the rest"
    return Result("protocol", title, {**asdict(settings)}, tuple(shown), tuple(lines), (*NOTES[settings.shape], *notes))


ORDER = {
    "tofu": (
        *("model_utility", "forget_quality", "forget_truth_ratio", "forget_Q_A_Prob", "forget_Q_A_ROUGE"),
        *("extraction_strength", "retain_Q_A_ROUGE", "wf_Q_A_ROUGE"),
    ),
    "muse": (
        *("retain_knowmem_ROUGE", "forget_knowmem_ROUGE", "forget_verbmem_ROUGE", "privleak", "extraction_strength"),
    ),
}
NOTES = {
    "tofu": ("forget_quality is the p-value of a test against the retrained model; above 0.05 it sees no difference.",),
    "muse": (
        "privleak is in per cent of the retrained model's; near 0 is private, below the rows still look learned.",
    ),
}


def _measures(shape: str, subject: Subject, sets: Sets, reference: dict[str, Measure] | None) -> dict[str, Measure]:
    if shape == "muse":
        return muse_measures(subject, sets.forget, sets.retain, sets.held_out, reference)
    kept: dict[str, Sequence[Row]] = {"retain": sets.retain, **({"wf": sets.world} if sets.world else {})}
    return tofu_measures(subject, sets.forget, kept, reference)


def _write(folder: Path, shape: str, measures: Mapping[str, Measure]) -> None:
    """The two files of open-unlearning, in the order and with the indent that it uses."""
    whole = dict(sorted(measures.items()))
    for suffix, content in (("EVAL", whole), ("SUMMARY", summary(dict(measures)))):
        write_text(folder / f"{shape.upper()}_{suffix}.json", json.dumps(content, indent=4))


def _given(settings: ProtocolSettings) -> tuple[Sets, dict[str, Any]]:
    """The rows and models given by paths."""
    needed = {"--forget": settings.forget, "--retain": settings.retain}
    needed |= {"--held-out": settings.held_out} if settings.shape == "muse" else {}
    for option, value in needed.items():
        if not value:
            raise UsageError(f"{option} is missing", where=f"--shape {settings.shape}", remedy=f"give {option} ROWS")

    def rows(source: str) -> tuple[Row, ...]:
        return tuple(open_corpus(source)) if source else ()

    sets = Sets(*(rows(s) for s in (settings.forget, settings.retain, settings.world, settings.held_out)))
    names = {RETRAINED: settings.retrained, FULL: settings.before, "after unlearning": settings.model}
    return sets, {label: lambda name=name: load_model(name) for label, name in names.items() if name}


def _stand_in(
    settings: ProtocolSettings, folder: Path, listener: Listener, notes: list[str]
) -> tuple[Sets, dict[str, Any]]:
    """The stand-in's rows, its two trained models, and one more for each method."""
    count = max(2, settings.authors // 10)
    task = authors_task(settings.seed, authors=settings.authors, forget=count)
    recipe = replace(RECIPE, epochs=settings.epochs or RECIPE.epochs)
    learned = {"full": task.rows, "retrained": (*task.retain, *task.world)}
    homes = {
        name: trained(
            folder / "models", name, rows, seed=settings.seed, recipe=recipe, on_progress=listener.on_progress
        ).folder
        for name, rows in learned.items()
    }
    sets = Sets(*(tuple(task_rows(r)) for r in (task.forget, task.retain, task.world, task.held_out)))
    models: dict[str, Any] = {
        RETRAINED: lambda: load_model(str(homes["retrained"])),
        FULL: lambda: load_model(str(homes["full"])),
    }
    for method in settings.methods:
        models[method] = lambda method=method: _unlearned(method, task, homes["full"], settings.seed, notes)
    return sets, models


def _unlearned(text: str, task: Authors, home: Path, seed: int, notes: list[str]) -> LoadedModel:
    """The full model after a method; as it is, with a note, if the method found no learning rate."""
    method = parse_unlearning(text)
    loaded = load_model(str(home))
    kept = task_rows((*task.retain, *task.world))
    job = make_job(task_rows(task.forget), kept, needs_retain=True)
    try:
        result = run_unlearning(loaded, job, replace(method.options, seed=seed))
    except NumericError as error:
        notes.append(f"{text}: nothing was changed: {error.what}")
        return load_model(str(home))
    notes.append(f"{text}: ended '{result.outcome}' after {result.readings[-1].step if result.readings else 0} steps")
    return result.loaded
