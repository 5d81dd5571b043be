"""TRAK: the influence of a row on a linearised model, in closed form (Park et al., arXiv 2303.14186)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

from headwater.core.spec import MethodSpec
from headwater.curvature.gram import Metric
from headwater.data.batches import Window
from headwater.features.checkpoints import over_checkpoints
from headwater.features.encoder import Encoder
from headwater.features.gradient_sketch import GradientSketch
from headwater.features.parameters import select_parameters
from headwater.features.transformed_sketch import MarginSketch
from headwater.methods.method import Method, MethodEntry, Vectors
from headwater.models.load import LoadedModel
from headwater.sketch.sketch import SKETCHES, make_sketch


@dataclass(frozen=True)
class TrakOptions:
    """dim: numbers a row. damping: λ as a share of the mean eigenvalue. checkpoints: a folder of models to average.

    parameters, sketch, window, overlap, seed as in `rapidin`.
    """

    dim: int = 2048
    damping: float = 0.1
    checkpoints: str = ""
    parameters: str = ""
    sketch: str = "shift"
    window: int = 512
    overlap: int = 0
    seed: int = 0


def trak(options: TrakOptions) -> Method:
    """The method with these options: φ(query)ᵀ (ΦᵀΦ/n + λI)⁻¹ φ(row) · (1 − p(row)); positive = proponent."""
    window = Window(options.window, options.overlap)
    vectors = Vectors(
        windows={"train": window, "query": window},
        bind=partial(_bind, options),
        metrics=lambda encoder: {c.name: Metric(options.damping, uncertain=True) for c in encoder.columns},
        alike=True,
    )
    return Method(MethodSpec("trak", asdict(options)), vectors)


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
    stores="8 KiB a checkpoint",
    cost="about 3 forward passes a checkpoint, and dim² numbers for a search",
    source="Park et al., arXiv 2303.14186",
    presets={"default": TrakOptions()},
    make=trak,
    choices={"sketch": tuple(SKETCHES)},
)
