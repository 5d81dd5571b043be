"""What is minimised: each method is one value, a loss for every row of a batch.

L is a row's negative log-likelihood in nats summed over its response tokens, L̄ its mean per token, `ref` the model
before. A batch's loss is

    c_F · (1/n_F) Σ over its forget rows of w_i · term(row)  +  c_R · (1/n_R) Σ over its retain rows of w_j · L̄_j

with n_F and n_R the numbers of such rows in a whole step, so that a method is its term, its two shares and where its
weights come from. Sources: GA (Jang et al., arXiv 2210.01504), GradDiff (Liu et al., 2203.12817), NPO (Zhang et al.,
2404.05868), SimNPO (Fan et al., 2410.07163), LoReUn (Li et al., 2507.22499), RapidUn (Zhao et al., 2512.04457).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from headwater.core.errors import UsageError, unknown_name

PerRow = Float[Tensor, " rows"]


@dataclass(frozen=True)
class RowLosses:
    """What a batch's rows lose.

    Attributes:
        total: L, nats, summed over response tokens.
        mean: L̄, nats a token.
        reference: L under the model before; constant.
        clean: L̄ of the right answer behind the same prompt; 0 where none is known.
        forget: which rows are to be forgotten.
        weight: w.
        divergence: KL(ref ‖ model), nats a token; None unless the retain rows are held by it.
    """

    total: PerRow
    mean: PerRow
    reference: PerRow
    clean: PerRow
    forget: Bool[Tensor, " rows"]
    weight: PerRow
    divergence: PerRow | None = None


Term = Callable[[RowLosses], PerRow]
"""The loss of a forget row, defined for every row and read for forget rows only."""


@dataclass(frozen=True)
class Objective:
    """A method.

    Attributes:
        name: as on the command line.
        term: loss of a forget row.
        forget_share, retain_share: c_F and c_R; a retain share of 0 reads no retain rows.
        weights: `influence` (RapidUn), `uniform`, or `loss` (LoReUn).
        clean: multiplies L̄ of the right answer, where one is known.
        keep: what holds the retain rows: their loss, or the divergence from the model before.
        tau: temperature of LoReUn's weights, nats.
        dynamic: LoReUn's weights follow the current loss instead of that before.
    """

    name: str
    term: Term
    forget_share: float = 1.0
    retain_share: float = 1.0
    weights: Literal["influence", "uniform", "loss"] = "uniform"
    clean: float = 0.0
    keep: Literal["nll", "kl"] = "nll"
    tau: float = 1.0
    dynamic: bool = False


def ascent(rows: RowLosses) -> PerRow:
    """Gradient ascent: −L̄."""
    return -rows.mean


def negative_preference(rows: RowLosses, *, beta: float = 0.1) -> PerRow:
    """NPO: −(2/β) log σ(β(L − L_ref)); its gradient is 2σ(−β(L − L_ref)) times that of −L."""
    return -(2 / beta) * logsigmoid(beta * (rows.total - rows.reference))


def simple_preference(rows: RowLosses, *, beta: float = 4.5, delta: float = 0.0) -> PerRow:
    """SimNPO: −(2/β) log σ(β(L̄ − δ)): length-normalised and without a reference."""
    return -(2 / beta) * logsigmoid(beta * (rows.mean - delta))


def saturating_ascent(rows: RowLosses, *, ceiling: float) -> PerRow:
    """Ascent that fades once L̄ nears `ceiling` nats: −L̄ below, flattening smoothly to a constant above it."""
    return ceiling_softplus(rows.mean, ceiling)


def ceiling_softplus(mean: PerRow, ceiling: float) -> PerRow:
    """softplus(ceiling − x): slope −σ(ceiling − x), from −1 far below the ceiling to 0 far above."""
    return torch.nn.functional.softplus(ceiling - mean)


def low_loss_weights(losses: PerRow, *, tau: float) -> PerRow:
    """LoReUn: w_i ∝ exp(−l_i/τ) with mean 1: a low loss is hard to forget and weighs more."""
    return torch.softmax(-losses / tau, dim=0) * len(losses)


def batch_loss(
    objective: Objective, rows: RowLosses, *, forget: float, retain: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The batch's loss and its parts, each detached, by the names they are logged under.

    `forget` and `retain` are n_F and n_R. On one device they are the batch's own counts; on W devices, each of which
    has its share of the step's rows and whose gradients are averaged, they are the step's counts divided by W.
    """
    parts: dict[str, Tensor] = {}
    loss = rows.mean.new_zeros(())
    if rows.forget.any():
        term = objective.term(rows) + objective.clean * rows.clean
        parts["forget_term"] = (rows.weight * term)[rows.forget].sum() / forget
        parts["forget_loss"] = rows.mean[rows.forget].mean()
        if objective.clean:
            parts["clean_loss"] = rows.clean[rows.forget].mean()
        loss = loss + objective.forget_share * parts["forget_term"]
    if objective.retain_share and not rows.forget.all():
        kept = rows.mean if rows.divergence is None else rows.divergence
        parts["retain_term"] = (rows.weight * kept)[~rows.forget].sum() / retain
        parts["retain_loss"] = rows.mean[~rows.forget].mean()
        loss = loss + objective.retain_share * parts["retain_term"]
    return loss, {name: value.detach() for name, value in parts.items()}


OBJECTIVES: Mapping[str, Objective] = {
    o.name: o
    for o in (
        # One forget row to three retain rows, all in one mean, is a share of 1/4 and 3/4.
        Objective("rapidun", ascent, forget_share=0.25, retain_share=0.75, weights="influence", clean=0.5),
        Objective("ga", ascent, retain_share=0.0),
        Objective("graddiff", ascent),
        Objective("npo", negative_preference),
        Objective("simnpo", simple_preference, forget_share=0.125),
        Objective("loreun", ascent, weights="loss"),
        Objective("retrain", lambda rows: torch.zeros_like(rows.mean), forget_share=0.0),
    )
}

METHODS = (*OBJECTIVES, "fisher")
"""Everything `headwater unlearn --method` takes."""


def one_of(kind: str, name: str, known: Iterable[str]) -> str:
    """`name`, if it is one of the `known`.

    Raises:
        UsageError: it is not; offers the nearest.
    """
    names = tuple(known)
    if name not in names:
        raise unknown_name(kind, name, names)
    return name


def find_objective(
    name: str, *, ceiling: float | None = None, keep: Literal["nll", "kl"] = "nll", beta: float | None = None
) -> Objective:
    """The method by name, with its ascent capped at `ceiling`, its retain rows held by `keep`, its β replaced.

    Raises:
        UsageError: an unknown method, or an option the method has no use for.
    """
    objective = OBJECTIVES[one_of("method", name, OBJECTIVES)]
    one_of("way to keep retain rows", keep, ("nll", "kl"))
    if ceiling is not None:
        if objective.term is not ascent:
            raise UsageError(f"a ceiling with method '{name}'", remedy="it is for methods that ascend without bound")
        objective = replace(objective, term=partial(saturating_ascent, ceiling=ceiling))
    if beta is not None:
        if objective.term not in (negative_preference, simple_preference) or not beta > 0:
            raise UsageError(f"β = {beta} with method '{name}'", remedy="a β above 0, for npo or simnpo")
        objective = replace(objective, term=partial(objective.term, beta=beta))
    return replace(objective, keep=keep)
