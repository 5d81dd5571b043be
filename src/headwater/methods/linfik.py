"""LinFiK: how much one step on a row would lower a target's loss, to first order (Pan et al., arXiv 2503.01052).

    future influence   FIK(z) = L_t(θ) − L_t(θ − η∇l(z))
    gradient form             ⟨∇L_t(θ), ∇l(z)⟩
    forward form              [l(z; θ) − l(z; θ − η∇L_t(θ))] / η

L_t is the mean loss of the target's rows, l the loss of a row. The three agree as η → 0. We know the kernel from the
paper's abstract and figures, and assume that its body has these equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from headwater.core.errors import UsageError
from headwater.core.spec import MethodSpec
from headwater.data.batches import CONTEXT, HALF, Window
from headwater.data.rows import Row
from headwater.features.perturbed import Movable
from headwater.methods import rapidin
from headwater.methods.forward_difference import choose_distance, forward_scorer
from headwater.methods.method import Method, MethodEntry
from headwater.methods.rapidin import RapidInOptions
from headwater.methods.targets import Part, PartScorer, Target, evenly_spaced, split_folds
from headwater.models.reader import Reader

SAMPLE = 32
"""How many rows of the pool the forward form chooses its distance on."""

MOMENTS, STEP = 256, 16
"""Rows of the pool, and rows of a step, that AdamW's second moments are estimated from."""

_PLAIN = "set weigh=rows and optimizer=plain, or use the forward form, which needs no vectors of rows"

WEIGHS, OPTIMIZERS = ("rows", "tokens"), ("plain", "adam")


@dataclass(frozen=True)
class LinFiKOptions:
    """All options.

    form: `forward` (one backward pass over the target, then 1 + folds forward passes a row) or `gradient` (sketched
    per-row gradients; the standard error is then over single target rows). cosine: take the cosine of the two gradients
    instead of their inner product; gradient form only. folds: a target is split into this many folds, and their spread
    gives the standard error; 1 costs two forward passes and gives no standard error. weigh: the target's loss is the
    mean over its `rows`, or over its `tokens` as in most trainings; forward form only. optimizer: a step on a row is
    one of `plain` gradient descent, or of `adam`, which divides each entry of the gradient by its usual size on rows of
    the pool; forward form only. distance: how far the weights move, η·‖∇L_t‖; 0 chooses it on a sample of the pool.
    parameters, window, overlap as in `rapidin`; buckets, sketch and seed as in `rapidin` too, for the gradient form.
    """

    form: str = "forward"
    cosine: bool = False
    folds: int = 4
    weigh: str = "rows"
    optimizer: str = "plain"
    distance: float = 0.0
    parameters: str = ""
    window: int = CONTEXT
    overlap: int = HALF
    buckets: int = 65_536
    sketch: str = "shift"
    seed: int = 0


PRESETS = {
    "default": LinFiKOptions(),
    "fast": LinFiKOptions(folds=1),
    "training": LinFiKOptions(weigh="tokens", optimizer="adam"),
    "gradient": LinFiKOptions(form="gradient"),
    "cosine": LinFiKOptions(form="gradient", cosine=True),
}


def linfik(options: LinFiKOptions) -> Method:
    """The method with these options.

    Score: how much the target's mean loss falls per unit of learning rate (nats); positive = the row helps. Blind to
    effects of second order, and to parameters outside `parameters`.

    Raises:
        UsageError: `cosine` with the forward form, fewer than 1 fold, or a negative distance.
    """
    spec = MethodSpec("linfik", asdict(options))
    if options.form == "gradient" and (options.weigh != "rows" or options.optimizer != "plain"):
        what = f"the gradient form weighs a target's rows alike and takes a plain step, not {options.weigh}"
        raise UsageError(f"{what} and {options.optimizer}", where="linfik", remedy=_PLAIN)
    if options.form == "gradient":
        return replace(rapidin.rapidin(_gradient_form(options)), spec=spec)
    if options.cosine:
        what = "the forward form does not compute the norms of rows' gradients"
        raise UsageError(what, where="linfik.cosine", remedy="set form=gradient")
    if options.folds < 1 or options.distance < 0:
        what = f"{options.folds} folds at a distance of {options.distance}"
        raise UsageError(what, where="linfik", remedy="at least one fold, and a distance above 0 or 0 for automatic")
    fit_rows = MOMENTS if options.optimizer == "adam" else SAMPLE
    return Method(spec, scoring=partial(_forward_form, options), fit_rows=fit_rows)


def _gradient_form(options: LinFiKOptions) -> RapidInOptions:
    return RapidInOptions(
        buckets=options.buckets,
        normalize="row" if options.cosine else "none",
        parameters=options.parameters,
        sketch=options.sketch,
        tokens="row",
        window=options.window,
        overlap=options.overlap,
        seed=options.seed,
    )


def _forward_form(
    options: LinFiKOptions, reader: Reader, targets: Sequence[Target], sample: Sequence[Row]
) -> PartScorer:
    """Make the scorer: one backward pass over every fold of every target, choose a distance, and move the weights."""
    window = Window(options.window, options.overlap)
    movable = Movable.select(reader.loaded, options.parameters)
    scale = None
    if options.optimizer == "adam":
        steps = [sample[start : start + STEP] for start in range(0, len(sample), STEP)]
        scale = movable.adam_scale([reader.batches(step, window) for step in steps])
    moves = []
    for target in targets:
        tokens = 0.0
        if options.weigh == "tokens":
            tokens = float(np.mean([row.response.sum() for row in reader.tokenize(target.rows, "query")]))
        for fold in split_folds(target.rows, options.folds):
            batches = reader.batches(fold, window, "query")
            moves.append((Part(target.name, len(fold)), movable.direction(batches, tokens_a_row=tokens, scale=scale)))
    rows = evenly_spaced(sample, SAMPLE)
    choice = choose_distance(movable, moves[0][1], reader, rows, window=window, distance=options.distance)
    return forward_scorer(movable, moves, reader, window, choice)


ENTRY = MethodEntry(
    name="linfik",
    summary="First-order future influence: what one step on the row would take off the target's loss.",
    reads="one backward pass over the target, then forward passes (or, form=gradient, per-row gradients)",
    cost="1 + folds forward passes; preset fast: 2",
    source="Pan et al., arXiv 2503.01052",
    presets=PRESETS,
    make=linfik,
    as_vectors={"form": "gradient"},
    choices={
        "form": ("forward", "gradient"),
        "weigh": WEIGHS,
        "optimizer": OPTIMIZERS,
        "sketch": rapidin.CHOICES["sketch"],
    },
)
