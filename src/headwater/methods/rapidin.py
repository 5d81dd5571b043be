"""RapidIn: token-wise influence from compressed, layer-normalised gradients (Lin et al., arXiv 2405.11724)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import cast

from headwater.core.spec import MethodSpec
from headwater.data.batches import Window
from headwater.features.checkpoints import Weights, over_checkpoints
from headwater.features.encoder import Encoder
from headwater.features.gradient_sketch import GradientSketch, TokenMode
from headwater.features.parameters import select_parameters
from headwater.methods.method import Method, MethodEntry, Vectors
from headwater.models.load import LoadedModel
from headwater.sketch.products import Normalization
from headwater.sketch.sketch import SKETCHES, make_sketch


@dataclass(frozen=True)
class RapidInOptions:
    """Every knob.

    buckets: numbers a row (2 bytes each). normalize: what is scaled to norm 1: `tensor`, `row` or `none`.
    parameters: comma-separated globs; empty: the adapter's, else all. sketch: `shift`, `hash`, `two-sided`,
    `rademacher` or `identity`. tokens: token scores normalised by `token` (the paper) or by `row` (they add up).
    window: most tokens read at a time; longer rows are read in several windows and their gradients added.
    checkpoints: the folder a `Recorder` wrote, whose models' scores are summed; empty: the model alone.
    weights: of checkpoints, their learning `rate` or `equal`.
    """

    buckets: int = 65_536
    normalize: str = "tensor"
    parameters: str = ""
    sketch: str = "shift"
    tokens: str = "token"
    window: int = 512
    overlap: int = 0
    checkpoints: str = ""
    weights: str = "rate"
    seed: int = 0


CHOICES = {
    "normalize": ("tensor", "row", "none"),
    "tokens": ("token", "row"),
    "sketch": tuple(SKETCHES),
    "weights": ("rate", "equal"),
}

PRESETS = {
    "default": RapidInOptions(),
    "small": RapidInOptions(buckets=16_384),
    "mlp": RapidInOptions(parameters="*.mlp.*"),
    "additive": RapidInOptions(tokens="row"),
}


def rapidin(options: RapidInOptions) -> Method:
    """The method with these options.

    Score: Σ over tensors of the cosine of the two gradients, estimated; positive = proponent. Cost: about one training
    step's forward and backward pass a row. Blind to parameters outside `parameters`, and to what moves only curvature.
    """
    window = Window(options.window, options.overlap)
    spec = MethodSpec("rapidin", asdict(options))
    vectors = Vectors(
        windows={"train": window, "query": window},
        bind=partial(_bind, options),
        exact=True,
        grids=not options.checkpoints,
        additive=options.tokens == "row",
        alike=True,
    )
    return Method(spec, vectors)


def _bind(options: RapidInOptions, loaded: LoadedModel) -> Encoder:
    if not options.checkpoints:
        return encoder(options, loaded)
    weights = cast(Weights, options.weights)
    return over_checkpoints(options.checkpoints, loaded, lambda at, _: encoder(options, at), weights=weights)


def encoder(options: RapidInOptions, loaded: LoadedModel) -> GradientSketch:
    """The encoder with these options on a model."""
    selection = select_parameters(loaded.model, options.parameters)
    return GradientSketch(
        loaded=loaded,
        selection=selection,
        sketch=make_sketch(options.sketch, selection.shapes, dim=options.buckets, seed=options.seed),
        normalize=cast(Normalization, options.normalize),
        tokens=cast(TokenMode, options.tokens),
    )


ENTRY = MethodEntry(
    name="rapidin",
    summary="Compressed gradients of every layer, each scaled to norm 1; answers by row, token and span.",
    reads="one forward and one activation-only backward pass: gradients of all selected parameters",
    stores="128 KiB",
    cost="about 3 forward passes",
    source="Lin et al., arXiv 2405.11724",
    presets=PRESETS,
    make=rapidin,
    choices=CHOICES,
)
