"""The account of an unlearning run: the model's answers and losses before and after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headwater.data.rows import Row
from headwater.models.generate import generate_responses
from headwater.models.reader import Reader
from headwater.unlearning.options import UnlearnResult
from headwater.unlearning.resume import plain_json
from headwater.unlearning.rows import UnlearnJob
from headwater.unlearning.sequences import measure_losses

SHOWN = 6
"""How many prompts of forget rows, and of retain rows, the account shows with their answers."""
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
    groups = (("forget", job.forget, SHOWN), ("retain", job.guard, SHOWN), ("asked", asked, None))
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


def make_account(
    result: UnlearnResult, job: UnlearnJob, before: Observed, after: Observed, asked: Sequence[Row] = (), *, model: str
) -> Account:
    """The account of a finished run."""
    facts = {k: v for k, v in result.facts.items() if k != "probe"}
    old, new = before.retain_loss, after.retain_loss
    summary = {
        "model": model,
        "adapter": result.loaded.loading.get("adapter"),
        "method": result.options.method,
        "outcome": result.outcome,
        "forget rows": len(job.forget),
        "retain rows": len(job.retain),
        "guard rows": len(job.guard) if job.guard != job.retain else 0,
        "learning rate": result.rate,
        "steps": result.readings[-1].step if result.readings else 0,
        "forget loss before": before.forget_loss,
        "forget loss after": after.forget_loss,
        "forget loss of unseen rows (target)": result.limits.target,
        "retain loss before": old,
        "retain loss after": new,
        "retain perplexity ratio": None if old is None or new is None else math.exp(min(new - old, 50.0)),
        "seconds": {name: round(value, 2) for name, value in result.seconds.items()},
        "warnings": list(job.warnings),
        **facts,
    }
    if result.weights is not None:
        summary["weights"] = dict(result.weights.about)
    answered = zip(rows_asked(job, asked), before.answers, after.answers, strict=True)
    samples = tuple(Sample(kind, row.prompt or "", first, second) for (kind, row), first, second in answered)
    readings = tuple((r.step, r.forget, r.guard) for r in result.readings)
    return Account(plain_json(summary), samples, readings, _weights(result))


def _weights(result: UnlearnResult) -> dict[str, list[tuple[float, float, float]]]:
    """The views and weight of each row that has views, by group; see `Account.weights`."""
    if result.weights is None:
        return {}
    return {
        group: [(*row.views, row.weight) for row in result.weights.rows if row.group == group and row.views is not None]
        for group in ("forget", "retain")
    }
