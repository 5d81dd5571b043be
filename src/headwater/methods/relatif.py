"""RelatIF: a row's influence on the query over its influence on everything (Barshan et al., arXiv 2003.11630)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from headwater.curvature.gram import Metric
from headwater.data.batches import CONTEXT, HALF
from headwater.features.encoder import Encoder
from headwater.methods import rapidin
from headwater.methods.method import FULL, Method, MethodEntry, method_of_vectors
from headwater.sketch.sketch import SKETCHES


@dataclass(frozen=True)
class RelatIFOptions:
    """form: `l` divides by the row's effect on all losses, `theta` by the distance it moves the parameters.

    dim: numbers a row. damping: λ as a share of the mean eigenvalue. parameters, sketch, window, overlap, seed as in
    `rapidin`.
    """

    form: str = "l"
    dim: int = 2048
    damping: float = 0.1
    parameters: str = ""
    sketch: str = "shift"
    window: int = CONTEXT
    overlap: int = HALF
    seed: int = 0


def relatif(o: RelatIFOptions) -> Method:
    """⟨g_row, H⁻¹ g_query⟩ / √(g_rowᵀ H⁻¹ g_row), or over ‖H⁻¹ g_row‖; H = G + λI; positive = proponent."""
    gradients = rapidin.RapidInOptions(o.dim, "none", o.parameters, o.sketch, "row", o.window, o.overlap, seed=o.seed)
    metric = Metric(o.damping, row_norm="metric" if o.form == "l" else "step")

    def metrics(encoder: Encoder) -> dict[str, Metric]:
        return {column.name: metric for column in encoder.columns}

    return method_of_vectors("relatif", o, partial(rapidin.encoder, gradients), metrics=metrics, alike=True)


ENTRY = MethodEntry(
    name="relatif",
    summary="Influence under the inverse second moment of sketched gradients, over the row's influence on everything.",
    reads="one forward and one activation-only backward pass: gradients of all selected parameters",
    stores="2 KiB; 8 KiB with preset=full",
    cost="about 3 forward passes, and 1 to 2 times dim² numbers a row for a search",
    source="Barshan et al., arXiv 2003.11630",
    presets={"default": RelatIFOptions(), FULL: RelatIFOptions(), "theta": RelatIFOptions(form="theta")},
    make=relatif,
    code="int4:16352",
    choices={"form": ("l", "theta"), "sketch": tuple(SKETCHES)},
)
