"""Products with the Fisher matrix of a model on some rows, without forming it, and systems solved with them.

    F = (1/n) Σ_rows (1/T²) Σ_t J_tᵀ (diag(p_t) − p_t p_tᵀ) J_t

J_t is the derivative by the parameters of the logits of a row's target token t, p_t the model's prediction there, and T
the row's number of target tokens. This is E[g gᵀ] for the gradient g of a row's mean loss whose tokens are sampled from
the model: what EK-FAC approximates. T times a row's part is the Gauss-Newton matrix of its mean loss.

A product takes one pass of forward-mode and one of reverse-mode differentiation over the rows for all vectors together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, jvp, vjp, vmap

from headwater.core.errors import ModelError
from headwater.data.batches import TokenBatch
from headwater.models.attention import plain_attention
from headwater.models.load import LoadedModel
from headwater.models.losses import all_logits

Vectors = Mapping[str, Float[Tensor, "_vectors _out _in"]]
"""Tensor name to a matrix for each vector, in the layout of gradients; a tensor of one axis has matrices of one row."""

Operator = Callable[[Vectors], dict[str, Tensor]]

_MOST_NUMBERS = 2**25
"""Logits of one batch, for all vectors together, that are held at a time."""


class Fisher:
    """The matrix F of a model on rows, as a product; only for tensors that are whole parameters.

    Args:
        loaded: the model.
        names: its parameters, by which F is taken.
        batches: the rows.
        transposed: those of the parameters that are stored as `(in, out)`.

    Raises:
        ModelError: a name is that of a part of a parameter.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        names: Collection[str],
        batches: Iterable[TokenBatch],
        *,
        transposed: Collection[str] = (),
    ) -> None:
        self._model, self._turned = loaded.model, transposed
        own = dict(self._model.named_parameters())
        parts = [name for name in names if name not in own]
        if parts:
            what = f"'{parts[0]}' is part of a parameter, and products with the curvature need whole ones"
            raise ModelError(what, where="refine", remedy="set refine=0, or select other parameters")
        self._weights = {name: own[name].detach() for name in names}
        self._batches = [batch.to(loaded.device) for batch in batches]
        self._rows = sum(len(batch.rows) for batch in self._batches)

    def times(self, vectors: Vectors) -> dict[str, Tensor]:
        """F times each vector, in the form of the vectors.

        Raises:
            ModelError: a part of the model has no forward-mode derivative.
        """
        found = {name: torch.zeros_like(value) for name, value in vectors.items()}
        with plain_attention(self._model):
            for batch in self._batches:
                for some in self._parts(vectors, batch):
                    added = self._of_batch({n: self._as_stored(n, v[some]) for n, v in vectors.items()}, batch)
                    for name, value in added.items():
                        turned = value.mT if name in self._turned else value
                        found[name][some] += turned.reshape(found[name][some].shape) / self._rows
        return found

    def _as_stored(self, name: str, value: Tensor) -> Tensor:
        turned = value.mT if name in self._turned else value
        return turned.reshape(-1, *self._weights[name].shape).to(self._weights[name])

    def _parts(self, vectors: Vectors, batch: TokenBatch) -> list[slice]:
        count = len(next(iter(vectors.values())))
        size = batch.input_ids.numel() * self._model.config.get_text_config().vocab_size
        step = max(1, _MOST_NUMBERS // size)
        return [slice(first, first + step) for first in range(0, count, step)]

    def _of_batch(self, vectors: Mapping[str, Tensor], batch: TokenBatch) -> dict[str, Tensor]:
        def logits(weights: Mapping[str, Tensor]) -> Tensor:
            def call(**inputs: Any) -> Any:
                return functional_call(self._model, dict(weights), kwargs=inputs)

            return all_logits(call, batch.input_ids)[batch.response].float()

        here, back = vjp(logits, self._weights)[:2]
        p, share = here.softmax(-1), _shares(batch)[:, None]

        def one(direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
            change = jvp(logits, (self._weights,), (direction,))[1]
            found: dict[str, Tensor] = back(share * p * (change - (p * change).sum(-1, keepdim=True)))[0]
            return found

        try:
            made: dict[str, Tensor] = vmap(one)(dict(vectors))
        except NotImplementedError as error:
            what = (
                f"a part of {type(self._model).__name__} has no forward-mode derivative: {str(error).splitlines()[0]}"
            )
            raise ModelError(what, where="refine", remedy="set refine=0") from error
        return made


def conjugate_gradients(product: Operator, precondition: Operator, wanted: Vectors, steps: int) -> dict[str, Tensor]:
    """x after so many steps towards `product(x) = wanted`, for each vector by itself.

    Args:
        product: a symmetric positive definite matrix.
        precondition: something near its inverse, symmetric positive definite; with no step, this is the answer.
        wanted: the right sides.
        steps: how many products are made.
    """
    start = precondition(wanted)
    if not steps:
        return start
    x = {name: torch.zeros_like(value) for name, value in wanted.items()}
    left, direction = dict(wanted), start
    size = _dot(left, start)
    for _ in range(steps):
        moved = product(direction)
        length = _ratio(size, _dot(direction, moved))
        x, left = _plus(x, length, direction), _plus(left, -length, moved)
        near = precondition(left)
        before, size = size, _dot(left, near)
        direction = _plus(near, _ratio(size, before), direction)
    return x


def _plus(a: Vectors, scale: Float[Tensor, " vectors"], b: Vectors) -> dict[str, Tensor]:
    return {name: value + scale.to(value)[:, None, None] * b[name] for name, value in a.items()}


def _dot(a: Vectors, b: Vectors) -> Float[Tensor, " vectors"]:
    parts = [(value.double() * b[name].double()).flatten(1).sum(1).cpu() for name, value in a.items()]
    return torch.stack(parts).sum(0)


def _ratio(a: Float[Tensor, " vectors"], b: Float[Tensor, " vectors"]) -> Float[Tensor, " vectors"]:
    """a / b, and 0 where b is 0: a system that is solved, or all zero, moves no more."""
    return torch.where(b > 0, a / b.clamp_min(torch.finfo(b.dtype).tiny), 0.0)


def _shares(batch: TokenBatch) -> Float[Tensor, " tokens"]:
    """1/T² of the row of each target token, in the order of `batch.response`."""
    share = batch.target_counts.float().square().reciprocal()[batch.item_row]
    return share[:, None].expand(batch.response.shape)[batch.response]
