"""The account of an unlearning run: what the model said and lost before, and what it says and loses after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.models.generate import generate_responses
from headwater.models.reader import Reader
from headwater.unlearning.options import UnlearnResult
from headwater.unlearning.resume import plain_json
from headwater.unlearning.rows import UnlearnJob
from headwater.unlearning.sequences import measure_losses

SHOWN = 6
"""Prompts of each kind whose answers are shown."""
NEW_TOKENS = 64


@dataclass(frozen=True)
class Observed:
    """One look at a model: mean losses in nats a token (None without such rows), and answers by prompt."""

    forget_loss: float
    retain_loss: float | None
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """A prompt, where it is from (`forget`, `retain`, `asked`), and what the model said before and after."""

    kind: str
    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class Account:
    """Everything a reader needs to judge a run; `summary` is JSON-ready."""

    summary: dict[str, Any]
    samples: tuple[Sample, ...] = ()
    readings: tuple[tuple[int, float, float], ...] = ()
    weights: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)


def prompts_shown(job: UnlearnJob, asked: Sequence[Row]) -> list[tuple[str, str]]:
    """(kind, prompt) of what the model is asked before and after; rows of plain text are not asked."""
    groups = (("forget", job.forget), ("retain", job.guard), ("asked", asked))
    limits = {"asked": len(asked)}
    return [
        (kind, row.prompt)
        for kind, rows in groups
        for row in [r for r in rows if r.prompt is not None][: limits.get(kind, SHOWN)]
        if row.prompt is not None
    ]


def observe(reader: Reader, job: UnlearnJob, asked: Sequence[Row] = ()) -> Observed:
    """Losses on the forget and guard rows, and greedy answers to the prompts shown."""
    tokenization, loaded = reader.tokenization, reader.loaded
    prompts = [tokenization.encode_prompt(prompt) for _, prompt in prompts_shown(job, asked)]
    answers = generate_responses(loaded, prompts, max_new_tokens=NEW_TOKENS) if prompts else []
    losses = [
        float(measure_losses(loaded.model, _tokens(reader, rows), loaded.device)[1].mean()) if rows else None
        for rows in (job.forget, job.guard)
    ]
    return Observed(losses[0] or 0.0, losses[1], tuple(answers))


def make_account(
    result: UnlearnResult, job: UnlearnJob, before: Observed, after: Observed, asked: Sequence[Row] = (), *, model: str
) -> Account:
    """The account of a finished run."""
    options = result.options
    facts = {k: v for k, v in result.facts.items() if k != "probe"}
    summary = {
        "model": model,
        "method": options.method,
        "outcome": result.outcome,
        "forget rows": len(job.forget),
        "retain rows": len(job.retain),
        "guard rows": len(job.guard) if job.guard != job.retain else 0,
        "learning rate": result.rate,
        "steps": result.readings[-1].step if result.readings else 0,
        "forget loss before": before.forget_loss,
        "forget loss after": after.forget_loss,
        "forget loss of unseen rows (target)": result.limits.target,
        "retain loss before": before.retain_loss,
        "retain loss after": after.retain_loss,
        "retain perplexity ratio": _ratio(before.retain_loss, after.retain_loss),
        "seconds": {name: round(value, 2) for name, value in result.seconds.items()},
        "warnings": list(job.warnings),
        **facts,
    }
    if result.weights is not None:
        summary["weights"] = dict(result.weights.about)
    asked_of = prompts_shown(job, asked)
    samples = tuple(
        Sample(kind, prompt, was, now)
        for (kind, prompt), was, now in zip(asked_of, before.answers, after.answers, strict=True)
    )
    readings = tuple((r.step, r.forget, r.guard) for r in result.readings)
    return Account(plain_json(summary), samples, readings, _weights(result))


def _weights(result: UnlearnResult) -> dict[str, list[tuple[float, float, float]]]:
    """By group: (view towards forget rows, view towards retain rows, weight) of each row that has views."""
    if result.weights is None:
        return {}
    return {
        group: [(*row.views, row.weight) for row in result.weights.rows if row.group == group and row.views is not None]
        for group in ("forget", "retain")
    }


def _ratio(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else math.exp(min(after - before, 50.0))


def _tokens(reader: Reader, rows: Sequence[Row]) -> list[TokenRow]:
    return reader.tokenize([replace(row, hotwords=()) for row in rows])
