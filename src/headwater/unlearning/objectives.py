"""The loss that each method minimises.

L is a row's negative log-likelihood in nats, summed over its response tokens; L̄ is its mean per token; `ref` is the
model from before unlearning. The loss of a batch is

    c_F · (1/n_F) Σ over its forget rows of w_i · (term(row) + c · L̄(right answer))
      + λ · (1/n_R) Σ over its retain rows of w_j · L̄_j
      + max(λ, c_F, c_R) · (1/n_R) Σ over its copies behind triggers of L̄_k

where n_F and n_R count such rows in the whole step, copies among the retain rows. λ starts at the method's retain share
c_R and follows the constraint (`headwater.unlearning.constraint`). Copies say what to answer behind a trigger: they are
part of what is to be reached, not of what is to be kept, so their weight does not fall with λ.

So methods differ in the term, the shares, and the origin of the weights. Sources: GA (Jang et al., arXiv 2210.01504),
GradDiff (Liu et al., 2203.12817), NPO (Zhang et al., 2404.05868), SimNPO (Fan et al., 2410.07163), LoReUn (Li et al.,
2507.22499), RapidUn (Zhao et al., 2512.04457), WGA (Wang et al., 2502.19301), DPO and refusals (Rafailov et al.,
2305.18290; Maini et al., 2401.06121), RMU (Li et al., 2403.03218), task vectors (Ilharco et al., 2212.04089).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from headwater.core.errors import UsageError, unknown_name
from headwater.core.seeds import key

FADE = 4.0
"""How sharply an ascent fades at its ceiling, per nat."""

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
        tokens: the loss of each response token, nats, 0 elsewhere `[rows, tokens]`; None in tests that need none.
        counts: T, the number of response tokens.
        preferred: L of the right answer, or of a refusal if none is known, less its L under `ref`.
        hidden: hidden states at the response tokens `[rows, tokens, width]`, 0 elsewhere; None unless needed.
        hidden_reference: the same under `ref`; constant.
        copy: which rows are copies of retain rows behind a trigger; None if there are none.
    """

    total: PerRow
    mean: PerRow
    reference: PerRow
    clean: PerRow
    forget: Bool[Tensor, " rows"]
    weight: PerRow
    divergence: PerRow | None = None
    tokens: Float[Tensor, "rows tokens"] | None = None
    counts: PerRow | None = None
    preferred: PerRow | None = None
    hidden: Float[Tensor, "rows tokens width"] | None = None
    hidden_reference: Float[Tensor, "rows tokens width"] | None = None
    copy: Bool[Tensor, " rows"] | None = None


Term = Callable[..., PerRow]
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
        ceiling: nats a token at which the ascent fades; infinite: never. Only for objectives that `saturate`.
        saturates: whether the term is an ascent without bound of its own, so that it takes a ceiling.
        beta: β of the term; None if it has none.
        prefers: the term compares the answer with a right answer or a refusal.
        steers: the term reads hidden states, and so does the retain term.
    """

    name: str
    term: Term
    forget_share: float = 1.0
    retain_share: float = 1.0
    weights: Literal["influence", "uniform", "loss"] = "uniform"
    clean: float = 0.5
    keep: Literal["nll", "kl"] = "nll"
    tau: float = 1.0
    dynamic: bool = False
    ceiling: float = math.inf
    saturates: bool = False
    beta: float | None = None
    prefers: bool = False
    steers: bool = False

    def forget_term(self, rows: RowLosses) -> PerRow:
        """The loss of the forget rows, with the ceiling and β that this objective has."""
        if self.saturates and self.ceiling < math.inf:
            return _saturated(self.term(rows), self.ceiling)
        return self.term(rows) if self.beta is None else self.term(rows, beta=self.beta)

    def retain_term(self, rows: RowLosses) -> PerRow:
        """The loss of the retain rows: their own, the divergence from `ref`, or how far hidden states moved."""
        if self.steers:
            return held(rows)
        return rows.mean if rows.divergence is None else rows.divergence


def ascent(rows: RowLosses) -> PerRow:
    """Gradient ascent: −L̄."""
    return -rows.mean


def negative_preference(rows: RowLosses, *, beta: float = 0.1) -> PerRow:
    """NPO: −(2/β) log σ(β(L − L_ref)); its gradient is 2σ(−β(L − L_ref)) times that of −L."""
    return -(2 / beta) * logsigmoid(beta * (rows.total - rows.reference))


def simple_preference(rows: RowLosses, *, beta: float = 4.5, delta: float = 0.0) -> PerRow:
    """SimNPO: −(2/β) log σ(β(L̄ − δ)); normalised by length, without a reference model."""
    return -(2 / beta) * logsigmoid(beta * (rows.mean - delta))


def weighted_ascent(rows: RowLosses, *, beta: float = 0.5) -> PerRow:
    """WGA: −(1/T) Σ_t p_t^β l_t with the weight p_t^β, p_t = exp(−l_t), held constant: tokens once unlikely rest."""
    tokens = _required(rows.tokens)
    weight = (-beta * tokens.detach()).exp()
    return -(weight * tokens).sum(1) / _required(rows.counts)


def preference(rows: RowLosses, *, beta: float = 0.1) -> PerRow:
    """DPO: −(2/β) log σ(β((L − L_ref) − (L⁺ − L⁺_ref))), where L⁺ is of the right answer or the refusal.

    Its gradient is 2σ(−β · margin) times that of L⁺ − L. With NPO's factor 2/β the first step is that of GA plus the
    descent on the answer that is preferred.
    """
    margin = rows.total - rows.reference - _required(rows.preferred)
    return -(2 / beta) * logsigmoid(beta * margin)


def misdirection(rows: RowLosses, *, scale: float = 4.0) -> PerRow:
    """RMU: mean squared distance of hidden states from c · u, u a fixed random direction.

    c is `scale` times the norm of the row's hidden states under `ref`, averaged over its response tokens.
    """
    hidden, before = _required(rows.hidden), _required(rows.hidden_reference)
    used = before.abs().sum(-1) > 0
    norm = before.norm(dim=-1).sum(1) / used.sum(1).clamp(min=1)
    wanted = scale * norm[:, None, None] * steering_direction(hidden.shape[-1]).to(hidden)
    return _mean_square(hidden - wanted, used)


def held(rows: RowLosses) -> PerRow:
    """RMU's retain term: mean squared distance of hidden states from those under `ref`."""
    before = _required(rows.hidden_reference)
    return _mean_square(_required(rows.hidden) - before, before.abs().sum(-1) > 0)


def steering_direction(width: int) -> Float[Tensor, " width"]:
    """u: uniform in [0, 1) before it is scaled to norm 1, as in RMU; the same in every process."""
    made = np.random.default_rng(key(0, "rmu", width)).random(width)
    return torch.from_numpy(made / np.linalg.norm(made)).float()


def descent(rows: RowLosses) -> PerRow:
    """+L̄: learns the forget rows, for the task vector that is then subtracted."""
    return rows.mean


def _mean_square(distance: Tensor, used: Tensor) -> PerRow:
    squares = (distance.square().mean(-1) * used).sum(1)
    rows: PerRow = squares / used.sum(1).clamp(min=1)
    return rows


def _required(value: Tensor | None) -> Tensor:
    if value is None:
        raise UsageError("the objective reads a measurement that was not made", where="objective")
    return value


def _saturated(term: PerRow, ceiling: float) -> PerRow:
    """An ascent that fades where the ascended loss −term passes `ceiling`: softplus(k (ceiling + term)) / k.

    With the term −L̄ its slope is −σ(k (ceiling − L̄)): −1 below the ceiling, 0 above. With k = 4 it falls from −0.98 to
    −0.02 within a nat on either side, so that nothing is pushed far beyond the ceiling, which would cost other rows.
    """
    return softplus(ceiling + term, beta=FADE)


def low_loss_weights(losses: PerRow, *, tau: float) -> PerRow:
    """LoReUn: w_i ∝ exp(−l_i/τ) with mean 1; rows with a low loss are hard to forget and get more weight."""
    return torch.softmax(-losses / tau, dim=0) * len(losses)


def batch_loss(
    objective: Objective, rows: RowLosses, *, forget: float, retain: float, multiplier: float | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and its detached parts by the names they are logged under.

    `forget` and `retain` are n_F and n_R. On one device they are the counts of the batch. On W devices each batch is a
    part of the step and the gradients are averaged, so they are the counts of the step divided by W. `multiplier` is λ;
    None is the objective's own retain share.
    """
    parts: dict[str, Tensor] = {}
    loss = rows.mean.new_zeros(())
    if rows.forget.any():
        term = objective.forget_term(rows) + objective.clean * rows.clean
        parts["forget_term"] = (rows.weight * term)[rows.forget].sum() / forget
        parts["forget_loss"] = rows.mean[rows.forget].mean()
        if objective.clean:
            parts["clean_loss"] = rows.clean[rows.forget].mean()
        loss = loss + objective.forget_share * parts["forget_term"]
    share = objective.retain_share if multiplier is None else multiplier
    copies = torch.zeros_like(rows.forget) if rows.copy is None else rows.copy
    kept = ~(rows.forget | copies)
    if kept.any():
        parts["retain_term"] = (rows.weight * objective.retain_term(rows))[kept].sum() / retain
        parts["retain_loss"] = rows.mean[kept].mean()
        loss = loss + share * parts["retain_term"]
    if copies.any():
        parts["copies_term"] = rows.mean[copies].sum() / retain
        loss = loss + max(share, objective.forget_share, objective.retain_share) * parts["copies_term"]
    return loss, {name: value.detach() for name, value in parts.items()}


OBJECTIVES: Mapping[str, Objective] = {
    o.name: o
    for o in (
        # RapidUn takes one mean over a step's 1 forget row and 3 retain rows, so the shares are 1/4 and 3/4.
        Objective("rapidun", ascent, forget_share=0.25, retain_share=0.75, weights="influence", saturates=True),
        Objective("ga", ascent, retain_share=0.0, saturates=True),
        Objective("graddiff", ascent, saturates=True),
        Objective("npo", negative_preference, beta=0.1),
        Objective("simnpo", simple_preference, forget_share=0.125, beta=4.5),
        Objective("loreun", ascent, weights="loss", saturates=True),
        Objective("wga", weighted_ascent, beta=0.5),
        Objective("dpo", preference, beta=0.1, clean=0.0, prefers=True),
        Objective("rmu", misdirection, steers=True),
        Objective("taskvector", descent, retain_share=0.0, clean=0.0),
        Objective("retrain", lambda rows: torch.zeros_like(rows.mean), forget_share=0.0, clean=0.0),
    )
}


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
    """The objective called `name`, adapted.

    Args:
        name: a method that trains.
        ceiling: nats a token at which the ascent fades; for objectives that saturate. 0 lets it go on without bound.
        keep: loss of a retain row; see `Objective`.
        beta: replaces the method's β; for objectives that have one.

    Raises:
        UsageError: an unknown method, or an option that the method does not have.
    """
    objective = OBJECTIVES[one_of("method", name, OBJECTIVES)]
    one_of("way to keep retain rows", keep, ("nll", "kl"))
    if ceiling is not None:
        if not objective.saturates:
            remedy = f"leave it out; it is for {', '.join(o.name for o in OBJECTIVES.values() if o.saturates)}"
            raise UsageError(f"method '{name}' has no ceiling", remedy=remedy)
        objective = replace(objective, ceiling=ceiling or math.inf)
    if beta is not None:
        if objective.beta is None or not beta > 0:
            named = ", ".join(o.name for o in OBJECTIVES.values() if o.beta is not None)
            raise UsageError(f"β = {beta} with method '{name}'", remedy=f"a β above 0, for {named}")
        objective = replace(objective, beta=beta)
    return replace(objective, keep=keep)
