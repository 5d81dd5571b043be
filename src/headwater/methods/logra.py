"""LoGra: layer gradients through two small projections, preconditioned by layer (Choe et al., arXiv 2405.13954)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from headwater.curvature.gram import Metric, Norm
from headwater.data.batches import CONTEXT, HALF
from headwater.features.gradient_sketch import GradientSketch
from headwater.features.parameters import select_linear
from headwater.methods.method import FULL, Method, MethodEntry, method_of_vectors
from headwater.models.load import LoadedModel
from headwater.sketch.two_sided import TwoSided


@dataclass(frozen=True)
class LograOptions:
    """rank: a layer's gradient is kept as rank × rank numbers. damping: λ as a share of a layer's mean eigenvalue.

    unit: divide by both vectors' norms in the metric, which gives a cosine. parameters, window, overlap, seed as in
    `rapidin`; only weights of linear layers are read.
    """

    rank: int = 16
    damping: float = 0.1
    unit: bool = False
    parameters: str = ""
    window: int = CONTEXT
    overlap: int = HALF
    seed: int = 0


def logra(options: LograOptions) -> Method:
    """The method with these options: Σ over layers l of ⟨P g_row Q, (G_l + λI)⁻¹ P g_query Q⟩; positive = proponent."""
    metrics = partial(layer_metric, damping=options.damping, unit=options.unit)
    return method_of_vectors("logra", options, partial(_encoder, options), metrics=metrics, alike=True)


def layer_metric(encoder: Any, damping: float, *, unit: bool) -> dict[str, Metric]:
    """A metric with one Gram matrix for each tensor's part of a two-sided sketch; with `unit`, scores are cosines."""
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
    stores="2 KiB; 1 KiB a tensor with preset=full",
    cost="about 3 forward passes",
    source="Choe et al., arXiv 2405.13954",
    presets={"default": LograOptions(), FULL: LograOptions(), "relative": LograOptions(unit=True)},
    make=logra,
    code="int4:16352",
)
