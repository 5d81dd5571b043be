"""LESS: the cosine of Adam's step on the row with the query's gradient (Xia et al., arXiv 2402.04333)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headwater.core.errors import UsageError
from headwater.curvature.moments import read_moments
from headwater.data.batches import CONTEXT, HALF
from headwater.features.checkpoints import over_checkpoints
from headwater.features.encoder import Encoder
from headwater.features.parameters import select_parameters
from headwater.features.transformed_sketch import TransformedSketch
from headwater.methods.method import FULL, Method, MethodEntry, method_of_vectors
from headwater.models.checkpoints import ADAM
from headwater.models.load import LoadedModel
from headwater.sketch.sketch import SKETCHES, make_sketch


@dataclass(frozen=True)
class LessOptions:
    """adam: Adam's moments: the file that a `Recorder` wrote, or a Trainer's checkpoint folder or `optimizer.pt`.

    checkpoints: instead of `adam`, the folder that a `Recorder` wrote, or one of a Trainer's `checkpoint-N` folders.

    bias: correct the moments for their start at zero. dim: numbers for each row and checkpoint. parameters, sketch,
    window, overlap, seed as in `rapidin`.
    """

    adam: str = ""
    checkpoints: str = ""
    bias: bool = True
    dim: int = 8192
    parameters: str = ""
    sketch: str = "shift"
    window: int = CONTEXT
    overlap: int = HALF
    seed: int = 0


def less(options: LessOptions) -> Method:
    """The method with these options: Σ_checkpoints η · cos(S Γ(∇L(row)), S ∇L(query)); positive = proponent.

    Raises:
        UsageError: not exactly one of `adam` and `checkpoints` is given.
    """
    if bool(options.adam) == bool(options.checkpoints):
        remedy = "give adam=FILE from headwater.Recorder, or checkpoints=FOLDER, not both"
        raise UsageError("LESS reads the moments of the Adam that trained the model", where="less.adam", remedy=remedy)
    return method_of_vectors("less", options, partial(_bind, options), additive=False)


def _bind(options: LessOptions, loaded: LoadedModel) -> Encoder:
    if options.adam:
        return _encoder(options, loaded, options.adam)
    return over_checkpoints(options.checkpoints, loaded, lambda at, c: _encoder(options, at, c.path))


def _encoder(o: LessOptions, loaded: LoadedModel, moments: str | Path) -> TransformedSketch:
    selection = select_parameters(loaded.model, o.parameters)
    adam = read_moments(moments, loaded.model, selection.shapes)
    sketch = make_sketch(o.sketch, selection.shapes, dim=o.dim, seed=o.seed)
    update = partial(adam.update, bias_correction=o.bias)
    return TransformedSketch(loaded, selection, sketch, {"train": update}, unit=True)


ENTRY = MethodEntry(
    name="less",
    summary="Cosine of the step Adam would take on the row with the query's gradient, sketched.",
    reads="one forward and one activation-only backward pass: gradients of all selected parameters, formed",
    stores="4 KiB a checkpoint; 16 KiB with preset=full",
    cost="about 3 forward passes a checkpoint, and forming every gradient once",
    source="Xia et al., arXiv 2402.04333",
    presets={"default": LessOptions(), FULL: LessOptions()},
    make=less,
    code="int4:32768",
    choices={"sketch": tuple(SKETCHES)},
    recorded={"adam": ADAM},
)
