"""LoGra: layer gradients through two small projections, preconditioned by layer (Choe et al., arXiv 2405.13954)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from headwater.core.spec import MethodSpec
from headwater.curvature.gram import Metric, Norm
from headwater.data.batches import Window
from headwater.features.gradient_sketch import GradientSketch
from headwater.features.parameters import select_linear
from headwater.methods.method import Method, MethodEntry, Vectors
from headwater.models.load import LoadedModel
from headwater.sketch.two_sided import TwoSided


@dataclass(frozen=True)
class LograOptions:
    """rank: a layer's gradient is kept as rank × rank numbers. damping: λ as a share of a layer's mean eigenvalue.

    unit: divide by both vectors' norms in the metric (a cosine, as in relative influence). parameters, window, overlap,
    seed as in `rapidin`; only weights of linear layers are read.
    """

    rank: int = 16
    damping: float = 0.1
    unit: bool = False
    parameters: str = ""
    window: int = 512
    overlap: int = 0
    seed: int = 0


def logra(options: LograOptions) -> Method:
    """The method with these options: Σ over layers l of ⟨P g_row Q, (G_l + λI)⁻¹ P g_query Q⟩; positive = proponent."""
    window = Window(options.window, options.overlap)
    vectors = Vectors(
        windows={"train": window, "query": window},
        bind=partial(_encoder, options),
        metrics=partial(layer_metric, damping=options.damping, unit=options.unit),
        alike=True,
    )
    return Method(MethodSpec("logra", asdict(options)), vectors)


def layer_metric(encoder: Any, damping: float, *, unit: bool) -> dict[str, Metric]:
    """One Gram matrix for each tensor's places of a two-sided sketch; `unit` makes a cosine of the product."""
    (column,) = encoder.columns
    norm: Norm = "metric" if unit else "none"
    return {column.name: Metric(damping, encoder.sketch.blocks, row_norm=norm, query_norm=norm)}


def _encoder(o: LograOptions, loaded: LoadedModel) -> GradientSketch:
    selection = select_linear(loaded.model, o.parameters)
    sketch = TwoSided(selection.shapes, o.rank * o.rank * len(selection.shapes), o.seed)
    return GradientSketch(loaded, selection, sketch, normalize="none", tokens="row")


ENTRY = MethodEntry(
    name="logra",
    summary="Two-sided projections of every linear layer's gradient, under the inverse second moment of each layer.",
    reads="one forward and one activation-only backward pass: gradients of linear layers",
    stores="1 KiB a tensor",
    cost="about 3 forward passes",
    source="Choe et al., arXiv 2405.13954",
    presets={"default": LograOptions(), "relative": LograOptions(unit=True)},
    make=logra,
)
