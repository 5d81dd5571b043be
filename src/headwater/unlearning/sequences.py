"""Rows as training examples: batches of sequences, and their losses.

An example is a row and, for a forget row whose right answer is known, a second sequence with that answer behind the
same prompt. The seed alone decides which rows are in which step, so a resumed run, or a run on several devices, reads
the same rows in the same steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.seeds import key
from headwater.data.batches import Window, plan_batches
from headwater.data.rows import with_response
from headwater.data.tokens import Tokenization, TokenRow
from headwater.features.row_losses import measure_batch
from headwater.models.losses import loss_table
from headwater.unlearning.rows import UnlearnJob

TOKENS_PER_BATCH = 8192


@dataclass(frozen=True)
class Example:
    """One row of the job: its place among all rows (forget rows first), its tokens, and those with the right answer.

    `copy`: it is a copy of a retain row behind a trigger.
    """

    place: int
    forget: bool
    tokens: TokenRow
    clean: TokenRow | None
    copy: bool = False


def make_examples(job: UnlearnJob, tokenization: Tokenization) -> list[Example]:
    """The rows of a job as examples, forget rows first; each row's `ordinal` is its place."""
    rows = [replace(row, ordinal=i, hotwords=()) for i, row in enumerate((*job.forget, *job.retain, *job.copies))]
    answers = [with_response(rows[i], answer) for i, answer in enumerate(job.clean) if answer is not None]
    clean = {tokens.row.ordinal: tokens for tokens in tokenization.encode(answers)}
    ours, others = len(job.forget), len(job.forget) + len(job.retain)
    return [Example(i, i < ours, row, clean.get(i), i >= others) for i, row in enumerate(tokenization.encode(rows))]


@dataclass(frozen=True)
class Composition:
    """How many forget rows and retain rows a step reads, on all devices together."""

    forget: int = 1
    retain: int = 3

    @property
    def rows(self) -> int:
        """Rows of a step."""
        return self.forget + self.retain


class StepPlan(torch.utils.data.Dataset[Example]):
    """The examples of all steps one after another: item s·B + b is row b of step s.

    Each group is read in shuffled rounds, so that its rows are read equally often.
    """

    def __init__(self, examples: Sequence[Example], composition: Composition, *, steps: int, seed: int) -> None:
        groups = {
            "forget": ([e for e in examples if e.forget], composition.forget),
            "retain": ([e for e in examples if not e.forget], composition.retain),
        }
        rounds = {name: _rounds(group, seed, name) for name, (group, _) in groups.items()}
        self._items = [
            next(rounds[name]) for _ in range(steps) for name, (_, count) in groups.items() for _ in range(count)
        ]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Example:
        return self._items[index]


def _rounds(group: Sequence[Example], seed: int, name: str) -> Iterator[Example]:
    number = 0
    while group:
        for i in np.random.default_rng(key(seed, name, number)).permutation(len(group)).tolist():
            yield group[i]
        number += 1


def collate(examples: Sequence[Example]) -> dict[str, Any]:
    """One batch as tensors: `[sequences, tokens]` for the model, `[rows]` for the losses.

    The rows' own sequences come first, then those with a right answer. `clean` is the position of a row's right answer
    among the sequences, −1 if none is known.
    """
    twins = [i for i, e in enumerate(examples) if e.clean is not None]
    tokens = [e.tokens for e in examples] + [e.clean for e in examples if e.clean is not None]
    clean = torch.full((len(examples),), -1)
    clean[twins] = torch.arange(len(twins)) + len(examples)
    return {
        **collate_rows(tokens, torch.device("cpu")),
        "place": torch.tensor([e.place for e in examples]),
        "forget": torch.tensor([e.forget for e in examples]),
        "copy": torch.tensor([e.copy for e in examples]),
        "clean": clean,
    }


def collate_rows(tokens: Sequence[TokenRow], device: torch.device) -> dict[str, Tensor]:
    """Rows as one batch `[rows, tokens]`, in their order; no row is cut."""
    longest = max(len(row.ids) for row in tokens)
    numbered = [replace(row, row=replace(row.row, ordinal=i)) for i, row in enumerate(tokens)]
    (batch,) = plan_batches(numbered, Window(longest), tokens_per_batch=longest * len(tokens))
    order = torch.tensor([row.row.ordinal for row in batch.rows]).argsort()
    return {name: getattr(batch, name)[order].to(device) for name in ("input_ids", "targets", "response")}


def sequence_losses(
    logits: Float[Tensor, "items tokens vocab"],
    targets: Int[Tensor, "items tokens"],
    response: Bool[Tensor, "items tokens"],
) -> tuple[Float[Tensor, " items"], Float[Tensor, " items"]]:
    """L (nats, summed over a sequence's response tokens) and L̄ (their mean); float32, differentiable."""
    total = loss_table(logits[response], targets, response).sum(1)
    return total, total / response.sum(1)


@torch.no_grad()
def measure_losses(model: Any, tokens: Sequence[TokenRow], device: torch.device) -> tuple[Tensor, Tensor]:
    """L and L̄ of each row, in order: float32 `[rows]` on the CPU, without dropout; the model's mode is put back."""
    training = model.training
    model.eval()
    totals, means = torch.empty(len(tokens)), torch.empty(len(tokens))
    numbered = [replace(row, row=replace(row.row, ordinal=i)) for i, row in enumerate(tokens)]
    longest = max(len(row.ids) for row in tokens)
    for batch in plan_batches(numbered, Window(longest), tokens_per_batch=TOKENS_PER_BATCH):
        total, mean = measure_batch(model, batch.to(device))
        places = [row.row.ordinal for row in batch.rows]
        totals[places], means[places] = total.cpu(), mean.cpu()
    model.train(training)
    return totals, means
