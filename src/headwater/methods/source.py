"""SOURCE: influence through the training run, in a few segments that are unrolled in closed form (arXiv 2405.12186)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from headwater.core.errors import UsageError
from headwater.core.spec import MethodSpec
from headwater.curvature.moments import read_moments
from headwater.curvature.unrolling import Fit, Segment, flat_segment
from headwater.data.batches import CONTEXT, TokenBatch, Window
from headwater.data.rows import Row
from headwater.features.capture import visit_gradients
from headwater.features.exact import products_with, whole_gradients
from headwater.features.parameters import select_parameters
from headwater.features.sites import ParameterSelection
from headwater.methods.ekfac import EkfacOptions, labelled
from headwater.methods.method import Method, MethodEntry
from headwater.methods.targets import RowScorer, Target, laid_out
from headwater.models.checkpoints import Checkpoint, load_checkpoint, read_checkpoints
from headwater.models.load import LoadedModel
from headwater.models.reader import Reader
from headwater.sketch.blocks import Gradient


@dataclass(frozen=True)
class SourceOptions:
    """checkpoints: the folder of a `Recorder`, or of a Trainer's `checkpoint-N`. segments: of the run, at most one for
    each checkpoint. curved: False takes the curvature to be 0, so that the score is the sum over checkpoints of
    τ ⟨row's gradient, D · query's gradient⟩, with Adam's scaling D: exact for a single step. adam: the checkpoints hold
    Adam's moments; False is for a run by another optimiser, and takes D to be 1. fit_rows: at most so many rows fit the
    curvature. parameters, window, seed as in `rapidin`.
    """

    checkpoints: str = ""
    segments: int = 3
    curved: bool = True
    adam: bool = True
    fit_rows: int = 512
    parameters: str = ""
    window: int = CONTEXT
    seed: int = 0


@dataclass(frozen=True)
class _Stop:
    """One checkpoint, and what reads it."""

    checkpoint: Checkpoint
    loaded: LoadedModel
    selection: ParameterSelection


def source(options: SourceOptions) -> Method:
    """The method with these options; positive = proponent.

    Score: Σ_segments ⟨mean over the segment's checkpoints of ∇L(row), what the segment does with it⟩, where L(row) is
    the sum over the row's target tokens.

    Raises:
        UsageError: `checkpoints` is not given, or `segments` is below 1.
    """
    if not options.checkpoints or options.segments < 1:
        remedy = "give checkpoints=FOLDER, as a recorded training run leaves it, and segments above 0"
        raise UsageError("the training run is unrolled", where="source.checkpoints", remedy=remedy)

    def scoring(reader: Reader, targets: Sequence[Target], sample: Sequence[Row]) -> RowScorer:
        window, queries = Window(options.window), laid_out(targets)
        stops = [_stop(checkpoint, reader.loaded, options) for checkpoint in read_checkpoints(options.checkpoints)]
        selection = select_parameters(reader.loaded.model, options.parameters)
        asked = reader.batches(queries, window, "query")
        ends = whole_gradients(reader.loaded, selection, asked, len(queries))
        fitted = reader.batches(sample, window)
        probes: list[tuple[Sequence[_Stop], dict[str, Tensor]]] = []
        for part, time in reversed(_parts(stops, options.segments)):
            segment = _fit(part, time, fitted, options) if options.curved else flat_segment(_roots(part, options), time)
            probes.append((part, segment.of_gradients(ends)))
            ends = segment.at_start(ends)

        def score(rows: Sequence[Row]) -> np.ndarray:
            batches = reader.batches(rows, window)
            total = torch.zeros(len(rows), len(queries))
            for part, probe in probes:
                for stop in part:
                    total += products_with(stop.loaded, stop.selection, batches, probe, len(rows)) / len(part)
            counts = np.empty((len(rows), 1), np.float32)
            for batch in batches:
                counts[[row.row.ordinal for row in batch.rows], 0] = batch.target_counts.float().cpu().numpy()
            return np.asarray(total.numpy() * counts)

        notes = {"coverage": str(selection.coverage), "checkpoints": len(stops), "fitted on rows": len(sample)}
        return RowScorer(targets, score, notes)

    fit_rows = options.fit_rows if options.curved else 0
    return Method(MethodSpec("source", asdict(options)), scoring=scoring, fit_rows=fit_rows)


def _stop(checkpoint: Checkpoint, loaded: LoadedModel, options: SourceOptions) -> _Stop:
    there = load_checkpoint(checkpoint, loaded)
    return _Stop(checkpoint, there, select_parameters(there.model, options.parameters))


def _parts(stops: Sequence[_Stop], segments: int) -> list[tuple[Sequence[_Stop], float]]:
    """The checkpoints of each segment, with the sum of the learning rates from the end of the segment before it."""
    found: list[tuple[Sequence[_Stop], float]] = []
    before = 0
    for some in np.array_split(np.arange(len(stops)), min(segments, len(stops))):
        part = [stops[i] for i in some]
        time = 0.0
        for stop in part:
            time += (stop.checkpoint.step - before) * stop.checkpoint.learning_rate
            before = stop.checkpoint.step
        found.append((part, time))
    return found


def _fit(part: Sequence[_Stop], time: float, batches: Sequence[TokenBatch], options: SourceOptions) -> Segment:
    """The segment's curvature, from rows whose tokens are sampled from the model at each of its checkpoints."""
    fit = Fit(_roots(part, options), sum(int(batch.target_counts.sum()) for batch in batches) * len(part))
    drawn = [
        (stop, [labelled(stop.loaded, b.to(stop.loaded.device), EkfacOptions(seed=options.seed)) for b in batches])
        for stop in part
    ]
    return fit.run([partial(_visit, stop, rows) for stop, rows in drawn], time)


def _visit(stop: _Stop, rows: Sequence[TokenBatch], visit: Callable[[Gradient], None]) -> None:
    for batch in rows:
        visit_gradients(
            stop.loaded.model, stop.selection, batch, visit, weights=batch.target_counts.float(), head="tokens"
        )


def _roots(part: Sequence[_Stop], options: SourceOptions) -> dict[str, Tensor]:
    """D^½ of each tensor as a matrix: the mean over the checkpoints; 1 for a run without Adam."""
    found: dict[str, Tensor] = {}
    for stop in part:
        shapes, turned = stop.selection.shapes, stop.selection.transposed
        adam = read_moments(stop.checkpoint.path, stop.loaded.model, shapes) if options.adam else None
        for name, shape in shapes.items():
            one = torch.ones(shape[::-1] if name in turned else shape)  # in the parameter's own layout
            root = (adam.scaled(name, one[None])[0] if adam else one).sqrt()
            root = (root.mT if name in turned else root).reshape((1, *shape) if len(shape) == 1 else shape)
            found[name] = found.get(name, 0) + root.to(stop.loaded.device) / len(part)
    return found


ENTRY = MethodEntry(
    name="source",
    summary="Influence through the training run: a few segments of it, each unrolled in closed form.",
    reads="one forward and one backward pass at each checkpoint; two more at each to fit",
    cost="about 3 forward passes a checkpoint, 9 a checkpoint for each row fitted on",
    source="Bae et al., arXiv 2405.12186",
    presets={"default": SourceOptions(), "first-order": SourceOptions(curved=False, segments=64)},
    make=source,
    recorded={"checkpoints": "."},
)
