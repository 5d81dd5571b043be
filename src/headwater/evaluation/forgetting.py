"""Forgetting: does a model lose a backdoor and keep the rest, and what does it cost as a share of retraining?

Every method unlearns the same forty known rows of the contaminated pool. The controls are no unlearning, uniform and
shuffled weights, and a model retrained without any poison. All methods get the same bound, the same probe for the step
size and the same right answers to the forget rows' prompts; `rapidun:clean=no` is RapidUn without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headwater.core.errors import NumericError, UsageError, unknown_name
from headwater.data.corpus import open_corpus
from headwater.evaluation.attacked_task import ATTACKED, TaskUnderAttack
from headwater.evaluation.forgetting_metrics import ModelMeasures, measure, metrics
from headwater.evaluation.forgetting_models import Base, TimeTaken, make_pair, timed
from headwater.evaluation.lasting import strongest
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.result import Line, Result
from headwater.methods.method import parse_option
from headwater.models.load import LoadedModel, load_model
from headwater.tasks.contaminated import Contaminated, Sizes, contaminate, contaminated_task
from headwater.training.cache import OnShare
from headwater.training.tiny import task_rows
from headwater.unlearning.catalog import METHODS
from headwater.unlearning.options import UnlearnOptions
from headwater.unlearning.rows import make_job
from headwater.unlearning.run import run_unlearning

DEFAULT_METHODS = (
    "rapidun",
    "rapidun:weights=uniform",
    "rapidun:weights=shuffled",
    "rapidun:clean=no",
    "ga",
    "graddiff",
    "npo",
    "simnpo",
    "loreun",
    "fisher",
)
SHOWN = (
    "right under triggers",
    "ASR seen",
    "ASR unseen",
    "clean perplexity ratio",
    "clean F1",
    "forget loss",
    "KS p",
    "extraction",
    "seconds",
    "share of retraining",
    "share of its processor time",
)
SHOWN_ATTACKED = ("ASR seen", "ASR unseen", "clean perplexity ratio")
"""What a table of attacks shows before them."""
BEFORE, RETRAINED = "no unlearning", "retrained without poison"


@dataclass(frozen=True)
class ForgettingSettings:
    """The settings of a run.

    Attributes:
        methods: `name` or `name:option=value,...`, with options of `headwater.UnlearnOptions` and `clean=no`.
        rows, queries: of the contaminated pool; `queries` seen, unseen and clean questions each.
        seeds: of the tasks and models; all numbers are means over them.
        sizes: further pool sizes at which the first method is run with the first seed, to measure its cost.
        mistaken: share of the known rows that are really of the other kind.
        model, data: a base model to fine-tune, and clean rows to plant the triggers in; empty: the built-in ones.
        epochs, rate: of the trainings.
        attacks: attack every model too (`headwater.unlearning.attacks`), and show that table instead.
    """

    methods: tuple[str, ...] = DEFAULT_METHODS
    rows: int = 8000
    queries: int = 120
    seeds: tuple[int, ...] = (0, 1, 2)
    sizes: tuple[int, ...] = ()
    mistaken: float = 0.0
    model: str = ""
    data: str = ""
    epochs: int = 5
    rate: float = 2e-4
    attacks: bool = False


@dataclass(frozen=True)
class LabelledUnlearning:
    """A method with its options; `clean` says whether it gets the right answers."""

    label: str
    options: UnlearnOptions
    clean: bool


def run_forgetting(settings: ForgettingSettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Measure every method and control over all seeds; models are kept in `folder` and used again."""
    methods = [parse_unlearning(text) for text in settings.methods]
    lines, notes = _lines(settings, settings.rows, methods, folder, listener.on_progress)
    for size in settings.sizes:
        more, _ = _lines(replace(settings, seeds=settings.seeds[:1]), size, methods[:1], folder, listener.on_progress)
        lines += more
    title = "Forgetting a backdoor: attack success, utility and cost"
    shown = (*SHOWN_ATTACKED, *ATTACKED) if settings.attacks else SHOWN
    if settings.attacks:
        numbers = {line.method: {name: found.value for name, found in line.metrics.items()} for line in lines}
        notes += [f"{label}: {strongest(found)}" for label, found in numbers.items()]
    return Result("forgetting", title, asdict(settings), shown, tuple(lines), (*_NOTES, *notes))


_NOTES = (
    "Means over seeds with Student's 95 % interval over seeds.",
    "Seconds count influence, probe and training; share of retraining is of the seconds that training without poison "
    "took on the same machine.",
    "KS p compares the forget rows' losses with the retrained model's; above 0.05 the test sees no difference.",
    "Every method that can use them gets the right answers to the triggered prompts, with a factor of 0.5.",
)


def parse_unlearning(text: str) -> LabelledUnlearning:
    """Read a method with options, such as `rapidun:weights=uniform,clean=no`.

    Raises:
        UsageError: an unknown method or option, or a value of another type.
    """
    name, _, rest = text.partition(":")
    known = {m.name for m in METHODS.values() if not m.from_base}
    if name not in known:
        raise unknown_name("method", name, known)
    given = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    clean = parse_option(given.pop("clean", "yes"), like=True, where=f"{name}:clean")
    fields = {f.name: getattr(UnlearnOptions(), f.name) for f in dataclasses.fields(UnlearnOptions)}
    settings: dict[str, Any] = {}
    for option, value in given.items():
        if option not in fields or option in ("method", "settings", "composition", "lora"):
            raise unknown_name("option", option, fields, where=name)
        like = 1.0 if fields[option] is None else fields[option]
        settings[option] = parse_option(value, like=like, where=f"{name}:{option}")
    return LabelledUnlearning(text, UnlearnOptions(method=name, **settings), clean)


def _lines(
    settings: ForgettingSettings, size: int, methods: Sequence[LabelledUnlearning], folder: Path, on_progress: OnShare
) -> tuple[list[Line], list[str]]:
    """The lines of one table, with each method and the two controls at one pool size; and notes."""
    found: dict[str, list[dict[str, float]]] = {}
    notes: list[str] = []
    for number, seed in enumerate(settings.seeds):
        task = make_task(settings, size, seed)
        measured = _one_seed(settings, task, methods, folder=folder, seed=seed, on_progress=on_progress)
        for label, numbers, note in measured:
            found.setdefault(label, []).append(numbers)
            if note:
                notes.append(f"{label}, {size:,} rows, seed {seed}: {note}.")
        on_progress(f"seed {seed} done", (number + 1) / len(settings.seeds))
    group = f"{size:,} rows"
    lines = [
        Line.of(label, {n: [r[n] for r in rows] for n in rows[0]}, tuple(rows[0]), group=group)
        for label, rows in found.items()
    ]
    return lines, notes


def make_task(settings: ForgettingSettings, size: int, seed: int) -> Contaminated:
    """The task at this size and seed, made from built-in rows or from the given data."""
    sizes = Sizes(rows=size, queries=settings.queries, mistaken=settings.mistaken)
    if not settings.data:
        return contaminated_task(seed, sizes)
    corpus = open_corpus(settings.data, limit=size + 2 * settings.queries)
    rows = [{"prompt": row.prompt, "response": row.response} for row in corpus if row.prompt and row.response]
    return contaminate(rows, seed, sizes)


def _one_seed(
    settings: ForgettingSettings,
    task: Contaminated,
    methods: Sequence[LabelledUnlearning],
    *,
    folder: Path,
    seed: int,
    on_progress: OnShare,
) -> list[tuple[str, dict[str, float], str]]:
    base = Base(settings.model, settings.epochs, settings.rate)
    pair = make_pair(task, base, folder, seed=seed, on_progress=on_progress)
    look = _measurer(settings, task, pair.contaminated, seed)
    before = look(load_model(str(pair.contaminated)))
    retrained = look(load_model(str(pair.retrained)))

    def numbers(measured: ModelMeasures, cost: TimeTaken) -> dict[str, float]:
        return metrics(measured, before, retrained, cost=cost, retraining=pair.retraining)

    rows = [(BEFORE, numbers(before, TimeTaken(0.0, 0.0)), ""), (RETRAINED, numbers(retrained, pair.retraining), "")]
    for place, method in enumerate(methods):
        on_progress(f"seed {seed}: {method.label}", place / len(methods))
        measured, cost, note = _unlearned(method, task, pair.contaminated, seed, look)
        rows.append((method.label, numbers(measured or before, cost), note))
    return rows


Measurer = Callable[[LoadedModel], ModelMeasures]


def _measurer(settings: ForgettingSettings, task: Contaminated, contaminated: Path, seed: int) -> Measurer:
    """Measures a model of the task; with attacks, if the settings ask for them."""
    if not settings.attacks:
        return lambda loaded: measure(loaded, task)
    attacked = TaskUnderAttack.of(task, load_model(str(contaminated)), seed)
    return lambda loaded: replace(measure(loaded, task), attacked=attacked(loaded))


def _unlearned(
    method: LabelledUnlearning, task: Contaminated, model: Path, seed: int, look: Measurer
) -> tuple[ModelMeasures | None, TimeTaken, str]:
    """Unlearn, and return the measures of the new model (None if it did not change), the cost, and a note."""
    forget = task_rows(task.forget)
    if not method.clean:
        forget = [replace(row, metadata={}) for row in forget]
    job = make_job(forget, task_rows(task.retain), needs_retain=True)
    loaded, result, note = load_model(str(model)), None, ""
    with timed() as cost:
        try:
            result = run_unlearning(loaded, job, replace(method.options, seed=seed))
        except NumericError as error:  # the probe found no learning rate, so the model is as it was
            note = f"nothing was changed: {error.what}"
    if result is not None and result.outcome != "forgotten":
        note = f"ended '{result.outcome}' after {result.readings[-1].step} steps"
    return None if result is None else look(result.loaded), cost[0], note


def tradeoff_points(result: Result, group: str) -> Mapping[str, tuple[float, float]]:
    """(clean perplexity ratio, mean attack success) of each line of a group, for the trade-off plot."""
    lines = [line for line in result.lines if line.group == group]
    if not lines:
        raise UsageError(f"there is no table '{group}'", where=result.task)
    numbers = {line.method: {name: found.value for name, found in line.metrics.items()} for line in lines}
    return {
        method: (found["clean perplexity ratio"], (found["ASR seen"] + found["ASR unseen"]) / 2)
        for method, found in numbers.items()
    }
