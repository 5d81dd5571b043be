"""How much of other columns' scores is added to a method's own score, one query at a time.

A column that measures something else, such as resemblance, helps with some queries and harms others. It helps where
the rows that stand out in it are the rows that stand out in the method's own score. With a and b the scores of the same
rows in both,

    agreement = Pearson(a, b) − Spearman(a, b)
    score     = a + strength · max(0, agreement) · (std a / std b) · b

Ranks know of no outliers, so Spearman's coefficient is what the bulk of the rows would agree by alone (long rows have
large scores in both, say), and the difference is what the outliers add. Nothing but the index is needed for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from headwater.index.store import Index
from headwater.search.codes import stored_names
from headwater.search.products import QueryVectors, product
from headwater.search.scan import scores_in

SAMPLE = 4096
"""Agreement is measured on at most so many rows, evenly spaced over the index."""

_AT_ONCE = 512
_ROUNDING = 1e-6
"""Scores that differ by no more than this share of the largest are taken to be equal."""


@dataclass(frozen=True)
class AgreeingColumns:
    """Which columns are added to the score of the others, and how strongly."""

    columns: tuple[str, ...]
    strength: float

    def weights(self, index: Index, probes: QueryVectors) -> dict[str, Float[Tensor, " queries"]]:
        """The weight of every added column's inner product for each query; `probes` holds all columns, weighted."""
        if not index.count:
            return {name: torch.zeros(len(probes[name])) for name in self.columns}
        scores = _sampled(index, probes)
        own = torch.stack([part for name, part in scores.items() if name not in self.columns]).sum(0)
        return {name: self.strength * added_weight(own, scores[name]) for name in self.columns}


def added_weight(own: Float[Tensor, "queries rows"], other: Float[Tensor, "queries rows"]) -> Float[Tensor, " queries"]:
    """max(0, Pearson − Spearman) · std(own) / std(other) for each query; 0 where one of the two does not vary.

    What varies only as rounding does counts as constant: the quotient of the spreads would have no bounds.
    """
    agreement = _correlation(own, other) - _correlation(_ranks(own), _ranks(other))
    spread = other.std(dim=1, correction=0)
    varies = spread > _ROUNDING * other.abs().amax(dim=1)
    ratio = own.std(dim=1, correction=0) / torch.where(varies, spread, 1)
    return torch.where(varies, agreement.clamp_min(0) * ratio, 0).float()


def _correlation(a: Float[Tensor, "queries rows"], b: Float[Tensor, "queries rows"]) -> Float[Tensor, " queries"]:
    a, b = (x.double() - x.double().mean(dim=1, keepdim=True) for x in (a, b))
    norms = a.norm(dim=1) * b.norm(dim=1)
    return (a * b).sum(dim=1) / torch.where(norms > 0, norms, 1)


def _ranks(scores: Float[Tensor, "queries rows"]) -> Float[Tensor, "queries rows"]:
    """The rank of each row for each query; rows of equal scores share the mean of their ranks."""
    return torch.from_numpy(rankdata(scores.numpy(), axis=1))


def _sampled(index: Index, probes: QueryVectors) -> dict[str, Float[Tensor, "queries rows"]]:
    """Each column's scores of the sampled rows, on the CPU."""
    columns = [column for column in index.manifest.columns if column.name in probes]
    products = {column: product(probes[column.name], column) for column in columns}
    names = [name for column in columns for name in stored_names(column)]
    found: dict[str, list[Tensor]] = {column.name: [] for column in columns}
    for places in _in_pieces(index.count):
        for batch in index.take(places, names).combine_chunks().to_batches():
            for column, multiply in products.items():
                found[column.name].append(scores_in(batch, column, multiply).cpu())
    return {name: torch.cat(parts, dim=1) for name, parts in found.items()}


def _in_pieces(count: int) -> list[Sequence[int]]:
    """The positions of the sampled rows, a few at a time."""
    places = np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(np.int64))
    return [places[first : first + _AT_ONCE].tolist() for first in range(0, len(places), _AT_ONCE)]
