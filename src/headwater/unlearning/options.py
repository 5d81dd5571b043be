"""The options of an unlearning run, and its result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from headwater.core.errors import DataError, UsageError
from headwater.models.load import LoadedModel
from headwater.unlearning.adapter import Lora
from headwater.unlearning.hardening import check_hardening
from headwater.unlearning.objectives import OBJECTIVES, Objective
from headwater.unlearning.rows import UnlearnJob
from headwater.unlearning.sequences import Composition
from headwater.unlearning.watch import LossLimits, Outcome, Reading
from headwater.unlearning.weights import Weights

if TYPE_CHECKING:
    from headwater.unlearning.capabilities import UnlearningMethod


@dataclass(frozen=True)
class UnlearnOptions:
    """How to unlearn; docs/tasks/unlearn.md has the measurements behind the defaults.

    Attributes:
        method: one of `headwater.unlearning.catalog.METHODS`.
        influence, settings: the attribution method that makes the weights, and its settings.
        weights: `influence`, `uniform`, `shuffled` (the control), or a weights file. For `rapidun`.
        compat: use RapidUn's published mapping: plain inner products, k = 40, absolute floor, mean after the clip. Its
            vectors were gradients (`graddot`).
        rate: learning rate; None finds it with a probe.
        steps: most optimizer steps.
        composition: rows of a step; `ga` reads no retain rows and `retrain` no forget rows.
        lora: the adapter; None trains all weights.
        guard: the guard rows' perplexity may grow by this factor; None sets no bound.
        bound: the guard rows' loss may not pass this, nats a token; None takes it from `guard`.
        target: the loss, nats a token, at which withheld forget rows count as forgotten; None measures the loss of
            the forget rows' answers behind retain rows' prompts, or of unseen rows if the run has any.
        withhold: share of the forget rows (at least 5) that is kept from training until the end, to see whether the
            behaviour is gone; with fewer than 25 forget rows each half is withheld once; 0 withholds none.
        follow: the weight of the retain rows follows the bound; False ends training when the bound is first passed.
        ceiling: nats a token at which an ascent fades; None takes 1.5 times the target, 0 lets it go on without bound.
        right: factor of the loss of right answers; None takes the method's.
        beta, keep: see `find_objective`.
        index: trace index with vectors of the rows, from which the weights are made instead of reading the rows again.
        dynamic: LoReUn's weights follow the current losses.
        template, max_tokens, targets: how rows become tokens, as in `Reader.of`.
        harden: train so that forgetting survives relearning (`sharp`) or rounding (`int8`, `int4`); None: neither.
        checkpointing: recompute activations in the backward pass: less memory, more time.
        save_every: steps between checkpoints; 0 saves none.
        seed: of adapter, order, dropout, shuffling.
    """

    method: str = "rapidun"
    influence: str = "rise"
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: str = "influence"
    compat: bool = False
    rate: float | None = None
    steps: int = 320
    composition: Composition = field(default_factory=Composition)
    lora: Lora | None = field(default_factory=Lora)
    guard: float | None = 1.05
    bound: float | None = None
    target: float | None = None
    withhold: float = 0.2
    follow: bool = True
    ceiling: float | None = None
    right: float | None = None
    beta: float | None = None
    keep: Literal["nll", "kl"] = "nll"
    dynamic: bool = False
    index: str | None = None
    template: str | None = None
    max_tokens: int = 512
    targets: str | None = None
    harden: str | None = None
    checkpointing: bool = False
    save_every: int = 0
    seed: int = 0


@dataclass(frozen=True)
class UnlearnResult:
    """The result of an unlearning run.

    Attributes:
        loaded: the model afterwards, with the adapter still around it.
        options: the options of the run.
        outcome: why it ended; see `headwater.unlearning.watch.Outcome`.
        limits: the target and the bound of the run, nats a token.
        readings: what was measured during training, while rows were withheld.
        best: the reading of the state that the run kept; None if nothing was measured.
        seconds: wall time by part: `influence`, `probe`, `training`.
        facts: further numbers of the method (Fisher's α, the probe's path).
        rate: learning rate; None for a method that does not train.
        weights: None for a method without weights.
        log: the loss terms, one entry a step.
    """

    loaded: LoadedModel
    options: UnlearnOptions
    outcome: Outcome
    limits: LossLimits
    readings: tuple[Reading, ...]
    seconds: Mapping[str, float]
    facts: Mapping[str, Any]
    best: Reading | None = None
    rate: float | None = None
    weights: Weights | None = None
    log: tuple[dict[str, float], ...] = ()


def check_options(method: UnlearningMethod, objective: Objective, options: UnlearnOptions, job: UnlearnJob) -> None:
    """Raise `UsageError` for options that do not go together, and `DataError` if the method needs rows to retain."""
    if method.needs_retain and not job.retain:
        raise DataError("there are no rows to retain", where=f"method '{method.name}'", remedy="give --retain")
    if options.guard is not None and options.guard <= 1:
        raise UsageError(f"a guard of {options.guard}", where="--guard", remedy="a factor above 1")
    if not 0 <= options.withhold < 1:
        raise UsageError(
            f"{options.withhold} of the forget rows withheld", where="--withhold", remedy="from 0 to below 1"
        )
    if options.rate is not None and not 0 < options.rate < math.inf:
        raise UsageError(f"a learning rate of {options.rate}", where="--rate", remedy="above 0, or auto")
    if method.from_base and options.rate is None:
        raise UsageError(
            "retraining has no target to probe for", where="--rate", remedy="give the rate of the training"
        )
    if (objective.keep == "kl" or objective.steers) and options.lora is None:
        what = "the comparison with the model before unlearning needs an adapter"
        where = "--keep kl" if objective.keep == "kl" else f"method '{method.name}'"
        raise UsageError(what, where=where, remedy="leave --full out")
    if options.weights != "influence" and objective.weights != "influence":
        raise UsageError(
            f"weights '{options.weights}' with method '{method.name}'", remedy=_those("influence", "weights")
        )
    check_hardening(options.harden)
    if options.dynamic and objective.weights != "loss":
        raise UsageError(f"dynamic weights with method '{method.name}'", remedy=_those("loss", "weights"))


def _those(value: str, of: str) -> str:
    named = [o.name for o in OBJECTIVES.values() if getattr(o, of) == value]
    return f"they are for {', '.join(named)}"
