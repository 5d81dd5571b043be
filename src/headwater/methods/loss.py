"""The row's own loss as a score: a control that sees only how well the model knows a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from headwater.core.spec import MethodSpec
from headwater.data.batches import CONTEXT, Window
from headwater.data.rows import Row
from headwater.features.row_losses import mean_losses
from headwater.methods.method import Meaning, Method, MethodEntry
from headwater.methods.targets import RowScorer, Target, same_for_all
from headwater.models.reader import Reader

KNOWN = Meaning("higher = the model knows the row better (minus its loss, nats); the query plays no part", signed=False)
UNLIKELY = Meaning(
    "higher = the model finds the row less likely (its loss, nats); the query plays no part", signed=False
)


@dataclass(frozen=True)
class LossOptions:
    """first: `low` ranks the rows first that the model knows best, `high` those it finds least likely.

    window: as in `rapidin`.
    """

    first: str = "low"
    window: int = CONTEXT


def loss(options: LossOptions) -> Method:
    """The method with these options: −loss (`low`) or the loss (`high`) in nats, mean over the row's target tokens."""
    factor, meaning = (-1.0, KNOWN) if options.first == "low" else (1.0, UNLIKELY)

    def scoring(reader: Reader, targets: Sequence[Target], sample: Sequence[Row]) -> RowScorer:
        def score(rows: Sequence[Row]) -> np.ndarray:
            losses = mean_losses(reader.loaded, reader.batches(rows, Window(options.window)), len(rows))
            return same_for_all(factor * losses.numpy(), targets)

        return RowScorer(targets, score)

    return Method(MethodSpec("loss", asdict(options)), scoring=scoring, meaning=meaning)


ENTRY = MethodEntry(
    name="loss",
    summary="How well the model knows the row, whatever the query.",
    reads="one forward pass: losses",
    cost="1 forward pass",
    source="control",
    presets={"default": LossOptions(), "high": LossOptions(first="high")},
    make=loss,
    choices={"first": ("low", "high")},
)
