"""Exact scores: inner products of whole gradients, without compression.

They are the reference for every sketch, and score a shortlist again. Queries' blocks (factors, not matrices) are kept
in memory, rows are streamed, and one pair of tensors is multiplied out at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
    selection = selection or select_parameters(loaded.model)
    held = [_hold(loaded, selection, batch) for batch in queries]
    sizes = [len(batch.rows) for batch in queries]
    return torch.cat([_scores(loaded, selection, batch, held, sizes, normalize=normalize) for batch in train])


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
    held: Sequence[Held],
    sizes: Sequence[int],
    *,
    normalize: Normalization,
) -> Float[Tensor, "rows queries"]:
    """The scores of one batch of rows on all queries, which are `held` in groups of these `sizes`."""
    dtype = torch.promote_types(loaded.model.dtype, torch.float32)
    total = torch.zeros(len(batch.rows), sum(sizes), dtype=dtype, device=loaded.device)
    row_squares = torch.zeros_like(total[:, 0])

    def visit(gradient: Gradient) -> None:
        squared = squared_norms(gradient)
        row_squares.add_(squared.to(row_squares))
        for kept, columns in zip(held, total.split(list(sizes), dim=1), strict=True):
            if gradient.name in kept:
                query, query_squared = kept[gradient.name]
                scale = unit_scale(squared)[:, None] * unit_scale(query_squared) if normalize == "tensor" else 1.0
                columns.add_((inner_products(gradient, query) * scale).to(columns))

    visit_gradients(loaded.model, selection, batch.to(loaded.device), visit)
    if normalize == "row":
        zeros = torch.zeros_like(total[0]).split(list(sizes))
        query_squares = [sum((s for _, s in kept.values()), zero) for kept, zero in zip(held, zeros, strict=True)]
        total *= unit_scale(row_squares)[:, None] * unit_scale(torch.cat(query_squares))
    require_finite(total.isfinite().all(1), batch, "the row's or a query's gradient")
    return total.float()
