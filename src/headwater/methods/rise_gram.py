"""RISE under the inverse second moment of its own vectors, so that what all rows' gradients have in common counts less.

The vectors are those of [RISE](https://arxiv.org/abs/2604.16197) with narrower sketches; the metric is that of TRAK and
LoGra. Both parts are known; the combination is headwater's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from headwater.core.spec import MethodSpec
from headwater.curvature.gram import Metric, Norm
from headwater.data.batches import CONTEXT, HALF
from headwater.methods.method import FULL, Method, MethodEntry
from headwater.methods.rise import RiseOptions, rise


@dataclass(frozen=True)
class RiseGramOptions:
    """width: of each sketched side of the two channels, which have width² and width²/2 numbers.

    damping, unit as in `logra`; window, overlap, seed as in `rise`, and so is slope, which the preset sets.
    """

    width: int = 40
    damping: float = 10.0
    unit: bool = True
    window: int = CONTEXT
    overlap: int = HALF
    seed: int = 0
    slope: bool = False


def rise_gram(o: RiseGramOptions) -> Method:
    """The method with these options: cosine (or product) of two RISE vectors under (G + λI)⁻¹; positive = proponent."""
    narrow = RiseOptions(width_r=o.width, width_h=o.width, width_g=o.width // 2, embedding="none")
    narrow = replace(narrow, window=o.window, overlap=o.overlap, seed=o.seed, slope=o.slope)
    norm: Norm = "metric" if o.unit else "none"
    vectors = replace(
        rise(narrow).require_vectors(),
        metrics=lambda encoder: {c.name: Metric(o.damping, row_norm=norm, query_norm=norm) for c in encoder.columns},
    )
    return Method(MethodSpec("rise-gram", asdict(o)), vectors)


ENTRY = MethodEntry(
    name="rise-gram",
    summary="RISE's vectors, narrower, under the inverse of their own second moment.",
    reads="one forward pass: hidden states and logits",
    stores="2 KiB; 4.7 KiB with preset=full",
    cost="1.1 to 2 forward passes, and dim² numbers for a search",
    source="Ran et al., arXiv 2604.16197, with the metric of arXiv 2303.14186",
    presets={"default": RiseGramOptions(slope=True), FULL: RiseGramOptions(slope=True)},
    make=rise_gram,
    code="int4:16352",
)
