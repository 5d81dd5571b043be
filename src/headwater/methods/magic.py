"""MAGIC: what a little more weight on a row in a training run does to the end of it (arXiv 2504.16430)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from headwater.core.errors import DataError, ModelError, UsageError
from headwater.core.spec import MethodSpec
from headwater.data.batches import CONTEXT, TokenBatch, Window
from headwater.data.rows import Row
from headwater.methods.method import Meaning, Method, MethodEntry
from headwater.methods.targets import RowScorer, Target, laid_out
from headwater.models.reader import Reader
from headwater.training.metagradient import FlatModel, RepeatedRun, metagradients, replay
from headwater.training.recorder import RUN
from headwater.training.runs import read_run

FARTHEST = 0.05
"""A repeated run may end so far from the trained model, as a share of how far the training moved it."""

MEANING = Meaning("positive = proponent: more weight on the row in the whole training lowers the loss of the query")


@dataclass(frozen=True)
class MagicOptions:
    """run: the record of the training, `run.json` in a Recorder's folder. together: queries in one pass backward.

    window: most tokens of a query.
    """

    run: str = ""
    together: int = 32
    window: int = CONTEXT


def magic(options: MagicOptions) -> Method:
    """The method with these options: −∂ L(query) / ∂ w(row) after the whole training; positive = proponent.

    Raises:
        UsageError: `run` is not given.
    """
    if not options.run or options.together < 1:
        remedy = "give run=FOLDER/run.json, as headwater's own training leaves it, and together above 0"
        raise UsageError("the training run is repeated, forward and backward", where="magic.run", remedy=remedy)

    def scoring(reader: Reader, targets: Sequence[Target], sample: Sequence[Row]) -> RowScorer:
        queries = _single(reader, laid_out(targets), Window(options.window))
        run = read_run(options.run, reader.loaded.model)
        flat = FlatModel(run.model)
        done = replay(flat, run)
        _require_same(flat, done, reader)
        parts = [queries[at : at + options.together] for at in range(0, len(queries), options.together)]
        values = torch.cat([metagradients(flat, run, done, part) for part in parts], dim=1).numpy()
        place = {row.digest: i for i, row in enumerate(run.rows)}

        def score(rows: Sequence[Row]) -> np.ndarray:
            tokens = reader.tokenize(rows)
            for row in tokens:
                if row.digest not in place:
                    what = f"row '{row.row.id}' was not trained on, or was read in another way"
                    remedy = "give rows of the run, with the template and --max-tokens it was trained with"
                    raise DataError(what, where=options.run, remedy=remedy)
            return np.asarray(values[[place[row.digest] for row in tokens]])

        return RowScorer(targets, score, {"steps repeated": len(done.steps)})

    return Method(MethodSpec("magic", asdict(options)), scoring=scoring, meaning=MEANING)


def _single(reader: Reader, queries: Sequence[Row], window: Window) -> list[TokenBatch]:
    """A batch for each query, in order."""
    return [batch for query in queries for batch in reader.batches([query], window, "query")]


def _require_same(flat: FlatModel, done: RepeatedRun, reader: Reader) -> None:
    """Raise `ModelError` if the repeated run ends elsewhere than at the trained model."""
    start, trained = flat.weights(), flat.weights_of(reader.loaded.model)
    share = float((done.weights - trained).norm() / (trained - start).norm().clamp_min(1e-30))
    if not share <= FARTHEST:
        what = f"the run, repeated, ends {share:.0%} of its way from the trained model"
        raise ModelError(
            what, where="magic.run", remedy="give the run that made this model, on the same kind of machine"
        )


ENTRY = MethodEntry(
    name="magic",
    summary="Exact metagradients: the whole training run backward, with AdamW, clipping and schedule.",
    reads="the training run: forward once, and backward with a Hessian product for each step and query",
    cost="one training, and about four more for each query",
    source="Ilyas and Engstrom, arXiv 2504.16430",
    presets={"default": MagicOptions()},
    make=magic,
    recorded={"run": RUN},
)
