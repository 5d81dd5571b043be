"""LoRIF: LoGra with wider projections, stored as factors of low rank (Li, Le, Xu and Salzmann, arXiv 2601.21929).

The metric is LoGra's, fitted on the stored rows layer by layer. The paper's truncated singular value decomposition of
it, which saves memory from sides of some hundreds on, is not used.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from headwater.core.spec import MethodSpec
from headwater.methods.logra import LograOptions, logra
from headwater.methods.method import FULL, Method, MethodEntry


@dataclass(frozen=True)
class LorifOptions(LograOptions):
    """rank: a layer's gradient is projected to rank × rank numbers, of which an index stores factors of rank 1.

    damping, unit, parameters, window, overlap, seed as in `logra`.
    """

    rank: int = 32


def lorif(options: LorifOptions) -> Method:
    """The method with these options: Σ over layers l of u_rowᵀ Q v_row, Q = (G_l + λI)⁻¹ of the query's projected
    gradient and u_row v_rowᵀ the row's, of rank 1; positive = proponent.
    """
    return replace(logra(options), spec=MethodSpec("lorif", asdict(options)))


ENTRY = MethodEntry(
    name="lorif",
    summary="LoGra with wider projections, of which low-rank factors are stored.",
    reads="one forward and one activation-only backward pass: gradients of linear layers",
    stores="128 bytes a tensor",
    cost="about 3 forward passes",
    source="Li et al., arXiv 2601.21929",
    presets={"default": LorifOptions(), FULL: LorifOptions(), "relative": LorifOptions(unit=True)},
    make=lorif,
    code="factors",
)
