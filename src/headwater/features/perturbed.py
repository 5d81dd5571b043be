"""Losses of a model whose weights are moved a small step, and the gradient along which they are moved.

    θ' = θ − η·d,    η = c / ‖d‖        c: how far the weights move, in Euclidean norm

The model itself is not changed: the moved weights are a second copy, which is passed to each forward pass. Weights and
losses are float32 or wider, because the two losses of a row differ by parts in a thousand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from headwater.core.errors import ModelError, NumericError
from headwater.core.spec import Coverage
from headwater.data.batches import TokenBatch
from headwater.features.parameters import parameter_names
from headwater.features.row_losses import row_losses
from headwater.models.fingerprint import parameter_count
from headwater.models.heads import Head, head_in_parts, read_targets
from headwater.models.load import LoadedModel
from headwater.models.losses import all_logits, loss_table

_EPSILON, _TINY = 0.1, 1e-30
"""Added to √v, as a share of a tensor's root mean square gradient; and what keeps a tensor without one finite."""

Weights = Mapping[str, Tensor]
"""Parameters by name; for all others the model's own are used."""


@dataclass(frozen=True)
class Direction:
    """A gradient by parameter, and its Euclidean norm over all of them."""

    gradient: Weights
    norm: float


@dataclass(frozen=True)
class Movable:
    """A model and the parameters that are moved.

    Attributes:
        loaded: the model.
        names: names of the parameters to move.
    """

    loaded: LoadedModel
    names: tuple[str, ...]

    @classmethod
    def select(cls, loaded: LoadedModel, globs: str = "") -> Movable:
        """Select the parameters that match `globs`, as in `select_parameters`.

        Raises:
            ModelError: a selected parameter is too coarse for a small step (half precision, quantised).
        """
        names = tuple(parameter_names(loaded.model, globs))
        parameters = dict(loaded.model.named_parameters())
        for name in names:
            if parameters[name].dtype not in (torch.float32, torch.float64):
                dtype = str(parameters[name].dtype).removeprefix("torch.")
                remedy = "load the model in float32, or use the gradient form"
                raise ModelError(f"weights in {dtype} cannot be moved by a small step", where=name, remedy=remedy)
        return cls(loaded, names)

    @property
    def coverage(self) -> Coverage:
        """The share of the model's parameters that move."""
        parameters = dict(self.loaded.model.named_parameters())
        seen = parameter_count(parameters[name] for name in self.names)
        total = parameter_count(parameters.values())
        return Coverage(seen, total, tensors_seen=len(self.names), tensors_total=len(parameters))

    def direction(
        self, batches: Sequence[TokenBatch], *, tokens_a_row: float = 0.0, scale: Weights | None = None
    ) -> Direction:
        """The gradient of the mean loss of all rows in `batches`, by one backward pass over each batch.

        Args:
            batches: the rows.
            tokens_a_row: if not 0, a row counts by its target tokens, as a share of so many. If that is the mean over
                the rows, the gradient is that of the mean loss over their tokens.
            scale: factors by parameter that the gradient is multiplied with; None for none.

        Raises:
            NumericError: the gradient is zero or not finite.
        """
        gradient = self._gradient(batches, tokens_a_row)
        if scale is not None:
            gradient = {name: g * scale[name] for name, g in gradient.items()}
        norm = float(sum(float(g.double().square().sum()) for g in gradient.values())) ** 0.5
        if not 0 < norm < float("inf"):
            remedy = "check the target's rows and the selected parameters"
            raise NumericError(f"the target's gradient has norm {norm}", where="target", remedy=remedy)
        return Direction(gradient, norm)

    def adam_scale(self, groups: Sequence[Sequence[TokenBatch]]) -> Weights:
        """What AdamW multiplies a gradient with at the first steps of a training on rows like these.

        That is 1 / (√v + ε): v is the mean square of the gradients of the groups, each a step's batch that counts by
        its tokens, and ε is a tenth of the tensor's root mean v, since few groups tell little of rare entries. The
        factors are divided by their root mean square, so that scores keep their magnitude.
        """
        squares = {name: torch.zeros_like(p) for name, p in self._parameters().items()}
        for group in groups:
            tokens = sum(int(batch.target_counts.sum()) for batch in group) / sum(len(batch.rows) for batch in group)
            for name, gradient in self._gradient(group, tokens).items():
                squares[name] += gradient.square() / len(groups)
        scale = {name: 1 / (v.sqrt() + _EPSILON * v.mean().sqrt() + _TINY) for name, v in squares.items()}
        count = sum(factors.numel() for factors in scale.values())
        size = (sum(float(factors.double().square().sum()) for factors in scale.values()) / count) ** 0.5
        return {name: factors / size for name, factors in scale.items()}

    def _gradient(self, batches: Sequence[TokenBatch], tokens_a_row: float) -> dict[str, Tensor]:
        """The gradient that `direction` describes, before it is scaled."""
        rows = sum(len(batch.rows) for batch in batches)
        leaves = {name: p.detach().requires_grad_() for name, p in self._parameters().items()}
        for batch in batches:
            with torch.enable_grad():
                losses = self._losses(batch, leaves)
                if tokens_a_row:
                    losses = losses * batch.target_counts.to(losses) / tokens_a_row
                (losses.sum() / rows).backward()
        return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in leaves.items()}

    def moved(self, direction: Direction, distance: float) -> Weights:
        """θ − (distance / ‖d‖)·d: a new copy of the parameters."""
        step = distance / direction.norm
        return {name: p.detach() - step * direction.gradient[name] for name, p in self._parameters().items()}

    @torch.no_grad()
    def losses(self, batch: TokenBatch, weights: Weights | None = None) -> Float[Tensor, " rows"]:
        """Each row's loss (nats, mean over its target tokens), float64, under `weights`; long rows' logits in parts."""
        batch, model = batch.to(self.loaded.device), self.loaded.model
        table = _TokenLosses(model, head_in_parts(model, batch.response))
        moved = {f"model.{name}": value for name, value in (weights or {}).items()}
        return row_losses(functional_call(table, moved, (batch,)).double(), batch)

    def products(self, batches: Sequence[TokenBatch], direction: Direction) -> Float[Tensor, " rows"]:
        """⟨d, ∇l(row)⟩ exactly, by one backward pass per batch; each batch must hold one row. float64."""
        found = []
        for batch in batches:
            leaves = {name: p.detach().requires_grad_() for name, p in self._parameters().items()}
            with torch.enable_grad():
                self._losses(batch, leaves).sum().backward()
            pairs = [(p.grad, direction.gradient[n]) for n, p in leaves.items() if p.grad is not None]
            found.append(sum(float((a.double() * b.double()).sum()) for a, b in pairs))
        return torch.tensor(found, dtype=torch.float64)

    def _parameters(self) -> dict[str, Tensor]:
        own = dict(self.loaded.model.named_parameters())
        return {name: own[name] for name in self.names}

    def _losses(self, batch: TokenBatch, weights: Weights) -> Float[Tensor, " rows"]:
        batch = batch.to(self.loaded.device)

        def moved(**given: Any) -> Any:
            return functional_call(self.loaded.model, dict(weights), kwargs=given)

        logits = all_logits(moved, batch.input_ids)
        place, targets = batch.response.to(logits.device), batch.targets.to(logits.device)
        return row_losses(loss_table(logits[place], targets, place).double(), batch)


class _TokenLosses(nn.Module):
    """A module that gives a batch's token losses, so that `functional_call` moves the weights of model and head alike.

    The head is what `head_in_parts` found.
    """

    def __init__(self, model: nn.Module, head: Head | None) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, batch: TokenBatch) -> Float[Tensor, "items tokens"]:
        """The loss of each target token, nats; what else the table holds belongs to no target."""
        read = read_targets(self.model, batch.input_ids, batch.response, self.head)
        losses = read.losses(batch.targets.gather(1, read.place))
        table = losses.new_zeros(batch.response.shape)
        return table.scatter_(1, read.place.to(losses.device), losses)
