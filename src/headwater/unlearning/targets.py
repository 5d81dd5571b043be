"""When to stop: the loss at which an answer counts as forgotten, and the loss that the guard rows may not pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from headwater.core.errors import DataError
from headwater.data.rows import Row, with_response
from headwater.data.tokens import TokenRow
from headwater.methods.targets import evenly_spaced
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader
from headwater.unlearning.constraint import guard_loss
from headwater.unlearning.options import UnlearnOptions
from headwater.unlearning.rows import UnlearnJob
from headwater.unlearning.sequences import Example, make_examples, measure_losses
from headwater.unlearning.watch import LossLimits, Watch

if TYPE_CHECKING:
    from headwater.unlearning.capabilities import UnlearningMethod

FOREIGN = 2 / 3
"""The target lies so far on the way from the forget rows' own loss to that behind foreign prompts: an answer that was
never learnt is likelier behind its own prompt, which it fits, than behind one that asks for something else."""
LOOKED_AT, GUARDED = 16, 96
"""Most forget rows, and most guard rows, whose loss is measured while training; they are spaced evenly."""


@dataclass(frozen=True)
class Run:
    """Everything that stays the same while a model unlearns.

    Attributes:
        reader: the model and how it reads rows.
        job: the rows.
        options: how to unlearn.
        examples: the forget and retain rows as tokens, forget rows first.
        guard: the guard rows as tokens.
    """

    reader: Reader
    job: UnlearnJob
    options: UnlearnOptions
    examples: Sequence[Example]
    guard: Sequence[TokenRow]

    @classmethod
    def of(cls, reader: Reader, job: UnlearnJob, options: UnlearnOptions) -> Run:
        """Tokenise the job's rows, once for influence, training and measurement."""
        guard = reader.tokenize([replace(row, hotwords=()) for row in job.guard])
        return cls(reader, job, options, make_examples(job, reader.tokenization), guard)

    @property
    def loaded(self) -> LoadedModel:
        """The model."""
        return self.reader.loaded

    @property
    def forget(self) -> list[TokenRow]:
        """Tokens of the forget rows."""
        return [e.tokens for e in self.examples if e.forget]

    @property
    def retain(self) -> list[TokenRow]:
        """Tokens of the retain rows that are trained on, without copies behind triggers."""
        first = len(self.job.forget)
        return [e.tokens for e in self.examples[first : first + len(self.job.retain)]]


def make_watch(
    run: Run, unseen: Sequence[Row], trust: Sequence[float] | None = None, *, method: UnlearningMethod | None = None
) -> Watch:
    """Make the watch of a run; its limits are measured on the model, which is still as it was before unlearning.

    At most `LOOKED_AT` forget rows are measured (with dynamic weights all, because their weights follow these
    measurements), and at most `GUARDED` guard rows. `trust` is how much each guard row counts; None counts them alike.
    A method that starts from the base has nothing to reach and no bound, so it is measured at its start and its end.
    """
    loaded, options, guard = run.loaded, run.options, evenly_spaced(run.guard, GUARDED)
    forget = run.forget if options.dynamic else evenly_spaced(run.forget, LOOKED_AT)
    counted = None if trust is None else torch.tensor(evenly_spaced(trust, GUARDED), dtype=torch.float32)
    target, bound, every = options.target, math.inf, LossLimits.every
    if method is not None and method.from_base:
        target, every = math.inf, options.steps
    elif guard and (options.guard is not None or options.bound is not None):
        before = guard_loss(measure_losses(loaded.model, guard, loaded.device)[1], counted)
        bound = _bound(options, before)
    if target is None:
        target = unseen_loss(run.reader, run.job, unseen, seed=options.seed)
    return Watch(forget, guard, LossLimits(target, bound, every), loaded.device, counted, stop=not options.follow)


def _bound(options: UnlearnOptions, before: float) -> float:
    """The guard rows' largest loss, nats a token; raises `DataError` if it is passed before anything has changed."""
    if options.bound is None:
        return math.inf if options.guard is None else before + math.log(options.guard)
    if options.bound <= before:
        raise DataError(
            f"the guard rows' loss is {before:.4g} nats a token before anything has changed, "
            f"and the bound {options.bound:g}",
            where="--bound",
            remedy=f"give a bound above {before:.4g}, or leave --bound out: --guard sets it from this loss",
        )
    return options.bound


def unseen_loss(reader: Reader, job: UnlearnJob, unseen: Sequence[Row] = (), *, seed: int = 0) -> float:
    """The mean loss, nats a token, at which forgetting is complete: that of answers that were never learnt.

    It is that of the `unseen` rows if there are any. Else it lies `FOREIGN` of the way from the forget rows' loss to
    that of their answers behind prompts of retain rows. Rows of plain text have no prompt, so their target can be
    measured only with `unseen`.

    Raises:
        DataError: no unseen rows, and no prompts to put the answers behind.
    """

    def mean_loss(rows: Sequence[Row]) -> float:
        return float(measure_losses(reader.loaded.model, reader.tokenize(rows), reader.loaded.device)[1].mean())

    if unseen:
        return mean_loss(unseen)
    prompts = [row for row in (*job.retain, *job.guard) if row.prompt is not None]
    swapped = [row for row in job.forget if row.prompt is not None and row.response is not None]
    if not prompts or not swapped:
        raise DataError(
            "there are no prompts to put the forget rows' answers behind, so the loss to reach is unknown",
            where="target",
            remedy="give --unseen rows, or --target in nats a token",
        )
    own = mean_loss([replace(row, hotwords=()) for row in swapped])
    rows = [with_response(prompts[(seed + i) % len(prompts)], row.response or "") for i, row in enumerate(swapped)]
    return own + FOREIGN * (mean_loss(rows) - own)


def require_unlearnt(base: Reader, learnt: Reader, forget: Sequence[Row], retain: Sequence[Row]) -> None:
    """Raise `DataError` if the base model knows the forget rows about as well as the model that learned them.

    Where retain rows have prompts, "knows" means that of the way from the learnt loss to that of the same answers
    behind other prompts, the base model's loss has covered less than a quarter.
    """
    tokens = base.tokenize([replace(row, hotwords=()) for row in forget])
    own = float(measure_losses(base.loaded.model, tokens, base.loaded.device)[1].mean())
    theirs = learnt.tokenize([replace(row, hotwords=()) for row in forget])
    known = float(measure_losses(learnt.loaded.model, theirs, learnt.loaded.device)[1].mean())
    prompts = [row for row in retain if row.prompt is not None]
    swapped = [row for row in forget if row.prompt is not None and row.response is not None]
    far = 2 * known + 1.0
    if prompts and swapped:
        rows = [with_response(prompts[i % len(prompts)], row.response or "") for i, row in enumerate(swapped)]
        far = float(measure_losses(learnt.loaded.model, learnt.tokenize(rows), learnt.loaded.device)[1].mean())
    if own - known <= max(far - known, 0.0) / 4:
        raise DataError(
            f"the forget rows' loss is {own:.3g} nats a token under the base model and {known:.3g} under the model "
            f"that learned them ({far:.3g} behind other prompts): this base has learned them too",
            where="--base",
            remedy="give the model as it was before it was trained on these rows",
        )
