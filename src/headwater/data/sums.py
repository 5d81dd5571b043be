"""Sums of values at repeated places that have the same bits on every run, on a GPU too."""

from __future__ import annotations

from jaxtyping import Int, Shaped
from torch import Tensor


def add_at(
    total: Shaped[Tensor, "places ..."], place: Int[Tensor, " values"], values: Shaped[Tensor, "values ..."]
) -> Shaped[Tensor, "places ..."]:
    """Add each of the values to `total`, in place, at its place along the first axis; returns `total`.

    On a GPU `index_add_` adds in whatever order its threads come; accumulating by index sorts the places first.
    Differentiable in the values.
    """
    if values.is_cuda:
        return total.index_put_((place,), values, accumulate=True)
    return total.index_add_(0, place, values)
