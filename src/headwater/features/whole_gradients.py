"""Whole gradients of queries against whole gradients of rows: the queries' are held, the rows' are streamed past.

Memory: queries × selected parameters × 4 bytes for what is held, and the pieces of one batch's gradients
(`products.FORMED_BYTES`). A query's gradient may have been changed on the way (preconditioned) before rows meet it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import NumericError
from headwater.data.batches import TokenBatch
from headwater.features.capture import visit_gradients
from headwater.features.parameters import ParameterSelection
from headwater.models.load import LoadedModel
from headwater.sketch.blocks import Gradient
from headwater.sketch.products import chunks

Whole = Mapping[str, Float[Tensor, "_rows _out _in"]]
"""Tensor name to the gradients of some rows, each as a matrix `(out, in)`; a vector is a matrix of one row."""


def whole_gradients(
    loaded: LoadedModel, selection: ParameterSelection, batches: Iterable[TokenBatch], count: int
) -> dict[str, Float[Tensor, "_rows _out _in"]]:
    """The gradients of `count` rows' mean losses, placed by the rows' ordinals; float32 on the model's device."""
    found = {
        name: torch.zeros(count, *((1, *shape) if len(shape) == 1 else shape), device=loaded.device)
        for name, shape in selection.shapes.items()
    }
    for batch in batches:
        places = torch.tensor([row.row.ordinal for row in batch.rows], device=loaded.device)

        def keep(gradient: Gradient, places: Tensor = places) -> None:
            for rows, first, piece in chunks(gradient):
                found[gradient.name][places[rows], first : first + piece.shape[1]] = piece.float()

        visit_gradients(loaded.model, selection, batch.to(loaded.device), keep)
    return found


def products_with(
    loaded: LoadedModel, selection: ParameterSelection, batches: Iterable[TokenBatch], probes: Whole, count: int
) -> Float[Tensor, "rows queries"]:
    """Σ_tensors ⟨row's gradient, probe⟩, float32 on the CPU, rows placed by their ordinals.

    Raises:
        NumericError: a row's gradient is not finite.
    """
    queries = len(next(iter(probes.values())))
    found = torch.empty(count, queries)
    for batch in batches:
        total = torch.zeros(len(batch.rows), queries, device=loaded.device)

        def meet(gradient: Gradient, total: Tensor = total) -> None:
            for rows, first, piece in chunks(gradient):
                probe = probes[gradient.name][:, first : first + piece.shape[1]]
                total[rows] += piece.float().flatten(1) @ probe.flatten(1).mT

        visit_gradients(loaded.model, selection, batch.to(loaded.device), meet)
        bad = (~total.isfinite().all(1)).nonzero()
        if len(bad):
            where = batch.rows[int(bad[0, 0])].row.where
            raise NumericError("the row's gradient is not finite", where=where, remedy="load the model in float32")
        found[[row.row.ordinal for row in batch.rows]] = total.cpu()
    return found
