"""GradDot, GradCos and TracIn: plain gradient similarity, computed as in RapidIn, whose baselines they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from headwater.core.spec import MethodSpec
from headwater.data.batches import CONTEXT, HALF
from headwater.methods import rapidin
from headwater.methods.method import FULL, Method, MethodEntry
from headwater.methods.rapidin import RapidInOptions


@dataclass(frozen=True)
class GradientOptions:
    """buckets, parameters, sketch, window, overlap, seed as in `rapidin`; sketch `identity` keeps whole gradients."""

    buckets: int = 65_536
    parameters: str = ""
    sketch: str = "shift"
    window: int = CONTEXT
    overlap: int = HALF
    seed: int = 0


@dataclass(frozen=True)
class TracInOptions(GradientOptions):
    """checkpoints: the folder of a `Recorder` or of a Trainer's `checkpoint-N`; empty: the model alone, weight 1.

    TracIn is Σ over checkpoints of learning rate × inner product of gradients; positive = proponent.
    """

    checkpoints: str = ""


def _method(name: str, normalize: str, options: GradientOptions) -> Method:
    inner = rapidin.rapidin(RapidInOptions(**asdict(options), normalize=normalize, tokens="row"))
    return replace(inner, spec=MethodSpec(name, asdict(options)))


_COMMON: dict[str, Any] = {
    "choices": {"sketch": rapidin.CHOICES["sketch"]},
    "reads": "one forward and one activation-only backward pass: gradients of all selected parameters",
    "source": "Pruthi et al., arXiv 2002.08484",
}

GRADDOT = MethodEntry(
    name="graddot",
    summary="Inner product of the two gradients, sketched.",
    stores="16 KiB; 256 KiB with preset=full",
    cost="about 3 forward passes",
    presets={"default": GradientOptions(), FULL: GradientOptions()},
    make=partial(_method, "graddot", "none"),
    code="int2:131072",
    **_COMMON,
)
GRADCOS = MethodEntry(
    name="gradcos",
    summary="Cosine of the two gradients, sketched.",
    stores="8 KiB; 128 KiB with preset=full",
    cost="about 3 forward passes",
    presets={"default": GradientOptions(), FULL: GradientOptions()},
    make=partial(_method, "gradcos", "row"),
    code="sign:65536",
    **_COMMON,
)
TRACIN = MethodEntry(
    name="tracin",
    summary="Inner products of gradients summed over recorded checkpoints with their learning rates, sketched.",
    stores="8 KiB a checkpoint; 256 KiB with preset=full",
    cost="about 3 forward passes a checkpoint",
    presets={"default": TracInOptions(), FULL: TracInOptions()},
    make=partial(_method, "tracin", "none"),
    recorded={"checkpoints": "."},
    code="sign:65536",
    **_COMMON,
)
