"""How the end of a training run depends on the weight of each row: exact derivatives, by running the training backward.

    score(z, q) = −∂ L_q(θ_T) / ∂ w_z    at w = 1,    where row z adds w_z ∇ℓ_z to the gradient of every step it is in

A positive score: more weight on the row lowers the query's loss at the end. The number of target tokens that a step
divides by does not change with the weights. The idea is that of MAGIC (Ilyas and Engstrom, arXiv 2504.16430): states
are kept at every √T-th step, and the steps between them are run again.

The optimiser's step is differentiated by hand (`headwater.training.steps`). The model adds, at each step and for each
query, one product of the Hessian with a vector; the rows' own parts come from the same pass. A query costs about four
trainings. Memory: √T states of the optimiser, and one adjoint state for each query.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, grad, jvp, vmap

from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.models.losses import all_logits
from headwater.training.fitting import plan_steps
from headwater.training.runs import RecordedRun
from headwater.training.steps import State, Update, updates

_POSITIONS = 512
"""Most positions, padding included, that are differentiated at a time."""

OnStep = Callable[[int, int], None]
"""Called with the steps done and all steps, of the run forward and the run backward together."""


@dataclass(frozen=True)
class RepeatedRun:
    """A run that was repeated: the weights at its end, and the states from which its steps can be run again."""

    steps: Sequence[Sequence[TokenBatch]]
    update: Sequence[Update]
    kept: Sequence[State]
    every: int
    weights: Float[Tensor, " parameters"]


class FlatModel:
    """A model as a function of one vector: its trained parameters, one after the other."""

    def __init__(self, model: Any) -> None:
        self.model = model
        if hasattr(model, "set_attn_implementation"):
            model.set_attn_implementation("eager")  # the fused kernels have no second derivatives
        self._parts = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._sizes = [p.numel() for p in self._parts.values()]

    def weights_of(self, other: Any) -> Float[Tensor, " parameters"]:
        """The values that the same parameters have in another model, as a new vector."""
        named = dict(other.named_parameters())
        return torch.cat([named[name].detach().flatten() for name in self._parts])

    def weights(self) -> Float[Tensor, " parameters"]:
        """The parameters' values, as a new vector."""
        return self.weights_of(self.model)

    def losses(self, weights: Float[Tensor, " parameters"], batch: TokenBatch) -> Float[Tensor, " rows"]:
        """The sum of the losses of each row's target tokens, nats; differentiable in the weights, twice."""
        split = zip(self._parts.items(), weights.split(self._sizes), strict=True)
        named = {name: part.view_as(p) for (name, p), part in split}

        def call(**given: Any) -> Any:
            return functional_call(self.model, named, kwargs=given)

        logits = all_logits(call, batch.input_ids)
        chosen = logits.gather(2, batch.targets[..., None])[..., 0]
        windows = ((logits.logsumexp(2) - chosen) * batch.response).sum(1)
        return windows.new_zeros(len(batch.rows)).index_add(0, batch.item_row, windows)


def replay(flat: FlatModel, run: RecordedRun, on_step: OnStep | None = None) -> RepeatedRun:
    """Run the training forward from the model's present weights, and keep every √T-th state."""
    steps = [[b.to(run.model.device) for b in batches] for batches in _planned(run)]
    every = math.isqrt(max(len(steps) - 1, 0)) + 1
    update, state, kept = updates(run.recipe, len(steps)), State.of(flat.weights()), []
    for number, batches in enumerate(steps):
        if number % every == 0:
            kept.append(state)
        state = update[number].step(state, _gradient(flat, state.weights, batches))
        if on_step is not None:
            on_step(number + 1, 2 * len(steps))
    return RepeatedRun(steps, update, kept, every, state.weights)


def metagradients(
    flat: FlatModel, run: RecordedRun, done: RepeatedRun, queries: Sequence[TokenBatch], on_step: OnStep | None = None
) -> Float[Tensor, "rows queries"]:
    """Every row's score on every query; positive = proponent.

    Args:
        flat: the model.
        run: its training.
        done: the training, repeated.
        queries: batches of one query each, whose loss is the mean over its target tokens.
        on_step: called after every step.

    Returns:
        Nats for a whole unit of a row's weight, in the order of `run.rows`; float64 on the CPU.
    """
    adjoint = State.of(torch.stack([_query_gradient(flat, done.weights, query) for query in queries]))
    place = {id(row): i for i, row in enumerate(run.rows)}
    found = torch.zeros(len(run.rows), len(queries), dtype=torch.float64)
    for number, state in _backward(flat, done):
        batches = done.steps[number]
        gradient = _gradient(flat, state.weights, batches)
        adjoint, pull = done.update[number].back(state, gradient, adjoint)
        for batch in batches:
            parts, curved = _both(flat, state.weights, batch, _share(batches) * pull)
            adjoint = adjoint.plus(curved)
            where = torch.tensor([place[id(row)] for row in batch.rows])
            found.index_add_(0, where, -parts.mT.double().cpu())
        if on_step is not None:
            on_step(2 * len(done.steps) - number, 2 * len(done.steps))
    return found


def _planned(run: RecordedRun) -> list[list[TokenBatch]]:
    """The batches of each step, divided further into batches of rows of similar length: less padding, less memory."""
    steps = plan_steps(run.rows, run.recipe, context=run.context, seed=run.seed)
    window = Window(run.context)
    return [
        [part for batch in batches for part in plan_batches(batch.rows, window, tokens_per_batch=_POSITIONS)]
        for _, batches in steps
    ]


def _share(batches: Sequence[TokenBatch]) -> float:
    """What a token's loss is multiplied with in the loss of its step: 1 / the step's target tokens."""
    return 1 / sum(int(batch.response.sum()) for batch in batches)


def _gradient(flat: FlatModel, weights: Tensor, batches: Sequence[TokenBatch]) -> Float[Tensor, " parameters"]:
    """The gradient of a step's loss: the mean over the target tokens of its batches."""
    found = torch.zeros_like(weights)
    for batch in batches:
        found += _share(batches) * grad(lambda w, b=batch: flat.losses(w, b).sum())(weights)
    return found


def _query_gradient(flat: FlatModel, weights: Tensor, query: TokenBatch) -> Float[Tensor, " parameters"]:
    found: Tensor = grad(lambda w: flat.losses(w, query).sum() / int(query.response.sum()))(weights)
    return found


def _both(
    flat: FlatModel, weights: Tensor, batch: TokenBatch, directions: Float[Tensor, "queries parameters"]
) -> tuple[Float[Tensor, "queries rows"], Float[Tensor, "queries parameters"]]:
    """⟨∇ℓ_row, u⟩ of each row, and the Hessian of their sum times u, for each direction u."""

    def sums(w: Tensor) -> tuple[Tensor, Tensor]:
        losses = flat.losses(w, batch)
        return losses.sum(), losses

    def one(direction: Tensor) -> tuple[Tensor, Tensor]:
        curved, parts = jvp(grad(sums, has_aux=True), (weights,), (direction,))[1]
        return parts, curved

    found: tuple[Tensor, Tensor] = vmap(one)(directions)
    return found


def _backward(flat: FlatModel, done: RepeatedRun) -> Iterator[tuple[int, State]]:
    """The number of each step and the state before it, from the last to the first."""
    for segment in range(len(done.kept) - 1, -1, -1):
        first = segment * done.every
        last = min(first + done.every, len(done.steps))
        states = [done.kept[segment]]
        for number in range(first, last - 1):
            gradient = _gradient(flat, states[-1].weights, done.steps[number])
            states.append(done.update[number].step(states[-1], gradient))
        yield from reversed(list(zip(range(first, last), states, strict=True)))
