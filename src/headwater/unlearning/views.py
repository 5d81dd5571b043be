"""Influence of forget and retain rows on each other, in four views (RapidUn, arXiv 2512.04457).

g are the vectors of a gradient method or of RISE. I(i, t) = ⟨g_i, g_t⟩ is the influence of training on row i on row t.
The first letter of a view is the group of the row that gets the weight, the second the group it acts on:

    a_FR(i) = median over retain rows t of I(i, t)      likewise a_FF, a_RF, a_RR
    S_F(i) = a_FF(i) − a_FR(i)                          high: the row drives the poison more than the retain rows
    S_R(j) = a_RR(j) − a_RF(j)                          high: the row supports the retain rows more than the poison

In the published code, all but the k largest entries of each target t are set to zero before the median is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from headwater.core.errors import DataError, NumericError, UsageError
from headwater.core.spec import Column
from headwater.data.tokens import TokenRow
from headwater.methods.bound import Bound

Matrix = Float[np.ndarray, "rows targets"]


@dataclass(frozen=True)
class Influence:
    """I(i, t) of all pairs of rows: float64 `[forget + retain, forget + retain]`, forget rows first.

    Positive: training on row i lowers the loss of row t. `forget` is the number of forget rows.
    """

    values: NDArray[np.float64]
    forget: int

    def __post_init__(self) -> None:
        rows = self.values.shape[0]
        if self.values.shape != (rows, rows) or not 0 < self.forget < rows:
            raise DataError(
                f"influence of shape {self.values.shape} with {self.forget} forget rows",
                where="views",
                remedy="give at least one forget and one retain row, each against all",
            )
        if not np.isfinite(self.values).all():
            i, t = np.argwhere(~np.isfinite(self.values))[0]
            raise NumericError(f"influence {self.values[i, t]}", where=f"row {i} on row {t}")


@dataclass(frozen=True)
class Views:
    """The four views and the two scores, each float64 `[rows of the group of its first letter]`."""

    ff: NDArray[np.float64]
    fr: NDArray[np.float64]
    rf: NDArray[np.float64]
    rr: NDArray[np.float64]

    @property
    def forget(self) -> NDArray[np.float64]:
        """S_F = a_FF − a_FR."""
        return self.ff - self.fr

    @property
    def retain(self) -> NDArray[np.float64]:
        """S_R = a_RR − a_RF."""
        return self.rr - self.rf


def measure_influence(
    bound: Bound, forget: Sequence[TokenRow], retain: Sequence[TokenRow], *, cosine: bool = True
) -> Influence:
    """Measure the influence of the rows on each other with an attribution method.

    All rows are read as queries are, at their responses, because that is what unlearning trains on. Since both sides
    are read alike, the influence is symmetric.

    Args:
        bound: a method on a reader: `gradcos`, `rapidin`, `graddot` or `rise`.
        forget: rows with the unwanted answers, as tokens.
        retain: rows to keep, as tokens.
        cosine: scale each row's vector to norm 1 (all columns together). Otherwise short answers, whose mean gradient
            is long, count for more. The published code does not scale.

    Raises:
        DataError: a column of the method's score has a negative weight.
        NumericError: a row's vector is zero, or an influence is not finite.
    """
    vectors = bound.encode_tokens([*forget, *retain], "query").vectors
    name = bound.method.spec.name
    return influence_of(vectors, bound.encoder.columns, forget=len(forget), cosine=cosine, method=name)


def make_views(influence: Influence, *, k: int | None = None, exclude_self: bool = True) -> Views:
    """The four views.

    Args:
        influence: I among all rows.
        k: for each target, keep the k largest entries of a block and set the others to zero (published: 40); None
            keeps all.
        exclude_self: leave I(i, i) out of the medians of FF and RR; the published code counts it.

    Raises:
        UsageError: k below 1.
    """
    if k is not None and k < 1:
        raise UsageError(f"k = {k}", where="views", remedy="give 1 or more, or None to keep all")
    f, values = influence.forget, influence.values
    return Views(
        ff=_middle(values[:f, :f], k, exclude_self=exclude_self),
        fr=_middle(values[:f, f:], k),
        rf=_middle(values[f:, :f], k),
        rr=_middle(values[f:, f:], k, exclude_self=exclude_self),
    )


def _middle(block: Matrix, k: int | None, *, exclude_self: bool = False) -> NDArray[np.float64]:
    """Median over targets, after truncation to k entries; in a block of one row that row itself always counts."""
    kept = block if k is None or k >= len(block) else np.where(_largest(block, k), block, 0.0)
    if exclude_self and len(block) > 1:
        others = ~np.eye(len(block), dtype=bool)
        kept = kept[others].reshape(len(block), len(block) - 1)
    middle: NDArray[np.float64] = np.median(kept, axis=1)
    return middle


def _largest(block: Matrix, k: int) -> NDArray[np.bool_]:
    """Mark the entries that are among the k largest of their column; of equal entries the earlier row comes first."""
    mask = np.zeros(block.shape, dtype=bool)
    np.put_along_axis(mask, np.argsort(-block, axis=0, kind="stable")[:k], True, axis=0)
    return mask


def influence_of(
    vectors: Mapping[str, object], columns: Sequence[Column], *, forget: int, cosine: bool, method: str
) -> Influence:
    """I among rows from their vectors, forget rows first; `columns` are those of the method's score.

    Raises:
        DataError: a column of the method's score has a negative weight.
        NumericError: a row's vector is zero, or an influence is not finite.
    """
    joined = _joined(vectors, columns, method)
    joined = _unit(joined) if cosine else joined
    return Influence(joined @ joined.T, forget)


def _joined(vectors: Mapping[str, object], columns: Sequence[Column], method: str) -> NDArray[np.float64]:
    """The columns of the score side by side, each scaled so that inner products are the method's scores."""
    scored = [c for c in columns if c.weight]
    parts = [np.asarray(vectors[c.name], dtype=np.float64) * np.sqrt(abs(c.weight)) for c in scored]
    if any(c.weight < 0 for c in scored):
        raise DataError("a column with a negative weight cannot be part of an inner product", where=method)
    return np.concatenate(parts, axis=1)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not norms.all():
        raise NumericError("a row's vector is zero", where=f"row {int(np.argmin(norms)) + 1} of forget and retain rows")
    unit: NDArray[np.float64] = vectors / norms
    return unit
