"""What rows are ranked by: which of an index's vector columns, each with which weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import unknown_name
from headwater.core.spec import Column


def weights(columns: Sequence[Column], by: str | None) -> dict[str, float]:
    """Column name to weight: the method's own score, or the columns named in `by` (`rise+embedding`), weighted alike.

    Raises:
        UsageError: a column the index does not have.
    """
    own = {c.name: c.weight for c in columns if c.weight}
    if by is None:
        return own
    known = {c.name: c for c in columns}
    chosen = {}
    for name in by.split("+"):
        if name not in known:
            raise unknown_name("vector column", name, known, where=f"--by {by}")
        chosen[name] = known[name].weight or 1.0
    return chosen


def weigh(
    vectors: Mapping[str, Float[Tensor, "rows _dim"]], chosen: Mapping[str, float]
) -> dict[str, Float[Tensor, "rows _dim"]]:
    """Query vectors scaled so that a score is the plain sum of the columns' inner products."""
    return {name: vectors[name] * weight for name, weight in chosen.items()}
