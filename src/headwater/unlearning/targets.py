"""Where to stop: the loss at which an answer counts as forgotten, and the loss utility may rise to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from headwater.core.errors import DataError
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization, TokenRow
from headwater.models.load import LoadedModel
from headwater.unlearning.options import Options
from headwater.unlearning.rows import Job, with_answer
from headwater.unlearning.sequences import Example, measure_losses
from headwater.unlearning.watch import Limits, Watch, guard_loss

LOOKED_AT = 32
"""Most forget rows, and guard rows, that are looked at while training."""


@dataclass(frozen=True)
class Setting:
    """All that stays the same while a model unlearns: model, rows, options, and the rows as tokens."""

    loaded: LoadedModel
    job: Job
    options: Options
    tokenization: Tokenization
    examples: Sequence[Example]

    @property
    def forget(self) -> list[TokenRow]:
        """Tokens of the forget rows."""
        return [e.tokens for e in self.examples if e.forget]

    @property
    def retain(self) -> list[TokenRow]:
        """Tokens of the retain rows that are trained on."""
        return [e.tokens for e in self.examples if not e.forget]


def make_watch(setting: Setting, unseen: Sequence[Row], trust: Sequence[float] | None = None) -> Watch:
    """The watch of a run, its limits measured on the model before; `trust` is how much each guard row counts."""
    loaded, job, options = setting.loaded, setting.job, setting.options
    guard: list[TokenRow] = []
    if job.guard:
        rows = [replace(row, ordinal=i, hotwords=()) for i, row in enumerate(job.guard[:LOOKED_AT])]
        guard = setting.tokenization.encode(rows)
    counted = None if trust is None else torch.tensor(trust[:LOOKED_AT], dtype=torch.float32)
    target, bound = options.target, math.inf
    if options.method == "retrain":
        target = math.inf
    elif options.guard is not None and guard:
        before = guard_loss(measure_losses(loaded.model, guard, loaded.device)[1], counted)
        bound = before + math.log(options.guard)
    if target is None:
        target = unseen_loss(loaded, job, setting.tokenization, unseen, seed=options.seed)
    return Watch(setting.forget[:LOOKED_AT], guard, Limits(target, bound), loaded.device, counted)


def unseen_loss(
    loaded: LoadedModel, job: Job, tokenization: Tokenization, unseen: Sequence[Row] = (), *, seed: int = 0
) -> float:
    """The loss, nats a token, of answers the prompt does not call for: where forgetting is complete.

    Of `unseen` rows if given; else of the forget rows' answers behind prompts of retain rows. Rows of plain text have
    no prompt to exchange: without `unseen` their target cannot be known.

    Raises:
        DataError: neither unseen rows nor prompts to exchange.
    """
    if unseen:
        rows = list(unseen)
    else:
        prompts = [row.prompt for row in (*job.retain, *job.guard) if row.prompt is not None]
        swapped = [row for row in job.forget if row.prompt is not None and row.response is not None]
        if not prompts or not swapped:
            raise DataError(
                "there are no prompts to put the forget rows' answers behind, so the loss to reach is unknown",
                where="target",
                remedy="give --unseen rows, or --target in nats a token",
            )
        rows = [
            with_answer(replace(row, prompt=prompts[(seed + i) % len(prompts)]), row.response or "")
            for i, row in enumerate(swapped)
        ]
    tokens = tokenization.encode([replace(row, ordinal=i) for i, row in enumerate(rows)])
    return float(measure_losses(loaded.model, tokens, loaded.device)[1].mean())
