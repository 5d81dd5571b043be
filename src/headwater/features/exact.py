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
from headwater.features.parameters import ParameterSelection, select_parameters
from headwater.features.row_losses import require_finite
from headwater.models.load import LoadedModel
from headwater.sketch.blocks import Gradient
from headwater.sketch.products import Normalization, chunks, inner_products, squared_norms, unit_scale

Whole = Mapping[str, Float[Tensor, "_rows _out _in"]]
"""Tensor name to the gradients of some rows, each as a matrix `(out, in)`; a vector is a matrix of one row."""


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
                found[gradient.name][places[rows], first : first + piece.shape[1]] = piece.float()

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
                probe = probes[gradient.name][:, first : first + piece.shape[1]]
                total[rows] += piece.float().flatten(1) @ probe.flatten(1).mT

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
    held: list[dict[str, tuple[Gradient, Tensor]]] = []
    for batch in queries:
        kept: dict[str, tuple[Gradient, Tensor]] = {}

        def keep(gradient: Gradient, kept: dict[str, tuple[Gradient, Tensor]] = kept) -> None:
            kept[gradient.name] = (gradient, squared_norms(gradient))

        visit_gradients(loaded.model, selection, batch.to(loaded.device), keep)
        held.append(kept)
    sizes = [len(batch.rows) for batch in queries]
    parts = []
    for batch in train:
        scorer = _Scorer(held, sizes, normalize)
        visit_gradients(loaded.model, selection, batch.to(loaded.device), scorer.visit)
        parts.append(scorer.scores(batch).float())
    return torch.cat(parts)


class _Scorer:
    """The running scores of one batch of rows against all queries."""

    def __init__(
        self, held: list[dict[str, tuple[Gradient, Tensor]]], sizes: list[int], normalize: Normalization
    ) -> None:
        self._held, self._sizes, self._normalize = held, sizes, normalize
        self._total: Tensor | None = None
        self._squared: Tensor | None = None

    def visit(self, gradient: Gradient) -> None:
        """Add one tensor's inner products."""
        squared = squared_norms(gradient)
        if self._total is None or self._squared is None:
            self._total = torch.zeros(gradient.rows, sum(self._sizes), dtype=squared.dtype, device=squared.device)
            self._squared = torch.zeros_like(squared)
        self._squared += squared
        start = 0
        for kept, size in zip(self._held, self._sizes, strict=True):
            if gradient.name in kept:
                query, query_squared = kept[gradient.name]
                products = inner_products(gradient, query)
                if self._normalize == "tensor":
                    products *= unit_scale(squared)[:, None] * unit_scale(query_squared)
                self._total[:, start : start + size] += products
            start += size

    def scores(self, batch: TokenBatch) -> Float[Tensor, "rows queries"]:
        """The finished scores."""
        if self._total is None or self._squared is None:
            return torch.zeros(len(batch.rows), sum(self._sizes))
        total = self._total
        if self._normalize == "row":
            norms = [sum(squared for _, squared in kept.values()) for kept in self._held]
            total = total * unit_scale(self._squared)[:, None] * unit_scale(torch.cat(norms))  # type: ignore[arg-type]
        require_finite(total.isfinite().all(1), batch, "the row's or a query's gradient")
        return total
