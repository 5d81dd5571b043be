"""Cosine of mean hidden states, the model's own embedding of a row: the strongest simple method on detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.spec import MethodSpec, Role
from headwater.data.batches import CONTEXT, Window
from headwater.data.rows import Row
from headwater.features.readout_sketch import mean_states
from headwater.methods.method import Meaning, Method, MethodEntry
from headwater.methods.targets import RowScorer, Target, laid_out
from headwater.models.reader import Reader
from headwater.models.readout import Readout, find_readout

ALIKE = Meaning("higher = more alike, by the cosine of hidden states; no value says that a row harms", signed=False)


@dataclass(frozen=True)
class EmbeddingOptions:
    """positions: average the states that predict the `response`, or `all` states. window: as in `rapidin`."""

    positions: str = "response"
    window: int = CONTEXT


def embedding(options: EmbeddingOptions) -> Method:
    """The method with these options: the cosine of the two mean hidden states, in [−1, 1]."""

    def scoring(reader: Reader, targets: Sequence[Target], sample: Sequence[Row]) -> RowScorer:
        readout = find_readout(reader.loaded)
        queries = _states(reader, readout, laid_out(targets), options, "query")

        def score(rows: Sequence[Row]) -> np.ndarray:
            return (_states(reader, readout, rows, options, "train") @ queries.mT).numpy()

        return RowScorer(targets, score)

    return Method(MethodSpec("embedding", asdict(options)), scoring=scoring, meaning=ALIKE)


@torch.no_grad()
def _states(
    reader: Reader, readout: Readout, rows: Sequence[Row], options: EmbeddingOptions, role: Role
) -> Float[Tensor, "rows width"]:
    """The mean hidden state of each row over the chosen positions, scaled to norm 1; float32 on the CPU."""
    found = torch.empty(len(rows), readout.weight.shape[1])
    window = Window(options.window, everything=options.positions == "all")
    for batch in reader.batches(rows, window, role):
        moved = batch.to(reader.loaded.device)
        states = mean_states(readout.hidden(moved.input_ids), moved, options.positions)
        found[[row.row.ordinal for row in batch.rows]] = states.cpu()
    return found


ENTRY = MethodEntry(
    name="embedding",
    summary="Cosine of mean hidden states before the head: what the model takes to be alike.",
    reads="one forward pass: last hidden states",
    cost="1 forward pass",
    source="control",
    presets={"default": EmbeddingOptions(), "all": EmbeddingOptions(positions="all")},
    make=embedding,
    choices={"positions": ("response", "all")},
)
