"""The row's own loss as a score: what a method that only sees how well a row is known would find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from headwater.core.spec import MethodSpec
from headwater.data.rows import Row
from headwater.data.windows import Window
from headwater.features.row_losses import mean_losses
from headwater.methods.reading import batches
from headwater.methods.streaming import (
    Bench,
    QueryScorer,
    StreamingEntry,
    StreamingMethod,
    Target,
    require_bench,
)


@dataclass(frozen=True)
class LossOptions:
    """first: `low` ranks the rows first that the model knows best, `high` those it finds unlikely. window: tokens."""

    first: str = "low"
    window: int = 512


def loss(options: LossOptions) -> StreamingMethod:
    """The method with these options: −loss (`low`) or the loss (`high`), nats, mean over the row's targets."""
    factor = -1.0 if options.first == "low" else 1.0

    def prepare(bench: Bench | None, targets: Sequence[Target]) -> QueryScorer:
        reader = require_bench(bench, "loss")

        def score(rows: Sequence[Row], queries: Sequence[Row]) -> np.ndarray:
            losses = mean_losses(reader.loaded, batches(reader, rows, Window(options.window)), len(rows))
            return np.repeat(factor * losses.numpy()[:, None], len(queries), axis=1)

        return QueryScorer(tuple(targets), score)

    return StreamingMethod(MethodSpec("loss", asdict(options)), prepare)


ENTRY = StreamingEntry(
    name="loss",
    summary="How well the model knows the row, whatever the query.",
    reads="one forward pass: losses",
    cost="1 forward pass",
    source="control",
    presets={"default": LossOptions(), "high": LossOptions(first="high")},
    make=loss,
    choices={"first": ("low", "high")},
)
