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

from headwater.core.errors import DataError
from headwater.core.fingerprints import digest
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.methods.bound import Bound
from headwater.methods.catalog import find_method
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader
from headwater.unlearning import resume as resuming
from headwater.unlearning.adapter import trainable_model
from headwater.unlearning.fisher import search_dampening
from headwater.unlearning.objectives import METHODS, Objective, find_objective, low_loss_weights, one_of
from headwater.unlearning.options import UnlearnOptions, UnlearnResult, check_options
from headwater.unlearning.probe import probe_rate
from headwater.unlearning.rows import UnlearnJob
from headwater.unlearning.sequences import Composition, measure_losses
from headwater.unlearning.targets import Run, make_watch
from headwater.unlearning.trainer import Material, Schedule, train
from headwater.unlearning.views import measure_influence
from headwater.unlearning.watch import Watch
from headwater.unlearning.weights import Weights, influence_weights, load_weights, row_digest, uniform_weights


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
        model: the model, or a reader of it, with the unwanted behaviour. For `retrain`: the base model, as it was
            before it learned the rows.
        job: the rows, as `make_job` returns them.
        options: how to unlearn.
        unseen: rows that the model has not seen; their mean loss is the target. Without them the target is the loss of
            the forget rows' answers behind retain rows' prompts.
        folder: where checkpoints and the run's settings go; needed to save or resume.
        resume: continue from the last checkpoint in `folder`, if there is one.

    Raises:
        UsageError: an unknown method, or options that do not go together.
        DataError: the method needs retain rows and there are none.
        MismatchError: a weights file of other rows, or a resumed run with other inputs.
    """
    options = options or UnlearnOptions()
    one_of("method", options.method, METHODS)
    run = Run.of(model if isinstance(model, Reader) else reader_of(model, options), job, options)
    if options.method == "fisher":
        return _dampened(run, make_watch(run, unseen))
    found = find_objective(options.method, ceiling=options.ceiling, keep=options.keep, beta=options.beta)
    objective = replace(found, dynamic=options.dynamic)
    check_options(objective, options, job)
    home = None if folder is None else Path(folder)
    kept = resuming.begin(home, identity(run.loaded, job, options), resume=resume)
    return _trained(run, objective, unseen, kept, home, resume=resume)


def reader_of(loaded: LoadedModel, options: UnlearnOptions) -> Reader:
    """The reader that turns the run's rows into tokens; a row is read in one piece, so none exceeds the positions."""
    reader = Reader.of(loaded, template=options.template, max_tokens=options.max_tokens, targets=options.targets)
    return replace(reader, tokenization=replace(reader.tokenization, max_tokens=reader.context))


def identity(loaded: LoadedModel, job: UnlearnJob, options: UnlearnOptions) -> dict[str, Any]:
    """Everything a run depends on, JSON-ready; a resumed run must have the same identity."""
    groups = {"forget": job.forget, "retain": job.retain, "guard": job.guard}
    rows = {name: digest([[row.id, row_digest(row)] for row in of]) for name, of in groups.items()}
    plain = {k: v for k, v in asdict(options).items() if k not in ("save_every", "checkpointing")}
    if options.targets is None:  # runs begun before there was a choice have none
        del plain["targets"]
    return {
        "model": dict(loaded.fingerprint),
        "rows": {**rows, "clean": digest(list(job.clean))},
        "options": resuming.plain_json(plain),
    }


def _trained(
    run: Run, objective: Objective, unseen: Sequence[Row], kept: resuming.Kept, home: Path | None, *, resume: bool
) -> UnlearnResult:
    """Train an adapter or all weights with the objective, from the first step or from the last checkpoint."""
    loaded, options, clock = run.loaded, run.options, dict[str, float]()
    with _timed(clock, "influence"):
        weights, trust = _weights(run, objective, kept), _trust(run, objective)
    watch = make_watch(run, unseen, trust)
    material = _material(run, objective, weights)
    model = trainable_model(loaded, options.lora, seed=options.seed)
    schedule, facts = _schedule(options, objective, rate=options.rate or kept.rate or 0.0), dict[str, Any]()
    with _timed(clock, "probe"):
        if not schedule.rate:
            probed = probe_rate(model, objective, material, watch, schedule)
            schedule, facts = replace(schedule, rate=probed.rate), {"probe": asdict(probed)}
    resuming.note(home, kept, rate=schedule.rate, weights=weights)
    if objective.dynamic:
        places = [tokens.row.ordinal for tokens in watch.forget]
        watch.seen = lambda losses: material.reweigh(objective, places, losses)
    checkpoints = None if home is None else home / resuming.CHECKPOINTS
    with _timed(clock, "training"):
        log = train(model, objective, material, watch, schedule, folder=checkpoints, resume=resume)
    model.eval().requires_grad_(False)
    return UnlearnResult(
        loaded=replace(loaded, model=model),
        options=options,
        outcome=watch.outcome,
        limits=watch.limits,
        readings=tuple(watch.readings),
        rate=schedule.rate,
        weights=weights,
        log=tuple(log),
        seconds=clock,
        facts=facts,
    )


def _dampened(run: Run, watch: Watch) -> UnlearnResult:
    """Dampen the weights (`fisher`), which needs neither training nor an adapter."""
    loaded, options, clock = run.loaded, run.options, dict[str, float]()
    if not run.retain:
        raise DataError("there are no rows to retain", where="method 'fisher'", remedy="give --retain")
    with _timed(clock, "training"):
        model = trainable_model(loaded, None, seed=options.seed)
        found = search_dampening(model, run.forget, run.retain, watch.guard, limits=watch.limits, device=loaded.device)
    model.requires_grad_(False)
    return UnlearnResult(
        loaded=loaded,
        options=options,
        outcome=found.outcome,
        limits=watch.limits,
        readings=found.readings,
        seconds=clock,
        facts={"alpha": found.alpha, "weights changed": found.changed},
    )


def _weights(run: Run, objective: Objective, kept: resuming.Kept) -> Weights | None:
    """The rows' weights: from the interrupted run, from a file, or new; None if the method has none."""
    job, options = run.job, run.options
    if objective.weights != "influence":
        return None
    if kept.weights is not None:
        return load_weights(kept.weights, job.forget, job.retain)
    if options.weights == "uniform":
        return uniform_weights(job.forget, job.retain)
    if options.weights not in ("influence", "shuffled"):
        return load_weights(options.weights, job.forget, job.retain)
    made = _from_influence(run, run.retain)
    return made.shuffled(options.seed) if options.weights == "shuffled" else made


def _from_influence(run: Run, retain: Sequence[TokenRow]) -> Weights:
    """Make weights of the forget rows and of these retain rows from their influence on each other."""
    job, options = run.job, run.options
    bound = Bound.of(find_method(options.influence, options.settings), run.reader)
    influence = measure_influence(bound, run.forget, retain, cosine=not options.compat)
    return influence_weights(influence, job.forget, [row.row for row in retain], compat=options.compat)


def _trust(run: Run, objective: Objective) -> Sequence[float] | None:
    """How much each guard row counts: its weight if it were a retain row; None unless influence makes the weights."""
    if objective.weights != "influence" or run.options.weights != "influence" or not run.job.guard:
        return None
    return _from_influence(run, run.guard).of("retain")


def _material(run: Run, objective: Objective, weights: Weights | None) -> Material:
    """Measure what the objective reads; called while the model is still as it was, without an adapter."""
    count, loaded = len(run.examples), run.loaded
    reference, weight = torch.zeros(count), torch.ones(count)
    if objective.forget_share and run.forget:
        total, mean = measure_losses(loaded.model, run.forget, loaded.device)
        reference[: len(total)] = total
        if objective.weights == "loss":
            weight[: len(mean)] = low_loss_weights(mean, tau=objective.tau)
    if weights is not None:
        weight = torch.tensor([row.weight for row in weights.rows], dtype=torch.float32)
    return Material(run.examples, weight, reference)


def _schedule(options: UnlearnOptions, objective: Objective, *, rate: float) -> Schedule:
    """The schedule of a run.

    If the objective does not read retain rows, steps hold the forget rows alone and are shorter. If it does not read
    forget rows, retain rows take their places.
    """
    forget = options.composition.forget if objective.forget_share else 0
    retain = options.composition.retain if objective.retain_share else 0
    composition = Composition(forget, retain) if forget else Composition(0, options.composition.rows)
    return Schedule(
        rate=rate,
        steps=options.steps,
        composition=composition,
        seed=options.seed,
        checkpointing=options.checkpointing,
        save_every=options.save_every,
    )


@contextmanager
def _timed(clock: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    clock[name] = time.perf_counter() - started
