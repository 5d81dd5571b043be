"""What rows are ranked by: which of an index's vector columns, each with which weight, in which metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import unknown_name
from headwater.core.spec import Column
from headwater.index.store import Index
from headwater.indexing.encode import Reader
from headwater.search.metrics import Metrics, apply_metrics, fit_metrics


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


def prepare(
    index: Index, reader: Reader, vectors: Mapping[str, Float[Tensor, "queries _dim"]], chosen: Mapping[str, float]
) -> tuple[dict[str, Float[Tensor, "queries _dim"]], Metrics]:
    """Query vectors as probes for a search by the `chosen` columns, and the metrics the search needs beside them.

    Metrics are fitted on the index as it is now: one pass over the columns that have one.
    """
    wanted = reader.method.metrics(reader.encoder)
    fitted = fit_metrics(index, {name: metric for name, metric in wanted.items() if name in chosen})
    return weigh(apply_metrics(fitted, {name: vectors[name] for name in chosen}), chosen), fitted
