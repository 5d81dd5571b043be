"""LinFiK: how much one step on a row would lower a target's loss, to first order (Pan et al., arXiv 2503.01052).

    future influence   FIK(z) = L_t(θ) − L_t(θ − η∇l(z))
    gradient form             ⟨∇L_t(θ), ∇l(z)⟩
    forward form              [l(z; θ) − l(z; θ − η∇L_t(θ))] / η

L_t is the mean loss of the target's rows, l a row's. The three agree as η → 0. The paper's abstract and figures state
the kernel; that these equations are its body's is our reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from headwater.core.errors import UsageError
from headwater.core.spec import MethodSpec
from headwater.data.batches import Window
from headwater.data.rows import Row
from headwater.features.perturbed import Direction, Movable
from headwater.methods import rapidin
from headwater.methods.forward_difference import ForwardDifference, choose_distance
from headwater.methods.method import Method, MethodEntry
from headwater.methods.rapidin import RapidInOptions
from headwater.methods.targets import Part, Target, split_folds
from headwater.models.reader import Reader

SAMPLE = 32
"""Rows of the pool on which the forward form chooses its distance."""


@dataclass(frozen=True)
class LinFiKOptions:
    """Every knob.

    form: `forward` (one backward pass over the target, then 1 + folds forward passes a row) or `gradient` (sketched
    per-row gradients; the standard error is then over single target rows). cosine: of the two gradients instead of
    their inner product; gradient form only. folds: into how many folds a target is split, whose spread gives the
    standard error; 1 costs two forward passes and tells no error. distance: how far the weights move, η·‖∇L_t‖;
    0 chooses it on a sample of the pool. parameters, window, overlap as in `rapidin`; buckets, sketch, seed are those
    of the gradient form.
    """

    form: str = "forward"
    cosine: bool = False
    folds: int = 4
    distance: float = 0.0
    parameters: str = ""
    window: int = 512
    overlap: int = 0
    buckets: int = 65_536
    sketch: str = "shift"
    seed: int = 0


PRESETS = {
    "default": LinFiKOptions(),
    "fast": LinFiKOptions(folds=1),
    "gradient": LinFiKOptions(form="gradient"),
    "cosine": LinFiKOptions(form="gradient", cosine=True),
}


def linfik(options: LinFiKOptions) -> Method:
    """The method with these options.

    Score: the fall of the target's mean loss per unit of learning rate (nats); positive = the row helps. Blind to what
    moves only curvature, and to parameters outside `parameters`.
    """
    spec = MethodSpec("linfik", asdict(options))
    if options.form == "gradient":
        return replace(rapidin.rapidin(_gradient_form(options)), spec=spec)
    if options.cosine:
        remedy = "set form=gradient"
        raise UsageError("the forward form knows no row's gradient norm", where="linfik.cosine", remedy=remedy)
    if options.folds < 1 or options.distance < 0:
        what = f"{options.folds} folds at a distance of {options.distance}"
        raise UsageError(what, where="linfik", remedy="at least one fold, and a distance above 0 or 0 for automatic")
    return Method(spec, scoring=partial(_forward_form, options), fit_rows=SAMPLE)


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
) -> ForwardDifference:
    """One backward pass over every fold of every target, a distance, and the moved weights."""
    window = Window(options.window, options.overlap)
    movable = Movable.select(reader.loaded, options.parameters)
    parts: list[Part] = []
    directions: list[Direction] = []
    for target in targets:
        for fold in split_folds(target.rows, options.folds):
            parts.append(Part(target.name, len(fold)))
            directions.append(movable.direction(reader.batches(fold, window, "query")))
    choice = choose_distance(movable, directions[0], reader, sample, window=window, distance=options.distance)
    moved = tuple((movable.moved(d, choice.distance), choice.distance / d.norm) for d in directions)
    return ForwardDifference(movable, reader, window, moved, tuple(parts), choice)


ENTRY = MethodEntry(
    name="linfik",
    summary="First-order future influence: what one step on the row would take off the target's loss.",
    reads="one backward pass over the target, then forward passes (or, form=gradient, per-row gradients)",
    cost="1 + folds forward passes; preset fast: 2",
    source="Pan et al., arXiv 2503.01052",
    presets=PRESETS,
    make=linfik,
    as_vectors={"form": "gradient"},
    choices={"form": ("forward", "gradient"), "sketch": rapidin.CHOICES["sketch"]},
)
