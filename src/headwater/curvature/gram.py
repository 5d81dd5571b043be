"""Gram metrics: inner products under the inverse of the vectors' own second moment.

    score(a, q) = ⟨a, (G + λI)⁻¹ q⟩,   G = (1/n) Σ_rows v vᵀ,   λ = damping · trace(G) / dim

This is the common core of TRAK (arXiv 2303.14186), LoGra (2405.13954) and TrackStar (2410.17413): directions in which
all rows' gradients are large count less. G is fitted on the stored rows of an index and applied to the query. So the
index keeps plain vectors, can grow and shrink, and the same rows always give the same metric. As damping → ∞, the score
times λ goes to the plain inner product.

Either side may be divided by its norm: both by `metric` gives a cosine (TrackStar), the row alone gives relative
influence (RelatIF, arXiv 2003.11630).

Memory: dim² numbers per block in float64. Time: one pass over the rows (n · dim²) and a Cholesky factor (dim³ / 3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import DataError, NumericError, UsageError

LARGEST = 16_384
"""Longest block that is allowed: its Gram matrix takes 2 GiB in float64."""

Norm = Literal["none", "metric", "step"]
"""What a side is divided by: nothing; its norm in the metric, √(vᵀ (G + λI)⁻¹ v); or the length of the preconditioned
step along the vector, ‖(G + λI)⁻¹ v‖. A vector of zeros stays zero."""


@dataclass(frozen=True)
class Metric:
    """How two vectors of one column are compared.

    Attributes:
        damping: λ as a share of the mean eigenvalue.
        blocks: lengths of the parts that are preconditioned separately (one per layer); empty: the whole vector.
        row_norm: what a row's product is divided by.
        query_norm: what a query's product is divided by.
        uncertain: whether a row's score is multiplied by 1 − p, p = exp(−loss) (TRAK's Q).
    """

    damping: float
    blocks: tuple[int, ...] = ()
    row_norm: Norm = "none"
    query_norm: Norm = "none"
    uncertain: bool = False

    def __post_init__(self) -> None:
        if self.damping <= 0:
            raise UsageError(f"a damping of {self.damping}", where="damping", remedy="above 0; 0.1 is usual")


@dataclass(frozen=True)
class FittedMetric:
    """A metric with the Cholesky factors L of G + λI, one per block, in float64 on the device it was fitted on."""

    metric: Metric
    factors: tuple[Float[Tensor, "_block _block"], ...]
    damping: tuple[float, ...]

    @property
    def scales_rows(self) -> bool:
        """Whether `row_scale` can differ from 1."""
        return self.metric.row_norm != "none" or self.metric.uncertain

    def solve(self, vectors: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """(G + λI)⁻¹ v, in the type and on the device of the vectors."""
        parts = zip(self._split(vectors), self.factors, strict=True)
        return torch.cat([torch.cholesky_solve(part.mT, factor).mT for part, factor in parts], dim=1).to(vectors)

    def probes(self, queries: Float[Tensor, "queries dim"]) -> Float[Tensor, "queries dim"]:
        """The vectors that rows are multiplied with: (G + λI)⁻¹ q times `query_scale`."""
        return self.solve(queries) * self.query_scale(queries).to(queries)[:, None]

    def query_scale(self, queries: Float[Tensor, "queries dim"]) -> Float[Tensor, " queries"]:
        """1 / the queries' norms, as `query_norm` defines them."""
        return self._inverse_norm(queries, self.metric.query_norm)

    def row_scale(self, rows: Float[Tensor, "rows dim"], losses: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """The factor on each row's product with a probe; `losses` in nats."""
        scale = self._inverse_norm(rows, self.metric.row_norm)
        if self.metric.uncertain:
            scale = scale * -torch.expm1(-losses.double()).to(scale.device)
        return scale.to(device=losses.device, dtype=torch.float32)

    def _inverse_norm(self, vectors: Float[Tensor, "n dim"], norm: Norm) -> Float[Tensor, " n"]:
        if norm == "none":
            return torch.ones(len(vectors), device=vectors.device)
        squared = torch.zeros(len(vectors), dtype=torch.float64, device=self.factors[0].device)
        for part, factor in zip(self._split(vectors), self.factors, strict=True):
            whitened = torch.linalg.solve_triangular(factor, part.mT, upper=False)
            measured = whitened if norm == "metric" else torch.linalg.solve_triangular(factor.mT, whitened, upper=True)
            squared += measured.square().sum(0)
        return squared.rsqrt().masked_fill(squared <= 0, 0.0)

    def _split(self, vectors: Float[Tensor, "n dim"]) -> tuple[Tensor, ...]:
        sizes = [len(factor) for factor in self.factors]
        return tuple(torch.split(vectors.to(self.factors[0].device).double(), sizes, dim=1))


def fit_metric(metric: Metric, batches: Iterable[Float[Tensor, "_ dim"]], *, where: str = "") -> FittedMetric:
    """The metric fitted on batches of vectors, on the device that they are on.

    A batch's Gram matrix is computed in float32, and the sum over batches in float64.

    Raises:
        DataError: there are no vectors.
        UsageError: the blocks do not add up to the vectors' length, or one is too long.
        NumericError: a vector is not finite.
    """
    grams: list[Tensor] = []
    sizes: tuple[int, ...] = metric.blocks
    count = 0
    for vectors in batches:
        sizes = sizes or (vectors.shape[1],)
        _require_sizes(sizes, vectors.shape[1], where)
        grams = grams or [torch.zeros(size, size, dtype=torch.float64, device=vectors.device) for size in sizes]
        parts = vectors.float().split(list(sizes), dim=1)
        grams = [gram + (part.mT @ part).double() for gram, part in zip(grams, parts, strict=True)]
        count += len(vectors)
    if not count:
        raise DataError("there are no vectors to fit a metric on", where=where)
    fitted = [_factor(gram / count, metric.damping, where) for gram in grams]
    return FittedMetric(metric, tuple(factor for factor, _ in fitted), tuple(damping for _, damping in fitted))


def _factor(gram: Float[Tensor, "dim dim"], share: float, where: str) -> tuple[Tensor, float]:
    """Cholesky factor of gram + λI, and λ, which is 1 for a block of zeros, where it changes no score."""
    trace = float(gram.trace())
    if not torch.isfinite(gram.trace()):
        raise NumericError("vectors to fit a metric on are not finite", where=where)
    damping = share * trace / len(gram) or 1.0
    damped = gram + damping * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor: Tensor = torch.linalg.cholesky(damped)
    return factor, damping


def _require_sizes(sizes: tuple[int, ...], dim: int, where: str) -> None:
    if sum(sizes) != dim:
        raise UsageError(f"blocks of {sum(sizes)} numbers for vectors of {dim}", where=where)
    if max(sizes) > LARGEST:
        what = f"a Gram matrix of {max(sizes):,} × {max(sizes):,}"
        raise UsageError(what, where=where, remedy=f"a sketch of at most {LARGEST:,} numbers, or one with blocks")
