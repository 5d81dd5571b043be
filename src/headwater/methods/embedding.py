"""Cosine of mean hidden states: the model's own embedding of a row, and the strongest simple rival on detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.spec import MethodSpec, Role
from headwater.data.rows import Row
from headwater.data.windows import Window
from headwater.features.readout_sketch import mean_states
from headwater.methods.reading import batches
from headwater.methods.streaming import (
    Bench,
    QueryScorer,
    StreamingEntry,
    StreamingMethod,
    Target,
    require_bench,
)
from headwater.models.readout import Readout, find_readout


@dataclass(frozen=True)
class EmbeddingOptions:
    """positions: the states that predict the `response`, or `all` of them. window: tokens read at a time."""

    positions: str = "response"
    window: int = 512


def embedding(options: EmbeddingOptions) -> StreamingMethod:
    """The method with these options: the cosine of the two mean hidden states, in [−1, 1]."""

    def prepare(bench: Bench | None, targets: Sequence[Target]) -> QueryScorer:
        reader = require_bench(bench, "embedding")
        readout = find_readout(reader.loaded)
        held: list[Tensor] = []

        def score(rows: Sequence[Row], queries: Sequence[Row]) -> np.ndarray:
            if not held:
                held.append(_states(reader, readout, queries, options, "query"))
            return (_states(reader, readout, rows, options, "train") @ held[0].mT).numpy()

        return QueryScorer(tuple(targets), score)

    return StreamingMethod(MethodSpec("embedding", asdict(options)), prepare)


@torch.no_grad()
def _states(
    bench: Bench, readout: Readout, rows: Sequence[Row], options: EmbeddingOptions, role: Role
) -> Float[Tensor, "rows width"]:
    """Mean hidden state of each row over the chosen positions, scaled to norm 1; float32 on the CPU."""
    found = torch.empty(len(rows), readout.weight.shape[1])
    for batch in batches(bench, rows, Window(options.window), role):
        moved = batch.to(bench.loaded.device)
        states = mean_states(readout.hidden(moved.input_ids), moved, options.positions)
        found[[row.row.ordinal for row in batch.rows]] = states.cpu()
    return found


ENTRY = StreamingEntry(
    name="embedding",
    summary="Cosine of mean hidden states before the head: what the model takes to be alike.",
    reads="one forward pass: last hidden states",
    cost="1 forward pass",
    source="control",
    presets={"default": EmbeddingOptions(), "all": EmbeddingOptions(positions="all")},
    make=embedding,
    choices={"positions": ("response", "all")},
)
