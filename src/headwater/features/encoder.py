"""The interface of a method that is bound to a model, and the vectors and token scores that it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from headwater.core.spec import Column, Coverage, Role
from headwater.data.batches import TokenBatch


@dataclass(frozen=True)
class Encoded:
    """Vectors of a batch's rows.

    Attributes:
        vectors: column name to `[rows, dim]`, float32 or, for a float64 model, float64.
        losses: float32 `[rows]`, nats, mean over the row's target tokens.
    """

    vectors: Mapping[str, Float[Tensor, "rows _dim"]]
    losses: Float[Tensor, " rows"]


@dataclass(frozen=True)
class TokenScores:
    """Contributions of each token of one row, aligned with the row's tokens.

    Attributes:
        values: column name to float32 `[tokens, probes]`; entry t belongs to the token that position t - 1 predicts
            (0 for other tokens). For additive methods the sum over tokens is the row's score.
        losses: float32 `[tokens]`, nats; NaN where the token is not predicted.
    """

    values: Mapping[str, Float[Tensor, "tokens probes"]]
    losses: Float[Tensor, " tokens"]


@runtime_checkable
class Encoder(Protocol):
    """A method bound to a model, which turns batches into vectors."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The vector columns that `encode` returns."""
        ...

    @property
    def coverage(self) -> Coverage:
        """The share of the model's parameters that enter the scores."""
        ...

    def encode(self, batch: TokenBatch, role: Role) -> Encoded:
        """Vectors of the batch's rows; raises `NumericError` naming a row with a value that is not finite."""
        ...

    def token_scores(
        self, batch: TokenBatch, role: Role, probes: Mapping[str, Float[Tensor, "probes _dim"]]
    ) -> tuple[TokenScores, ...]:
        """For each row of the batch, each token's contribution to the row's inner product with each probe."""
        ...


@runtime_checkable
class ExactEncoder(Encoder, Protocol):
    """An encoder that can also compute the scores that its vectors estimate, to score a shortlist again."""

    def exact_scores(self, train: Iterable[TokenBatch], queries: Sequence[TokenBatch]) -> Float[Tensor, "rows queries"]:
        """Uncompressed scores, rows and queries in the order of the batches; positive = proponent."""
        ...


@runtime_checkable
class ModuleEncoder(ExactEncoder, Protocol):
    """An encoder that can divide its exact scores by module."""

    def exact_parts(
        self, train: Iterable[TokenBatch], queries: Sequence[TokenBatch]
    ) -> Mapping[str, Float[Tensor, "rows queries"]]:
        """Module name to its part of the exact scores; the parts sum to them."""
        ...


@runtime_checkable
class GridEncoder(Encoder, Protocol):
    """An encoder that can score single tokens of a row on single tokens of a query."""

    def token_grid(self, row: TokenBatch, query: TokenBatch) -> Float[Tensor, "row_tokens query_tokens"]:
        """Influence of each token of one row on each token of one query; 0 where either is not a target."""
        ...
