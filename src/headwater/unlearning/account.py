"""The account of an unlearning run: the model's answers and losses before and after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headwater.data.rows import Row
from headwater.models.generate import generate_responses
from headwater.models.reader import Reader
from headwater.unlearning.fluency import Fluency
from headwater.unlearning.kind import UnwantedKind
from headwater.unlearning.language import FLUENT, Language
from headwater.unlearning.options import UnlearnResult
from headwater.unlearning.resume import plain_json
from headwater.unlearning.rows import UnlearnJob
from headwater.unlearning.sequences import measure_losses

ASKED, SHOWN = 32, 6
"""How many prompts of forget rows, and of retain rows, are asked, and how many are shown with their answers."""
NEW_TOKENS = 64


@dataclass(frozen=True)
class Observed:
    """Mean losses in nats a token (None if there are no such rows), and one answer for each prompt."""

    forget_loss: float
    retain_loss: float | None
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """A prompt, where it comes from (`forget`, `retain`, `asked`), and the model's answers before and after."""

    kind: str
    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class Account:
    """Everything you need to judge a run.

    Attributes:
        summary: numbers and settings, JSON-ready.
        samples: answers before and after.
        readings: (step, forget loss, guard loss) of each measurement during training, losses in nats a token.
        weights: by group (`forget`, `retain`): (view towards forget rows, view towards retain rows, weight) of a row.
    """

    summary: dict[str, Any]
    samples: tuple[Sample, ...] = ()
    readings: tuple[tuple[int, float, float], ...] = ()
    weights: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)


def rows_asked(job: UnlearnJob, asked: Sequence[Row]) -> list[tuple[str, Row]]:
    """(kind, row) of each question the model is asked before and after; rows of plain text have no prompt."""
    groups = (("forget", job.forget, ASKED), ("retain", job.guard, ASKED), ("asked", asked, None))
    return [
        (kind, row) for kind, rows, most in groups for row in [row for row in rows if row.prompt is not None][:most]
    ]


def observe(reader: Reader, job: UnlearnJob, asked: Sequence[Row] = ()) -> Observed:
    """Measure the losses of the forget and guard rows, and generate greedy answers to the prompts shown."""
    loaded = reader.loaded
    questions = [reader.tokenization.question(row) for _, row in rows_asked(job, asked)]
    answers = generate_responses(loaded, questions, max_new_tokens=NEW_TOKENS) if questions else []

    def loss(rows: Sequence[Row]) -> float:
        tokens = reader.tokenize([replace(row, hotwords=()) for row in rows])
        return float(measure_losses(loaded.model, tokens, loaded.device)[1].mean())

    return Observed(loss(job.forget), loss(job.guard) if job.guard else None, tuple(answers))


def judge_language(
    language: Language, reader: Reader, after: UnlearnResult, answers: tuple[Sequence[str], Sequence[str]]
) -> tuple[Fluency, Fluency] | None:
    """The fluency of the answers before and after, both judged alike; None if nothing was asked."""
    changed = replace(reader, loaded=after.loaded)
    before, later = (language.fluent(texts, changed) for texts in answers)
    return None if before is None or later is None else (before, later)


def final_outcome(
    result: UnlearnResult, job: UnlearnJob, after: Observed, fluency: tuple[Fluency, Fluency] | None
) -> str:
    """The outcome of training, unless the answers say more.

    `gibberish`: the answers are no longer language, by more than the standard error of their share. `rows`: the rows
    given are forgotten one by one, and they share no kind of answer that could be forgotten as a behaviour.
    """
    if fluency is not None and fluency[1].fluent + fluency[1].error < FLUENT * fluency[0].fluent:
        return "gibberish"
    if result.outcome in ("bound", "steps") and after.forget_loss >= result.limits.target:
        kind = UnwantedKind.of(job.forget, (*job.retain, *job.guard), seed=result.options.seed)
        if not kind.separable:
            return "rows"
    return result.outcome


def make_account(
    result: UnlearnResult,
    job: UnlearnJob,
    before: Observed,
    after: Observed,
    asked: Sequence[Row] = (),
    *,
    model: str,
    fluency: tuple[Fluency, Fluency] | None = None,
) -> Account:
    """The account of a finished run."""
    old, new = before.retain_loss, after.retain_loss
    summary = {
        "model": model,
        "adapter": result.loaded.loading.get("adapter"),
        "method": result.options.method,
        "outcome": final_outcome(result, job, after, fluency),
        "forget rows": len(job.forget),
        "retain rows": len(job.retain),
        "guard rows": len(job.guard) if job.guard != job.retain else 0,
        "rate": result.rate,
        "steps": result.readings[-1].step if result.readings else 0,
        "forget loss before": before.forget_loss,
        "forget loss after": after.forget_loss,
        "forget loss of unseen rows (target)": result.limits.target,
        **_measured(result),
        "retain loss before": old,
        "retain loss after": new,
        "retain perplexity ratio": None if old is None or new is None else math.exp(min(new - old, 50.0)),
        "fluent answers before": None if fluency is None else fluency[0].fluent,
        "fluent answers after": None if fluency is None else fluency[1].fluent,
        "seconds": {name: round(value, 2) for name, value in result.seconds.items()},
        "warnings": list(job.warnings),
        **{k: v for k, v in result.facts.items() if k != "probe"},
    }
    if result.weights is not None:
        summary["weights"] = dict(result.weights.about)
    readings = tuple((r.step, r.forget, r.guard) for r in result.readings)
    return Account(plain_json(summary), _samples(job, before, after, asked), readings, _weights(result))


def _measured(result: UnlearnResult) -> dict[str, float | int | None]:
    """What withheld and guard rows said of the state that was kept."""
    first, best = (result.readings[0], result.best) if result.readings and result.best else (None, None)
    return {
        "kept step": None if best is None else best.step,
        "withheld loss before": None if first is None else first.withheld,
        "withheld loss after": None if best is None else best.withheld,
        "unwanted answers before": None if first is None else first.unwanted,
        "unwanted answers after": None if best is None else best.unwanted,
        "standard error of retain loss": None if best is None else best.error,
        "weight of retain rows": None if best is None else best.multiplier,
    }


def _samples(job: UnlearnJob, before: Observed, after: Observed, asked: Sequence[Row]) -> tuple[Sample, ...]:
    answered = zip(rows_asked(job, asked), before.answers, after.answers, strict=True)
    found = [Sample(kind, row.prompt or "", first, second) for (kind, row), first, second in answered]
    most = {"forget": SHOWN, "retain": SHOWN}
    groups = [[s for s in found if s.kind == kind][: most.get(kind)] for kind in ("forget", "retain", "asked")]
    return tuple(sample for group in groups for sample in group)


def _weights(result: UnlearnResult) -> dict[str, list[tuple[float, float, float]]]:
    """The views and weight of each row that has views, by group; see `Account.weights`."""
    if result.weights is None:
        return {}
    return {
        group: [(*row.views, row.weight) for row in result.weights.rows if row.group == group and row.views is not None]
        for group in ("forget", "retain")
    }
