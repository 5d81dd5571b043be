"""RapidIn: token-wise influence from compressed, layer-normalised gradients (Lin et al., arXiv 2405.11724)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

from headwater.data.batches import CONTEXT, HALF
from headwater.features.checkpoints import Weights, over_checkpoints
from headwater.features.encoder import Encoder
from headwater.features.gradient_sketch import GradientSketch, TokenMode
from headwater.features.parameters import select_parameters
from headwater.methods.method import FULL, Method, MethodEntry, method_of_vectors
from headwater.models.load import LoadedModel
from headwater.sketch.products import Normalization
from headwater.sketch.sketch import SKETCHES, make_sketch


@dataclass(frozen=True)
class RapidInOptions:
    """All options.

    buckets: how many numbers are kept of a row's gradient (2 bytes each). normalize: what is scaled to norm 1: the
    gradient of each `tensor`, the whole `row`, or `none`. parameters: comma-separated globs; empty selects those of the
    adapter, or all if there is no adapter. sketch: `shift`, `hash`, `two-sided`, `rademacher` or `identity`. tokens:
    normalise token scores by `token` (the paper) or by `row` (then they sum to the row's score). window: how many
    tokens are read together; 0 for as many as the model's context holds. A longer row is read in several windows and
    their gradients are added. overlap: how many tokens two windows share; -1 for as much text before each target as
    fits, at least half a window. checkpoints: the folder of a `Recorder` or of a Trainer's `checkpoint-N`, whose scores
    are summed; empty for the model alone. weights: weight checkpoints by their learning `rate` or `equal`.
    """

    buckets: int = 65_536
    normalize: str = "tensor"
    parameters: str = ""
    sketch: str = "shift"
    tokens: str = "token"
    window: int = CONTEXT
    overlap: int = HALF
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
    FULL: RapidInOptions(),
    "small": RapidInOptions(buckets=16_384),
    "mlp": RapidInOptions(parameters="*.mlp.*"),
    "additive": RapidInOptions(tokens="row"),
}


def rapidin(options: RapidInOptions) -> Method:
    """The method with these options.

    Score: Σ over tensors of the cosine of the two gradients, estimated; positive = proponent. Cost: about one training
    step's forward and backward pass a row. Blind to parameters outside `parameters`, and to effects of second order.
    """
    grids, additive = not options.checkpoints, options.tokens == "row"
    bind = partial(_bind, options)
    return method_of_vectors("rapidin", options, bind, exact=True, grids=grids, additive=additive, alike=True)


def _bind(options: RapidInOptions, loaded: LoadedModel) -> Encoder:
    if not options.checkpoints:
        return encoder(options, loaded)
    weights = cast(Weights, options.weights)
    return over_checkpoints(options.checkpoints, loaded, lambda at, _: encoder(options, at), weights=weights)


def encoder(options: RapidInOptions, loaded: LoadedModel) -> GradientSketch:
    """The encoder with these options for a model."""
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
    stores="8 KiB; 128 KiB with preset=full",
    cost="about 3 forward passes",
    source="Lin et al., arXiv 2405.11724",
    presets=PRESETS,
    make=rapidin,
    choices=CHOICES,
    code="sign:65536",
)
