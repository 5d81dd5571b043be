"""The effect of a whole group of rows, such as all rows of a provider, and how much of it is interaction.

The sum of a group's scores counts what its rows share once for every row. Leave all of them out of a quadratic model of
the training, in the space of the method's vectors v, and the query's loss rises by

    effect(G, q) = qᵀ (H − Σ_G v vᵀ)⁻¹ Σ_G v          H = Σ_rows v vᵀ + λ I
                 = b_G · (I − B_GG)⁻¹ 1                b = V H⁻¹ q,   B = V H⁻¹ Vᵀ
    summed(G, q) = Σ_{i ∈ G} effect({i}, q)
                 = Σ_{i ∈ G} b_i / (1 − B_ii)          each row left out alone, while the others remain
    interaction  = effect − summed

λ is `damping` times the mean of the eigenvalues of Σ v vᵀ that are not 0. Rows whose vectors are orthogonal do not
interact.

This is the second-order group influence of Basu et al. (arXiv 1911.00418) with the empirical Fisher matrix as
curvature, solved exactly. With positive interaction the rows stand in for one another: each alone matters little,
because the others remain, and all of them together matter more than their sum. A positive effect means: without the
group the query's loss is higher.

Everything follows from the inner products of the rows with each other, so the vectors may be of any length. Memory: a
few times rows² numbers in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import UsageError, unknown_name
from headwater.core.trace import GroupEffect
from headwater.index.rows import stored_name
from headwater.index.store import Index
from headwater.search.codes import stored_names, stored_vectors

MOST_ROWS = 4096
"""More rows are refused: their inner products, three times rows² numbers, would take more than 400 MiB."""
NO_GROUP = "(none)"
"""Stands for rows without a value in the column."""


def group_effects(
    index: Index,
    queries: Mapping[str, Float[Tensor, "queries _dim"]],
    names: Sequence[str],
    column: str,
    damping: float,
) -> list[GroupEffect]:
    """The effect of each group of rows with one value in `column`, on each query.

    Args:
        index: its rows; at most `MOST_ROWS`.
        queries: vector column to the queries' vectors, weighted and without the method's own metric.
        names: of the queries.
        column: a metadata column.
        damping: λ as a share of the mean eigenvalue that is not 0.

    Raises:
        UsageError: there is no such column, there are too many rows, or the damping is not above 0.
    """
    if not 0 < damping < float("inf"):
        raise UsageError(f"a damping of {damping}", where="--damping", remedy="above 0; 0.1 is usual")
    if index.count > MOST_ROWS:
        what = f"{index.count:,} rows, and their inner products with each other must fit in memory"
        raise UsageError(what, where="--group-by", remedy=f"at most {MOST_ROWS:,} rows; index a sample of them")
    groups, kernel, towards = _products(index, queries, column)
    rank = min(len(kernel), sum(int(vectors.shape[1]) for vectors in queries.values()))
    shift = damping * float(kernel.trace()) / rank or 1.0
    factor = torch.linalg.cholesky(kernel + shift * torch.eye(len(kernel), dtype=kernel.dtype))
    single, between = torch.cholesky_solve(towards, factor), torch.cholesky_solve(kernel, factor)
    found = []
    for group in dict.fromkeys(groups):
        places = torch.tensor([i for i, name in enumerate(groups) if name == group])
        inner = torch.eye(len(places), dtype=kernel.dtype) - between[places][:, places]
        shares = torch.linalg.solve(inner, torch.ones(len(places), dtype=kernel.dtype))
        for q, name in enumerate(names):
            own = single[places, q]
            effect, summed = float(own @ shares), float((own / inner.diagonal()).sum())
            found.append(GroupEffect(name, group, len(places), effect, summed, effect - summed))
    order = {name: i for i, name in enumerate(names)}
    return sorted(found, key=lambda e: (order[e.query], -e.effect))


def _products(
    index: Index, queries: Mapping[str, Tensor], column: str
) -> tuple[list[str], Float[Tensor, "rows rows"], Float[Tensor, "rows queries"]]:
    """Each row's group, the rows' inner products with each other, and those with the queries; float64."""
    stored = stored_name(column, index.vectors)
    if stored not in index.plain:
        known = sorted({stored_name(name, index.vectors) for name in index.plain} & set(index.plain))
        raise unknown_name("column", column, [n for n in known if n != column], where="--group-by")
    columns = [c for c in index.manifest.columns if c.name in queries]
    vectors: dict[str, list[Tensor]] = {c.name: [] for c in columns}
    groups: list[str] = []
    for batch in index.batches([stored, *(n for c in columns for n in stored_names(c))], rows=1024):
        groups += [NO_GROUP if value is None else str(value) for value in batch.column(stored).to_pylist()]
        for c in columns:
            vectors[c.name].append(stored_vectors(pa.Table.from_batches([batch]), c))
    whole = {name: torch.cat(parts).double() for name, parts in vectors.items()}
    weights = {c.name: c.weight or 1.0 for c in columns}
    zero = torch.zeros((), dtype=torch.float64)
    kernel = sum((weights[name] * (v @ v.mT) for name, v in whole.items()), zero)
    towards = sum((v @ queries[name].double().mT for name, v in whole.items()), zero)
    return groups, kernel, towards
