"""Run an unlearning method: you give rows and a model, and get the model after forgetting, with measurements.

job = make_job(forget, retain, needs_retain=True)
result = run_unlearning(loaded, job, UnlearnOptions(method="rapidun"))
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from headwater.core.fingerprints import digest
from headwater.data.rows import Row
from headwater.models.load import LoadedModel, require_plain
from headwater.models.reader import Reader
from headwater.unlearning import resume as resuming
from headwater.unlearning.adapter import trainable_model, trainable_state
from headwater.unlearning.capabilities import Stroke, UnlearningMethod
from headwater.unlearning.catalog import find_unlearning
from headwater.unlearning.influence import row_weights, trust_in_guard
from headwater.unlearning.objectives import Objective, find_objective, low_loss_weights
from headwater.unlearning.options import UnlearnOptions, UnlearnResult, check_options
from headwater.unlearning.phases import Phases
from headwater.unlearning.probe import probe_rate
from headwater.unlearning.rows import UnlearnJob, with_refusals
from headwater.unlearning.sequences import Composition, measure_losses
from headwater.unlearning.strength import search_strength
from headwater.unlearning.targets import Run, make_watch
from headwater.unlearning.trainer import Material, Schedule
from headwater.unlearning.watch import Watch
from headwater.unlearning.weights import Weights, row_digest

LEAD = 1.5
"""An ascent fades at so many times the target, because withheld rows follow those that train at a distance."""


def run_unlearning(
    model: LoadedModel | Reader,
    job: UnlearnJob,
    options: UnlearnOptions | None = None,
    *,
    unseen: Sequence[Row] = (),
    folder: str | Path | None = None,
    resume: bool = False,
) -> UnlearnResult:
    """Make the model forget the job's forget rows; the model is changed **in place**.

    Args:
        model: the model, or a reader of it, with the unwanted behaviour. For a method that starts from the base: the
            model as it was before it learned the rows.
        job: the rows, as `make_job` returns them.
        options: how to unlearn.
        unseen: rows that the model has not seen; their mean loss is the target. Without them the target is the loss of
            the forget rows' answers behind retain rows' prompts.
        folder: where checkpoints and the run's settings go; needed to save or resume.
        resume: continue from the last checkpoint in `folder`, if there is one.

    Raises:
        UsageError: an unknown method, or options that do not go together.
        DataError: the method needs retain rows and there are none.
        MismatchError: a weights file or an index of other rows or another model, or a resumed run with other inputs.
    """
    options = options or UnlearnOptions()
    method = find_unlearning(options.method)
    reader = model if isinstance(model, Reader) else reader_of(model, options)
    kept = resuming.Kept(identity(reader.loaded, job, options))
    if not method.trains:
        run = Run.of(reader, job, options)
        check_options(method, Objective(method.name, lambda rows: rows.mean), options, job)
        return _at_one_stroke(run, make_watch(run, unseen), method)
    objective = _objective(options)
    check_options(method, objective, options, job)
    run = Run.of(reader, with_refusals(job) if objective.prefers else job, options)
    home = None if folder is None else Path(folder)
    kept = resuming.begin(home, kept.identity, resume=resume)
    return _trained(run, method, objective, unseen=unseen, kept=kept, home=home, resume=resume)


def reader_of(loaded: LoadedModel, options: UnlearnOptions) -> Reader:
    """The reader that turns the run's rows into tokens; a row is read in one piece, so none exceeds the positions."""
    require_plain(loaded, "unlearning")
    reader = Reader.of(loaded, template=options.template, max_tokens=options.max_tokens, targets=options.targets)
    return replace(reader, tokenization=replace(reader.tokenization, max_tokens=reader.context))


def identity(loaded: LoadedModel, job: UnlearnJob, options: UnlearnOptions) -> dict[str, Any]:
    """Everything a run depends on, JSON-ready; a resumed run must have the same identity."""
    groups = {"forget": job.forget, "retain": job.retain, "guard": job.guard, "copies": job.copies}
    rows = {name: digest([[row.id, row_digest(row)] for row in of]) for name, of in groups.items()}
    plain = {k: v for k, v in asdict(options).items() if k not in ("save_every", "checkpointing")}
    for name in ("targets", "harden"):  # runs begun before there was a choice have none
        if plain[name] is None:
            del plain[name]
    return {
        "model": dict(loaded.fingerprint),
        "rows": {**rows, "clean": digest(list(job.clean))},
        "options": resuming.plain_json(plain),
    }


def fading(objective: Objective, given: float | None, target: float) -> Objective:
    """The objective with the ceiling of a run of this target, nats a token, unless one is given or it has none."""
    return replace(objective, ceiling=LEAD * target) if objective.saturates and given is None else objective


def _objective(options: UnlearnOptions) -> Objective:
    found = find_objective(options.method, ceiling=options.ceiling, keep=options.keep, beta=options.beta)
    right = found.clean if options.right is None else options.right
    return replace(found, dynamic=options.dynamic, clean=right)


def _trained(
    run: Run,
    method: UnlearningMethod,
    objective: Objective,
    *,
    unseen: Sequence[Row],
    kept: resuming.Kept,
    home: Path | None,
    resume: bool,
) -> UnlearnResult:
    """Train an adapter or all weights with the objective, from the first step or from the last checkpoint."""
    loaded, options, clock = run.loaded, run.options, dict[str, float]()
    with _timed(clock, "influence"):
        weights, trust = row_weights(run, objective, kept.weights), trust_in_guard(run, objective)
    watch = make_watch(run, unseen, trust, method=method)
    objective = fading(objective, options.ceiling, watch.limits.target)
    material = _material(run, objective, weights)
    model = trainable_model(loaded, options.lora, seed=options.seed)
    start, facts = trainable_state(model), dict[str, Any]()
    constrained = method.constrained and not all(example.forget for example in run.examples)
    schedule = _schedule(options, objective, constrained=constrained, rate=options.rate or kept.rate or 0.0)
    phases = Phases.of(run, objective, material, watch, weights, method=method)
    searching = None if method.stroke is None else Phases.withholding(run, watch, None)
    with _timed(clock, "probe"):
        if not schedule.rate:
            probed = probe_rate(model, objective, phases.first, watch, schedule)
            schedule, facts = replace(schedule, rate=probed.rate), {"probe": asdict(probed)}
    resuming.note(home, kept, rate=schedule.rate, weights=weights)
    with _timed(clock, "training"):
        done = phases.train(model, schedule, None if home is None else home / resuming.CHECKPOINTS, resume=resume)
        if method.stroke is not None and searching is not None:
            facts |= _searched(model, method.stroke, start, run, searching)
            done = replace(done, watch=searching)
    model.eval().requires_grad_(False)
    return UnlearnResult(
        loaded=replace(loaded, model=model),
        options=options,
        outcome=done.watch.outcome,
        limits=watch.limits,
        readings=tuple(done.watch.readings),
        best=done.watch.best,
        rate=schedule.rate,
        weights=weights,
        log=tuple(done.log),
        seconds=clock,
        facts={**facts, **done.facts},
    )


def _at_one_stroke(run: Run, watch: Watch, method: UnlearningMethod) -> UnlearnResult:
    """Change the weights at one stroke, which needs neither training nor an adapter."""
    loaded, options, clock = run.loaded, run.options, dict[str, float]()
    assert method.stroke is not None
    with _timed(clock, "training"):
        model = trainable_model(loaded, None, seed=options.seed)
        watch = Phases.withholding(run, watch, None)
        facts = _searched(model, method.stroke, trainable_state(model), run, watch)
    model.requires_grad_(False)
    return UnlearnResult(
        loaded=loaded,
        options=options,
        outcome=watch.outcome,
        limits=watch.limits,
        readings=tuple(watch.readings),
        best=watch.best,
        seconds=clock,
        facts=facts,
    )


def _searched(model: Any, stroke: Stroke, start: dict[str, Any], run: Run, watch: Watch) -> dict[str, Any]:
    apply = stroke.prepare(model, start, run)
    found = search_strength(model, apply, stroke.strengths, watch, start=start)
    return {"strength": found.value}


def _material(run: Run, objective: Objective, weights: Weights | None) -> Material:
    """Measure what the objective reads; called while the model is still as it was, without an adapter."""
    count, loaded = len(run.examples), run.loaded
    reference, weight, preferred = torch.zeros(count), torch.ones(count), torch.zeros(count)
    if objective.forget_share and run.forget:
        total, mean = measure_losses(loaded.model, run.forget, loaded.device)
        reference[: len(total)] = total
        if objective.weights == "loss":
            weight[: len(mean)] = low_loss_weights(mean, tau=objective.tau)
    right = [(e.place, e.clean) for e in run.examples if e.clean is not None]
    if objective.prefers and right:
        preferred[[i for i, _ in right]] = measure_losses(loaded.model, [t for _, t in right], loaded.device)[0]
    if weights is not None:
        weight[: len(weights.rows)] = torch.tensor([row.weight for row in weights.rows], dtype=torch.float32)
    return Material(run.examples, weight, reference, preferred if objective.prefers else None)


def _schedule(options: UnlearnOptions, objective: Objective, *, constrained: bool, rate: float) -> Schedule:
    """The schedule of a run.

    If neither the objective nor a bound reads retain rows, steps hold the forget rows alone and are shorter. If it does
    not read forget rows, retain rows take their places.
    """
    forget = options.composition.forget if objective.forget_share else 0
    held = objective.retain_share or (constrained and options.guard is not None and options.follow)
    retain = options.composition.retain if held else 0
    composition = Composition(forget, retain) if forget else Composition(0, options.composition.rows)
    return Schedule(
        rate=rate,
        steps=options.steps,
        composition=composition,
        seed=options.seed,
        harden=options.harden,
        checkpointing=options.checkpointing,
        save_every=options.save_every,
    )


@contextmanager
def _timed(clock: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    clock[name] = time.perf_counter() - started
