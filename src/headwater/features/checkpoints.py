"""One encoder for several checkpoints, with columns for each, whose scores are summed with their learning rates.

TracIn (Pruthi et al., arXiv 2002.08484): I(t, s) = Σ_c η_c ⟨∇L_c(s), ∇L_c(t)⟩.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import DataError, UsageError
from headwater.core.spec import Column, Coverage, Role
from headwater.data.batches import TokenBatch
from headwater.features.encoder import Encoded, Encoder, ExactEncoder, TokenScores
from headwater.models.checkpoints import LIST, Checkpoint, load_checkpoint, read_checkpoints
from headwater.models.load import LoadedModel

Weights = Literal["rate", "equal"]
"""The weight of a checkpoint: its learning rate (TracIn), or the same for all."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointEncoder:
    """An `Encoder` that combines one encoder per checkpoint; its columns are named `name@checkpoint`.

    Attributes:
        encoders: checkpoint name to encoder, in training order.
        weights: checkpoint name to the factor on its inner products (the learning rate).
    """

    encoders: Mapping[str, Encoder]
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.encoders or self.encoders.keys() != self.weights.keys():
            names = f"{', '.join(self.encoders)} / {', '.join(self.weights)}"
            raise UsageError(f"every checkpoint needs an encoder and a weight: {names}", where="checkpoints")

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of all checkpoints, weighted."""
        return tuple(
            replace(column, name=f"{column.name}@{name}", weight=column.weight * self.weights[name])
            for name, encoder in self.encoders.items()
            for column in encoder.columns
        )

    @property
    def coverage(self) -> Coverage:
        """The coverage of the first checkpoint; the note adds the number of checkpoints."""
        first = next(iter(self.encoders.values())).coverage
        note = "; ".join(filter(None, (first.note, f"{len(self.encoders)} checkpoints")))
        return replace(first, note=note)

    def encode(self, batch: TokenBatch, role: Role) -> Encoded:
        """Vectors at every checkpoint; losses at the last one."""
        found = {name: encoder.encode(batch, role) for name, encoder in self.encoders.items()}
        vectors = {f"{column}@{name}": v for name, e in found.items() for column, v in e.vectors.items()}
        return Encoded(vectors, list(found.values())[-1].losses)

    def token_scores(
        self, batch: TokenBatch, role: Role, probes: Mapping[str, Float[Tensor, "probes _dim"]]
    ) -> tuple[TokenScores, ...]:
        """Each checkpoint's token scores in its own columns; losses at the last one that has probes."""
        found = []
        for name, encoder in self.encoders.items():
            mine = {c.name: probes[f"{c.name}@{name}"] for c in encoder.columns if f"{c.name}@{name}" in probes}
            if mine:
                found.append((name, encoder.token_scores(batch, role, mine)))
        return tuple(_merge([(name, scores[row]) for name, scores in found]) for row in range(len(batch.rows)))

    def exact_scores(self, train: Iterable[TokenBatch], queries: Sequence[TokenBatch]) -> Float[Tensor, "rows queries"]:
        """Σ over checkpoints of weight × uncompressed score.

        Raises:
            UsageError: an encoder has no uncompressed scores.
        """
        batches = list(train)
        total: Tensor | float = 0.0
        for name, encoder in self.encoders.items():
            if not isinstance(encoder, ExactEncoder):
                raise UsageError("these checkpoints' scores have no uncompressed form", where=name)
            total = total + self.weights[name] * encoder.exact_scores(batches, queries)
        return cast(Tensor, total)


def over_checkpoints(
    folder: str, loaded: LoadedModel, make: Callable[[LoadedModel, Checkpoint], Encoder], *, weights: Weights = "rate"
) -> CheckpointEncoder:
    """The encoder that combines `make(model, checkpoint)` of every checkpoint recorded in `folder`.

    Every checkpoint's model is held in memory. `loaded` is the base of recorded adapters; recorded whole models replace
    it. The weights are the learning rates, or equal with sum 1. Checkpoints of one step, as two runs leave them, go by
    the names of their folders. A checkpoint of learning rate 0 would add nothing to a score that is weighted by the
    rates: it is left out, which is logged.

    Raises:
        DataError: two checkpoints have one name, or the rates are the weights and all are 0.
    """
    found = read_checkpoints(folder)
    steps = [c.step for c in found]
    names = [f"step-{c.step}" if steps.count(c.step) == 1 else Path(c.path).name for c in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two checkpoints are called '{twice}'", where=folder, remedy="rename one of the folders")
    recorded = dict(zip(names, found, strict=True))
    if weights == "rate":
        recorded = _with_rate(recorded, folder)
    share = None if weights == "rate" else 1 / len(recorded)
    return CheckpointEncoder(
        {name: make(load_checkpoint(c, loaded), c) for name, c in recorded.items()},
        {name: c.learning_rate if share is None else share for name, c in recorded.items()},
    )


def _with_rate(recorded: Mapping[str, Checkpoint], folder: str) -> dict[str, Checkpoint]:
    """The checkpoints whose learning rate is not 0; a note names the others."""
    idle = [c for c in recorded.values() if not c.learning_rate]
    named = ", ".join(Path(c.path).name for c in idle)
    if len(idle) == len(recorded):
        place = Path(folder) if Path(folder).is_dir() else Path(folder).parent
        entries = [{"path": os.path.relpath(c.path, place), "step": c.step, "learning_rate": 2e-5} for c in idle]
        what = f"the last learning rate logged at {named} is 0, and a checkpoint counts by its rate"
        remedy = (
            f"give earlier checkpoints too, or write the rates of the run into {place / LIST}: {json.dumps(entries)}"
        )
        raise DataError(what, where=folder, remedy=remedy)
    if idle:
        _log.warning("note: left out, because a checkpoint counts by its learning rate and theirs is 0: %s", named)
    return {name: c for name, c in recorded.items() if c.learning_rate}


def _merge(parts: Sequence[tuple[str, TokenScores]]) -> TokenScores:
    values: dict[str, Tensor] = {f"{c}@{name}": v for name, part in parts for c, v in part.values.items()}
    return TokenScores(values, parts[-1][1].losses)
