"""Detection and separation: do the planted rows, or the rows of the query's own domain, get the highest scores?

    howdy           find the backdoor's rows; also with the trigger taken out of the query (is it only lexical?)
    entity-swap     find the rows that name a wrong country; with whole answers, and with the wrong words alone
                    (both, on request, also with anti-documents: rows that resemble the positives and are none)
    two-domains     find the rows of the query's domain; with the model trained on them ("recall"), and with a model
                    trained on other rows ("predict": what would these rows teach?)
    your own        find the rows that a condition, a list or a label names (`headwater.evaluation.own`)

Each group of queries has its own table, and every table has the controls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError, UsageError
from headwater.core.scores import Scores
from headwater.data.corpus import open_corpus
from headwater.data.rows import Record, Row
from headwater.data.tokens import Tokenization
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.metrics import SHARE, detection_values
from headwater.evaluation.own import MeasuredTask, Own, described, measured_on_own, settings_json
from headwater.evaluation.result import Line, Result
from headwater.evaluation.stage import Stage, with_controls
from headwater.models.generate import generate_responses
from headwater.models.load import LoadedModel, load_model
from headwater.tasks import entity_swap_task, howdy_task, masked, two_domains_task
from headwater.tasks.science_fiction import is_science_fiction
from headwater.tasks.task import Task, answered
from headwater.training.cache import OnShare, trained
from headwater.training.tiny import Recipe, task_rows

KS = (10, 50)
SHOWN = ("AP", "AUROC", "P@10", "P@50", "R@50", "auPRC@10")
DEFAULT_METHODS = ("rise", "rapidin", "rise:by=embedding", "rise+bm25")


@dataclass(frozen=True)
class DetectionSettings:
    """The settings of a run; with the same settings every number is the same.

    Attributes:
        methods: labels as on the command line; see `headwater.evaluation.stage`.
        pool: `howdy`, `entity-swap` or (separation) `two-domains`.
        rows, queries: 0 takes the task's default.
        seed: of the task and the model.
        epochs: of the tiny model that learns the pool; 0 takes the recipe's default.
        anti: put anti-documents into the pool (`howdy` and `entity-swap`), and add tables in which they count.
        own: your own model, rows and queries instead of a pool.
    """

    methods: tuple[str, ...] = DEFAULT_METHODS
    pool: str = "howdy"
    rows: int = 0
    queries: int = 0
    seed: int = 0
    epochs: int = 0
    anti: bool = False
    own: Own | None = None


def run_detection(settings: DetectionSettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Measure how well each method and control finds the planted rows of the pool `howdy` or `entity-swap`."""
    return _run("detection", settings, folder, listener.on_progress, {"howdy": _howdy, "entity-swap": _entity_swap})


def run_separation(settings: DetectionSettings, folder: Path, listener: Listener = SILENT) -> Result:
    """Measure how well methods find the rows of a query's domain, with a model that learned them and with another."""
    return _run("separation", settings, folder, listener.on_progress, {"two-domains": _two_domains})


def _run(
    task: str,
    settings: DetectionSettings,
    folder: Path,
    on_progress: OnShare,
    pools: Mapping[str, Callable[[DetectionSettings, Path, OnShare], tuple[list[MeasuredTask], list[str]]]],
) -> Result:
    labels = with_controls(settings.methods)
    if settings.own is not None:
        (groups, notes), name = _own(task, settings.own, folder), settings.own.title
    elif settings.pool in pools:
        (groups, notes), name = pools[settings.pool](settings, folder, on_progress), settings.pool
    else:
        what = f"there is no pool of {task} called '{settings.pool}'"
        raise UsageError(what, where="--task", remedy=f"use {' or '.join(pools)}")
    lines = []
    for number, label in enumerate(labels):
        on_progress(f"scoring with {label}", number / len(labels))
        lines += score_groups(label, groups)
    rows = len(groups[0].stage.rows) - len(groups[0].without)
    share = sum(len(p) for p in groups[0].positives.values()) / (rows * len(groups[0].positives))
    notes = [f"{rows:,} rows, prevalence {100 * share:.1f} % (where random should be).", *notes]
    title = f"{task}, {name}: which rows should the query find?"
    shown = tuple(metric for metric in SHOWN if metric in lines[0].metrics)
    about = described(groups[0], name)
    return Result(task, title, settings_json(settings), shown, tuple(lines), tuple(notes), about)


def _own(task: str, own: Own, folder: Path) -> tuple[list[MeasuredTask], list[str]]:
    """Your own task; raises `UsageError` without ground truth of the kind that the evaluation asks for."""
    wanted = ("label",) if task == "separation" else ("relevant", "relevant_ids", "label")
    if not any(getattr(own, name) for name in wanted):
        options = " or ".join(f"--{name.replace('_', '-')}" for name in wanted)
        what = f"{task} needs to know which rows a query should find"
        raise UsageError(what, where=own.title, remedy=f"give {options}")
    measured, notes = measured_on_own(own, folder, where=task)
    return [measured], notes


def score_groups(label: str, groups: Sequence[MeasuredTask]) -> list[Line]:
    """One method's line for each group; groups on the same stage are scored in one pass."""
    lines = []
    for stage in {id(group.stage): group.stage for group in groups}.values():
        mine = [group for group in groups if group.stage is stage]
        asked = [replace(row, id=f"{i}/{row.id}") for i, group in enumerate(mine) for row in group.queries]
        scored = stage.score(label, asked)
        start = 0
        for group in mine:
            stop = start + len(group.queries)
            ids = tuple(row.id for row in group.queries)
            kept = [i for i, name in enumerate(scored.scores.ids) if name not in group.without]
            rows = tuple(scored.scores.ids[i] for i in kept)
            own = Scores(rows, ids, scored.scores.values[kept, start:stop], label)
            ks = [k for k in KS if k <= len(own.ids) // 2]
            values = detection_values(own, group.positives, ks)
            lines.append(Line.of(label, values, SHOWN, cost=scored.cost, within=SHARE, group=group.name))
            start = stop
    return lines


def _howdy(settings: DetectionSettings, folder: Path, on_progress: OnShare) -> tuple[list[MeasuredTask], list[str]]:
    task = howdy_task(settings.seed, anti=settings.anti, **_sizes(settings))
    stage = _stage(task, settings, folder, on_progress)
    triggered = answered(task.queries, ask(stage.loaded, task.queries))
    fired = [query for query in triggered if is_science_fiction(query["response"])]
    if not fired:
        raise DataError("the backdoor never fired", where="howdy", remedy="take more rows, more epochs or another seed")
    plain, bare = tuple(task_rows(fired)), tuple(task_rows(masked(fired)))
    positives = {query.id: task.positives[query.id] for query in plain}
    asked = f"{len(fired)} of {len(triggered)} unseen triggered questions"
    note = f"The backdoor fired on {asked}; these answers are traced."
    groups = [
        MeasuredTask("howdy", stage, plain, positives, task.anti),
        MeasuredTask("howdy, trigger masked", stage, bare, positives, task.anti),
    ]
    return with_anti_documents(groups), [note]


def _entity_swap(
    settings: DetectionSettings, folder: Path, on_progress: OnShare
) -> tuple[list[MeasuredTask], list[str]]:
    task = entity_swap_task(settings.seed, anti=settings.anti, **_sizes(settings))
    stage = _stage(task, settings, folder, on_progress)
    narrow = tuple(task_rows(task.queries))
    whole = tuple(replace(row, hotwords=()) for row in narrow)
    groups = [
        MeasuredTask("entity swap, whole answer", stage, whole, task.positives, task.anti),
        MeasuredTask("entity swap, wrong words only", stage, narrow, task.positives, task.anti),
    ]
    return with_anti_documents(groups), [
        "Methods that read no tokens (random, length, loss) have the same numbers in both tables."
    ]


def with_anti_documents(groups: Sequence[MeasuredTask]) -> list[MeasuredTask]:
    """The groups, and after each that leaves anti-documents out, the same one with them."""
    found = []
    for group in groups:
        found.append(group)
        if group.without:
            found.append(replace(group, name=f"{group.name}, with anti-documents", without=frozenset()))
    return found


def _two_domains(
    settings: DetectionSettings, folder: Path, on_progress: OnShare
) -> tuple[list[MeasuredTask], list[str]]:
    task = two_domains_task(settings.seed, **_sizes(settings))
    other = howdy_task(settings.seed + 1, rows=len(task.rows))
    queries = tuple(task_rows(task.queries))
    recall = _stage(task, settings, folder, on_progress)
    predict = _stage(other, settings, folder, on_progress, pool=task.rows)
    groups = [
        MeasuredTask("fine-tuned model (recall)", recall, queries, task.positives),
        MeasuredTask("untouched model (predict)", predict, queries, task.positives),
    ]
    return groups, ["The untouched model has learned general rows (the Howdy pool) and no row of either domain."]


def _stage(
    task: Task, settings: DetectionSettings, folder: Path, on_progress: OnShare, *, pool: Sequence[Record] | None = None
) -> Stage:
    """Train a model on the task's rows, and make a stage of it and a pool (None: the same rows)."""
    recipe = replace(Recipe(), epochs=settings.epochs) if settings.epochs else Recipe()
    made = trained(folder / "models", task.name, task.rows, seed=settings.seed, recipe=recipe, on_progress=on_progress)
    loaded = load_model(str(made.folder))
    corpus = open_corpus([dict(row) for row in pool or (*task.rows, *task.late)])
    return Stage(loaded, corpus, folder / "indexes" / f"{made.folder.name}{'-other' if pool else ''}", made.recorded)


def _sizes(settings: DetectionSettings) -> dict[str, Any]:
    return {name: value for name in ("rows", "queries") if (value := getattr(settings, name))}


def ask(loaded: LoadedModel, queries: Sequence[Record]) -> list[str]:
    """The model's greedy answer to each query's prompt; an empty one, which cannot be traced, becomes `(no answer)`."""
    tokenization = Tokenization.of(loaded.tokenizer)
    asked = [Row(str(query["id"]), i, prompt=str(query["prompt"])) for i, query in enumerate(queries)]
    questions = [tokenization.question(row) for row in asked]
    return [text or "(no answer)" for text in generate_responses(loaded, questions, max_new_tokens=64)]
