"""TrackStar: Adam-corrected, preconditioned, unit-norm gradients (Chang et al., arXiv 2410.17413)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from headwater.core.errors import UsageError
from headwater.curvature.moments import read_moments
from headwater.data.batches import CONTEXT, HALF
from headwater.features.parameters import select_parameters
from headwater.features.transformed_sketch import TransformedSketch
from headwater.methods.logra import layer_metric
from headwater.methods.method import FULL, Method, MethodEntry, method_of_vectors
from headwater.models.checkpoints import ADAM
from headwater.models.load import LoadedModel
from headwater.sketch.two_sided import TwoSided


@dataclass(frozen=True)
class TrackStarOptions:
    """adam: Adam's moments: the file that a `Recorder` wrote, or a Trainer's checkpoint folder or `optimizer.pt`.

    correction: `adam`, or `none` to read no moments.

    rank: a tensor's gradient is kept as rank × rank numbers. damping: λ as a share of a tensor's mean eigenvalue.
    parameters, window, overlap, seed as in `rapidin`.
    """

    adam: str = ""
    correction: str = "adam"
    rank: int = 16
    damping: float = 0.1
    parameters: str = ""
    window: int = CONTEXT
    overlap: int = HALF
    seed: int = 0


def trackstar(options: TrackStarOptions) -> Method:
    """The method with these options: the cosine of R^(−1/2) P(g / √v̂)Q of row and query; positive = proponent.

    Raises:
        UsageError: neither `adam` nor `correction=none` is given.
    """
    if options.correction == "adam" and not options.adam:
        remedy = "give adam=FILE from headwater.Recorder, or correction=none"
        raise UsageError("no moments of Adam to correct with", where="trackstar.adam", remedy=remedy)
    metrics = partial(layer_metric, damping=options.damping, unit=True)
    return method_of_vectors("trackstar", options, partial(_encoder, options), metrics=metrics, alike=True)


def _encoder(o: TrackStarOptions, loaded: LoadedModel) -> TransformedSketch:
    selection = select_parameters(loaded.model, o.parameters)
    sketch = TwoSided(selection.shapes, o.rank * o.rank * len(selection.shapes), o.seed)
    if o.correction == "none":
        return TransformedSketch(loaded, selection, sketch, {}, form="matrix")
    adam = read_moments(o.adam, loaded.model, selection.shapes)
    return TransformedSketch(loaded, selection, sketch, {"train": adam.scaled, "query": adam.scaled}, form="matrix")


ENTRY = MethodEntry(
    name="trackstar",
    summary="Projected gradients over Adam's second moment, whitened tensor by tensor, compared by cosine.",
    reads="one forward and one activation-only backward pass: gradients of all selected parameters, formed",
    stores="256 bytes a tensor; 1 KiB with preset=full",
    cost="about 3 forward passes, and forming every gradient once",
    source="Chang et al., arXiv 2410.17413",
    presets={"default": TrackStarOptions(), FULL: TrackStarOptions(), "plain": TrackStarOptions(correction="none")},
    make=trackstar,
    code="int8",
    choices={"correction": ("adam", "none")},
    recorded={"adam": ADAM},
)
