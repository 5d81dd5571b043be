"""MAGIC: what a little more weight on a row in a training run does to the end of it (arXiv 2504.16430)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import DataError, ModelError, UsageError
from headwater.core.seeds import key
from headwater.core.spec import MethodSpec
from headwater.data.batches import CONTEXT, TokenBatch, Window
from headwater.data.rows import Row
from headwater.methods.method import Meaning, Method, MethodEntry
from headwater.methods.targets import RowScorer, Target, laid_out
from headwater.models.reader import Reader
from headwater.training.metagradient import FlatModel, RepeatedRun, metagradients, replay
from headwater.training.recorder import RUN
from headwater.training.runs import RecordedRun, read_run

FARTHEST = 0.05
"""A repeated run may end so far from the trained model, as a share of how far the training moved it."""

MEANING = Meaning("positive = proponent: more weight on the row in the whole training lowers the loss of the query")


@dataclass(frozen=True)
class MagicOptions:
    """run: the record of the training, `run.json` in a Recorder's folder. together: queries in one pass backward.

    draws: 0 takes the derivative at the recorded run. An even number takes its mean over so many trainings on random
    halves of the rows instead, every half with its complement: what leaving out many rows does is a large step, over
    which the derivative changes. seed: of the halves. window: most tokens of a query.
    """

    run: str = ""
    together: int = 32
    draws: int = 0
    seed: int = 0
    window: int = CONTEXT


def magic(options: MagicOptions) -> Method:
    """The method with these options: −∂ L(query) / ∂ w(row) after the whole training; positive = proponent.

    Raises:
        UsageError: `run` is not given.
    """
    if not options.run or options.together < 1:
        remedy = "give run=FOLDER/run.json, as headwater's own training leaves it, and together above 0"
        raise UsageError("the training run is repeated, forward and backward", where="magic.run", remedy=remedy)
    if options.draws < 0 or options.draws % 2:
        what = f"{options.draws} random halves cannot each have their complement"
        raise UsageError(what, where="magic.draws", remedy="give 0 or an even number")

    def scoring(reader: Reader, targets: Sequence[Target], sample: Sequence[Row]) -> RowScorer:
        queries = _single(reader, laid_out(targets), Window(options.window))
        run = read_run(options.run, reader.loaded.model)
        flat = FlatModel(run.model)
        done = replay(flat, run)
        _require_same(flat, done, reader)
        parts = [queries[at : at + options.together] for at in range(0, len(queries), options.together)]

        def derivatives(run: RecordedRun, done: RepeatedRun) -> Tensor:
            return torch.cat([metagradients(flat, run, done, part) for part in parts], dim=1)

        values = over_halves(flat, run, options, derivatives) if options.draws else derivatives(run, done)
        place = {row.digest: i for i, row in enumerate(run.rows)}

        def score(rows: Sequence[Row]) -> np.ndarray:
            tokens = reader.tokenize(rows)
            for row in tokens:
                if row.digest not in place:
                    what = f"row '{row.row.id}' was not trained on, or was read in another way"
                    remedy = "give rows of the run, with the template and --max-tokens it was trained with"
                    raise DataError(what, where=options.run, remedy=remedy)
            return values[[place[row.digest] for row in tokens]].numpy()

        return RowScorer(targets, score, {"steps repeated": len(done.steps), "halves": options.draws})

    return Method(MethodSpec("magic", asdict(options)), scoring=scoring, meaning=MEANING)


def over_halves(
    flat: FlatModel, run: RecordedRun, options: MagicOptions, derivatives: Callable[[RecordedRun, RepeatedRun], Tensor]
) -> Float[Tensor, "rows queries"]:
    """The mean of each row's derivative over the trainings on random halves that have it; half of `draws` have."""
    count, total = len(run.rows), torch.zeros(())
    for pair in range(options.draws // 2):
        order = np.random.default_rng(key(options.seed, "magic", pair)).permutation(count)
        for some in (np.sort(order[: count // 2]), np.sort(order[count // 2 :])):
            part = replace(run, rows=[run.rows[i] for i in some])
            found = derivatives(part, replay(flat, part))
            total = total if total.ndim else found.new_zeros(count, found.shape[1])
            total[some] += found / (options.draws // 2)
    return total


def _single(reader: Reader, queries: Sequence[Row], window: Window) -> list[TokenBatch]:
    """A batch for each query, in order, on the model's device."""
    found = (batch for query in queries for batch in reader.batches([query], window, "query"))
    return [batch.to(reader.loaded.device) for batch in found]


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
