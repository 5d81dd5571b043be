"""How strong a change of the weights should be is sought under the same constraint as a training.

Methods that change a model at one stroke have a strength: Fisher dampening its α, a task vector the factor with which
it is subtracted. Each strength is tried on the model as it was, from the mildest on. A training that forgot, but beyond
the bound or at the cost of language, is drawn back: the model is put on the straight line between before and after,
nearer and nearer to before. The watch measures each state as it measures a training, and keeps the best within the
bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater.unlearning.adapter import restore_state
from headwater.unlearning.watch import Watch

FACTORS = tuple(0.125 * 2**i for i in range(12))
"""The factors with which a task vector is subtracted: an eighth to 256."""

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""The shares of a training's change at which a model is measured when it is drawn back."""


@dataclass(frozen=True)
class Strength:
    """The result of a search: the strength of the state that was kept (None: nothing was changed), and its place."""

    value: float | None
    place: int


def search_strength(
    model: Any, apply: Callable[[float], object], strengths: Sequence[float], watch: Watch, *, start: dict[str, Tensor]
) -> Strength:
    """Try strengths from the mildest on, until the behaviour is gone or the bound is passed; keep the best state.

    Args:
        model: the model, changed in place.
        apply: changes the model, which is as it was before, with a strength.
        strengths: what to try, the mildest first.
        watch: measures each state; reading i + 1 is that of strength i.
        start: the trainable state before any change.
    """
    restore_state(model, start)
    watch.stop = True
    ended = watch.look(model, 0)
    for place, strength in enumerate(strengths, start=1):
        if ended:
            break
        restore_state(model, start)
        apply(strength)
        ended = watch.look(model, place)
    watch.finish(model)
    place = 0 if watch.best is None else watch.best.step
    return Strength(strengths[place - 1] if place else None, place)


def draw_back(model: Any, start: dict[str, Tensor], watch: Watch) -> float | None:
    """Draw a trained model back towards `start`, and leave it in the best state that the watch has seen.

    It begins where the behaviour was last gone, and ends where it comes back. Harm to other rows falls faster than the
    change (it is of second order at first), while the behaviour stays gone for a while.

    Returns:
        The share of the change in the state that is kept; None if a state of the training was the best.
    """
    reached, steps, best, multiplier = watch.gone, watch.readings[-1].step, watch.best, watch.multiplier
    watch.outcome, watch.multiplier, kept = "steps", None, None
    for share in SHARES:
        subtract(model, start, reached, factor=-share)
        watch.look(model, steps)
        if watch.best is not best:
            best, kept = watch.best, share
        if not watch.readings[-1].reaches(watch.limits):
            break
    watch.multiplier = multiplier
    watch.finish(model)
    return kept


def subtract(model: Any, before: dict[str, Tensor], after: dict[str, Tensor], *, factor: float) -> None:
    """Set θ ← θ_before − factor · (θ_after − θ_before) in place.

    Of an adapter's two matrices only B moves: A starts at random and B at zero, so the change is that of their product.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in before:
                learnt, old = after[name].to(parameter), before[name].to(parameter)
                parameter.copy_(learnt if ".lora_A." in name else old - factor * (learnt - old))
