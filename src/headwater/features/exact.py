"""Exact scores: inner products of whole gradients, without compression.

They are the reference for every sketch, and score a shortlist again. Queries' blocks (factors, not matrices) are kept
in memory, rows are streamed, and one pair of tensors is multiplied out at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.data.batches import TokenBatch
from headwater.features.capture import visit_gradients
from headwater.features.parameters import select_parameters
from headwater.features.row_losses import require_finite
from headwater.features.sites import ParameterSelection
from headwater.models.load import LoadedModel
from headwater.sketch.blocks import Gradient
from headwater.sketch.products import Normalization, chunks, inner_products, squared_norms, unit_scale

Whole = Mapping[str, Float[Tensor, "_rows _out _in"]]
"""Tensor name to the gradients of some rows, each as a matrix `(out, in)`; a vector is a matrix of one row."""

Held = dict[str, tuple[Gradient, Float[Tensor, " _rows"]]]
"""Tensor name to the gradients of a batch's rows and their squared norms."""


def whole_gradients(
    loaded: LoadedModel, selection: ParameterSelection, batches: Iterable[TokenBatch], count: int
) -> dict[str, Float[Tensor, "_rows _out _in"]]:
    """The gradients of `count` rows' mean losses, indexed by the rows' ordinals; float32 on the model's device."""
    found = {
        name: torch.zeros(count, *((1, *shape) if len(shape) == 1 else shape), device=loaded.device)
        for name, shape in selection.shapes.items()
    }
    for batch in batches:
        places = torch.tensor([row.row.ordinal for row in batch.rows], device=loaded.device)

        def keep(gradient: Gradient, places: Tensor = places) -> None:
            for rows, first, piece in chunks(gradient):
                found[gradient.name][places[rows], first : first + piece.shape[1]] = piece.float().to(places.device)

        visit_gradients(loaded.model, selection, batch.to(loaded.device), keep)
    return found


def products_with(
    loaded: LoadedModel, selection: ParameterSelection, batches: Iterable[TokenBatch], probes: Whole, count: int
) -> Float[Tensor, "rows queries"]:
    """Σ_tensors ⟨row's gradient, probe⟩; float32 on the CPU, indexed by the rows' ordinals.

    Raises:
        NumericError: a row's gradient is not finite.
    """
    queries = len(next(iter(probes.values())))
    found = torch.empty(count, queries)
    for batch in batches:
        total = torch.zeros(len(batch.rows), queries, device=loaded.device)

        def multiply(gradient: Gradient, total: Tensor = total) -> None:
            for rows, first, piece in chunks(gradient):
                probe = probes[gradient.name][:, first : first + piece.shape[1]].to(piece.device)
                total[rows] += (piece.float().flatten(1) @ probe.flatten(1).mT).to(total.device)

        visit_gradients(loaded.model, selection, batch.to(loaded.device), multiply)
        require_finite(total.isfinite().all(1), batch, "the row's gradient")
        found[[row.row.ordinal for row in batch.rows]] = total.cpu()
    return found


def exact_scores(
    loaded: LoadedModel,
    train: Iterable[TokenBatch],
    queries: Sequence[TokenBatch],
    *,
    normalize: Normalization = "tensor",
    selection: ParameterSelection | None = None,
) -> Float[Tensor, "rows queries"]:
    """Uncompressed scores of every row on every query; positive = proponent.

    `tensor`: Σ over tensors of cosines (RapidIn's score before compression). `row`: the cosine of the whole gradients.
    `none`: their inner product. `selection` is the parameters to read, all by default. Rows and queries are in the
    order of the batches.

    Raises:
        NumericError: a gradient is not finite.
    """
    how: dict[str, Any] = {"normalize": normalize, "selection": selection}
    return exact_parts(loaded, train, queries, lambda name: "", **how)[""]


def exact_parts(
    loaded: LoadedModel,
    train: Iterable[TokenBatch],
    queries: Sequence[TokenBatch],
    part_of: Callable[[str], str],
    *,
    normalize: Normalization = "tensor",
    selection: ParameterSelection | None = None,
) -> dict[str, Float[Tensor, "rows queries"]]:
    """`exact_scores` divided into parts, which sum to it; `part_of` names the part that a tensor belongs to."""
    selection = selection or select_parameters(loaded.model)
    held = [(_hold(loaded, selection, batch), len(batch.rows)) for batch in queries]
    names = dict.fromkeys(part_of(name) for name in selection.shapes)
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for batch in train:
        for name, scores in _scores(loaded, selection, batch, held, (normalize, part_of)).items():
            found[name].append(scores)
    return {name: torch.cat(parts) for name, parts in found.items()}


def _hold(loaded: LoadedModel, selection: ParameterSelection, batch: TokenBatch) -> Held:
    held: Held = {}

    def keep(gradient: Gradient) -> None:
        held[gradient.name] = (gradient, squared_norms(gradient))

    visit_gradients(loaded.model, selection, batch.to(loaded.device), keep)
    return held


def _scores(
    loaded: LoadedModel,
    selection: ParameterSelection,
    batch: TokenBatch,
    held: Sequence[tuple[Held, int]],
    how: tuple[Normalization, Callable[[str], str]],
) -> dict[str, Float[Tensor, "rows queries"]]:
    """The parts of one batch's scores on all queries, which are `held` in groups, each with its size."""
    normalize, part_of = how
    sizes = [size for _, size in held]
    dtype = torch.promote_types(loaded.model.dtype, torch.float32)
    shape = (len(batch.rows), sum(sizes))
    totals = {part_of(name): torch.zeros(shape, dtype=dtype, device=loaded.device) for name in selection.shapes}
    row_squares = torch.zeros(shape[0], dtype=dtype, device=loaded.device)

    def visit(gradient: Gradient) -> None:
        squared = squared_norms(gradient)
        row_squares.add_(squared.to(row_squares))
        columns_of = totals[part_of(gradient.name)].split(sizes, dim=1)
        for (kept, _), columns in zip(held, columns_of, strict=True):
            if gradient.name in kept:
                query, query_squared = kept[gradient.name]
                scale = unit_scale(squared)[:, None] * unit_scale(query_squared) if normalize == "tensor" else 1.0
                columns.add_((inner_products(gradient, query) * scale).to(columns))

    visit_gradients(loaded.model, selection, batch.to(loaded.device), visit)
    if normalize == "row":
        zeros = torch.zeros(shape[1], dtype=dtype, device=loaded.device).split(sizes)
        query_squares = [
            sum((s.to(zero) for _, s in kept.values()), zero) for (kept, _), zero in zip(held, zeros, strict=True)
        ]
        scale = unit_scale(row_squares)[:, None] * unit_scale(torch.cat(query_squares))
        totals = {name: total * scale for name, total in totals.items()}
    finite = torch.stack([total.isfinite().all(1) for total in totals.values()]).all(0)
    require_finite(finite, batch, "the row's or a query's gradient")
    return {name: total.float() for name, total in totals.items()}
