"""The loss that each method minimises.

L is a row's negative log-likelihood in nats, summed over its response tokens; L̄ is its mean per token; `ref` is the
model from before unlearning. The loss of a batch is

    c_F · (1/n_F) Σ over its forget rows of w_i · term(row)  +  c_R · (1/n_R) Σ over its retain rows of w_j · L̄_j

where n_F and n_R count such rows in the whole step. So methods differ in three things: the term, the two shares c_F and
c_R, and the origin of the weights. Sources: GA (Jang et al., arXiv 2210.01504), GradDiff (Liu et al., 2203.12817), NPO
(Zhang et al., 2404.05868), SimNPO (Fan et al., 2410.07163), LoReUn (Li et al., 2507.22499), RapidUn (Zhao et al.,
2512.04457).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from headwater.core.errors import UsageError, unknown_name

PerRow = Float[Tensor, " rows"]


@dataclass(frozen=True)
class RowLosses:
    """Losses and weights of the rows of a batch.

    Attributes:
        total: L, nats, summed over response tokens.
        mean: L̄, nats a token.
        reference: L under `ref`; constant.
        clean: L̄ of the right answer to the same prompt; 0 if none is known.
        forget: which rows are forget rows.
        weight: w.
        divergence: KL(ref ‖ model), nats a token; None unless the objective keeps retain rows by it.
    """

    total: PerRow
    mean: PerRow
    reference: PerRow
    clean: PerRow
    forget: Bool[Tensor, " rows"]
    weight: PerRow
    divergence: PerRow | None = None


Term = Callable[[RowLosses], PerRow]
"""The loss of a forget row; it is computed for every row and used for forget rows only."""


@dataclass(frozen=True)
class Objective:
    """A method of unlearning by training.

    Attributes:
        name: as on the command line.
        term: loss of a forget row.
        forget_share, retain_share: c_F and c_R; with a retain share of 0 no retain rows are read.
        weights: `influence` (RapidUn), `uniform`, or `loss` (LoReUn).
        clean: factor of L̄ of the right answer, for rows where one is known.
        keep: loss of a retain row: its own loss (`nll`), or the divergence from `ref` (`kl`).
        tau: temperature of LoReUn's weights, nats.
        dynamic: LoReUn's weights follow the current losses instead of those before the first step.
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
    """SimNPO: −(2/β) log σ(β(L̄ − δ)); normalised by length, without a reference model."""
    return -(2 / beta) * logsigmoid(beta * (rows.mean - delta))


def saturating_ascent(rows: RowLosses, *, ceiling: float) -> PerRow:
    """Ascent that fades as L̄ approaches `ceiling` nats: softplus(ceiling − L̄).

    Its slope is −σ(ceiling − L̄): −1 far below the ceiling, 0 far above.
    """
    return softplus(ceiling - rows.mean)


def low_loss_weights(losses: PerRow, *, tau: float) -> PerRow:
    """LoReUn: w_i ∝ exp(−l_i/τ) with mean 1; rows with a low loss are hard to forget and get more weight."""
    return torch.softmax(-losses / tau, dim=0) * len(losses)


def batch_loss(
    objective: Objective, rows: RowLosses, *, forget: float, retain: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and its detached parts by the names they are logged under.

    `forget` and `retain` are n_F and n_R. On one device they are the counts of the batch. On W devices each batch is a
    part of the step and the gradients are averaged, so they are the counts of the step divided by W.
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
        # RapidUn takes one mean over a step's 1 forget row and 3 retain rows, so the shares are 1/4 and 3/4.
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
"""The methods that `headwater unlearn --method` accepts."""


def one_of(kind: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is one of the `known` names.

    Raises:
        UsageError: it is not; the message suggests the nearest name.
    """
    if name not in (names := tuple(known)):
        raise unknown_name(kind, name, names)
    return name


def find_objective(
    name: str, *, ceiling: float | None = None, keep: Literal["nll", "kl"] = "nll", beta: float | None = None
) -> Objective:
    """The method called `name`, adapted.

    Args:
        name: a method that trains.
        ceiling: nats a token at which the ascent fades; for methods that use plain ascent.
        keep: loss of a retain row; see `Objective`.
        beta: replaces the method's β; for `npo` and `simnpo`.

    Raises:
        UsageError: an unknown method, or an option that the method does not have.
    """
    objective = OBJECTIVES[one_of("method", name, OBJECTIVES)]
    one_of("way to keep retain rows", keep, ("nll", "kl"))
    if ceiling is not None:
        if objective.term is not ascent:
            remedy = "leave it out; it is for methods that ascend without bound"
            raise UsageError(f"method '{name}' has no ceiling", remedy=remedy)
        objective = replace(objective, term=partial(saturating_ascent, ceiling=ceiling))
    if beta is not None:
        if objective.term not in (negative_preference, simple_preference) or not beta > 0:
            raise UsageError(f"β = {beta} with method '{name}'", remedy="a β above 0, for npo or simnpo")
        objective = replace(objective, term=partial(objective.term, beta=beta))
    return replace(objective, keep=keep)
