"""TRAK: the influence of a row on a linearised model, in closed form (Park et al., arXiv 2303.14186)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from headwater.curvature.gram import Metric
from headwater.data.batches import CONTEXT, HALF
from headwater.features.checkpoints import over_checkpoints
from headwater.features.encoder import Encoder
from headwater.features.gradient_sketch import GradientSketch
from headwater.features.parameters import select_parameters
from headwater.features.transformed_sketch import MarginSketch
from headwater.methods.method import FULL, Method, MethodEntry, method_of_vectors
from headwater.models.load import LoadedModel
from headwater.sketch.sketch import SKETCHES, make_sketch


@dataclass(frozen=True)
class TrakOptions:
    """dim: how many numbers are kept of a row's gradient. damping: λ as a share of the mean eigenvalue.

    checkpoints: a folder of models whose scores are averaged. parameters, sketch, window, overlap, seed as in
    `rapidin`.
    """

    dim: int = 2048
    damping: float = 0.1
    checkpoints: str = ""
    parameters: str = ""
    sketch: str = "shift"
    window: int = CONTEXT
    overlap: int = HALF
    seed: int = 0


def trak(options: TrakOptions) -> Method:
    """The method with these options: φ(query)ᵀ (ΦᵀΦ/n + λI)⁻¹ φ(row) · (1 − p(row)); positive = proponent."""

    def metrics(encoder: Encoder) -> dict[str, Metric]:
        return {column.name: Metric(options.damping, uncertain=True) for column in encoder.columns}

    return method_of_vectors("trak", options, partial(_bind, options), metrics=metrics, alike=True)


def _bind(options: TrakOptions, loaded: LoadedModel) -> Encoder:
    if not options.checkpoints:
        return _encoder(options, loaded)
    return over_checkpoints(options.checkpoints, loaded, lambda at, _: _encoder(options, at), weights="equal")


def _encoder(o: TrakOptions, loaded: LoadedModel) -> MarginSketch:
    selection = select_parameters(loaded.model, o.parameters)
    sketch = make_sketch(o.sketch, selection.shapes, dim=o.dim, seed=o.seed)
    return MarginSketch(GradientSketch(loaded, selection, sketch, normalize="none", tokens="row"))


ENTRY = MethodEntry(
    name="trak",
    summary="Sketched gradients of the margin under the inverse of their own second moment; averages over checkpoints.",
    reads="one forward and one activation-only backward pass: gradients of all selected parameters",
    stores="2 KiB a checkpoint; 8 KiB with preset=full",
    cost="about 3 forward passes a checkpoint, and dim² numbers for a search",
    source="Park et al., arXiv 2303.14186",
    presets={"default": TrakOptions(), FULL: TrakOptions()},
    make=trak,
    code="int4:16352",
    choices={"sketch": tuple(SKETCHES)},
)
