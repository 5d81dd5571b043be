"""Sketches of transformed gradients: each tensor's gradient is formed, transformed entry by entry, then sketched.

    v(row) = S(Γ(∇L(row)))  or its direction         with one Γ for rows and one for queries

Γ has a number of its own for each entry (see `headwater.curvature.adam`, `headwater.curvature.whitening`), so a linear
layer's gradient cannot stay in factors: one tensor's gradients exist in full at a time, for some rows of the batch. A
change of basis comes before Γ and is applied to the factors. Peak memory beyond the model's own pass: the result, and
`FORMED_BYTES` for each of the few copies that Γ makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.spec import Column, Coverage, Role
from headwater.data.batches import TokenBatch
from headwater.features.capture import visit_gradients
from headwater.features.encoder import Encoded, TokenScores
from headwater.features.gradient_sketch import COLUMN, GradientSketch
from headwater.features.row_losses import require_finite, row_losses, token_weights
from headwater.features.sites import ParameterSelection
from headwater.features.token_batches import single_tokens, spread
from headwater.features.totals import Totals
from headwater.models.load import LoadedModel
from headwater.sketch.blocks import Dense, Gradient, Outer
from headwater.sketch.products import FORMED_BYTES, dense
from headwater.sketch.sketch import Sketch
from headwater.sketch.two_sided import matrices_of


@dataclass(frozen=True)
class MarginSketch:
    """An `Encoder` whose vectors are those of `inner` (gradients of the loss, not normalised) divided by 1 − p."""

    inner: GradientSketch

    @property
    def columns(self) -> tuple[Column, ...]:
        """`gradient`, in float32."""
        return self.inner.columns

    @property
    def coverage(self) -> Coverage:
        """The selected parameters."""
        return self.inner.coverage

    def encode(self, batch: TokenBatch, role: Role) -> Encoded:
        """∇L / (1 − p), and zero for a row whose loss is 0."""
        found = self.inner.encode(batch, role)
        scale = _inverse_margin(found.losses)
        return Encoded({name: v * scale.to(v)[:, None] for name, v in found.vectors.items()}, found.losses)

    def token_scores(
        self, batch: TokenBatch, role: Role, probes: Mapping[str, Float[Tensor, "probes _dim"]]
    ) -> tuple[TokenScores, ...]:
        """Each token's part of the row's score on each probe; the parts add up to the score."""
        scored = self.inner.token_scores(batch, role, probes)
        if batch.paired:
            losses = self.inner.encode(batch, role).losses
        else:
            losses = torch.stack([scores.losses.nanmean() for scores in scored])
        return tuple(
            replace(scores, values={name: v * scale.to(v) for name, v in scores.values.items()})
            for scores, scale in zip(scored, _inverse_margin(losses), strict=True)
        )


def _inverse_margin(losses: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """1 / (1 − exp(−loss)), 0 where the loss is 0."""
    margin = -torch.expm1(-losses)
    return margin.reciprocal().masked_fill(margin <= 0, 0.0)


Transform = Callable[[str, Tensor], Tensor]
"""A function of (parameter name, gradients `[rows, *parameter]`) that returns a tensor of the same shape."""


@dataclass(frozen=True)
class TransformedSketch:
    """An `Encoder` that writes one column, `gradient`.

    Attributes:
        loaded: the model.
        selection: which parameters are read.
        sketch: the map from gradients to vectors.
        transforms: Γ for rows of the index and for queries; a role without one is sketched as it is.
        form: whether the sketch gets each tensor `flat` or as a `matrix` (two-sided sketches).
        unit: whether vectors are scaled to norm 1 after the sketch.
        turned: takes a parameter's gradient in factors and returns it in another basis, before Γ; None: as it is.
    """

    loaded: LoadedModel
    selection: ParameterSelection
    sketch: Sketch
    transforms: Mapping[Role, Transform]
    form: Literal["flat", "matrix"] = "flat"
    unit: bool = False
    turned: Callable[[Gradient], Gradient] | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """`gradient`: float16 if vectors are scaled to norm 1, else float32."""
        return (
            Column(COLUMN, self.sketch.dim, "float16" if self.unit else "float32", matrices=matrices_of(self.sketch)),
        )

    @property
    def coverage(self) -> Coverage:
        """The selected parameters."""
        return self.selection.coverage

    def encode(self, batch: TokenBatch, role: Role) -> Encoded:
        """Vectors of each row's mean loss; raises `NumericError` naming a row whose vector is not finite."""
        batch = batch.to(self.loaded.device)
        vectors, losses = self._read(batch, role)
        return Encoded({COLUMN: vectors * self._scale(vectors)[:, None]}, row_losses(losses, batch).float())

    def token_scores(
        self, batch: TokenBatch, role: Role, probes: Mapping[str, Float[Tensor, "probes _dim"]]
    ) -> tuple[TokenScores, ...]:
        """⟨S(Γ(the token's part of the row's gradient)), probe⟩, divided by the row's norm if vectors have norm 1.

        They add up to the row's score if Γ is linear; for Adam's update they do so only approximately.
        """
        batch = batch.to(self.loaded.device)
        whole, table = self._read(batch, role)
        scale, weights = self._scale(whole), token_weights(batch, table)
        values, losses, places = [], [], []
        for some, place in single_tokens(batch, 32):
            row = batch.item_row[place[:, 0]]
            vectors, loss = self._read(some, role, weights[place[:, 0], place[:, 1]])
            values.append((vectors * scale[row][:, None]) @ probes[COLUMN].to(vectors).mT)
            losses.append(row_losses(loss, some))
            places.append(place)
        return spread(batch, torch.cat(places), {COLUMN: torch.cat(values)}, torch.cat(losses))

    def _scale(self, vectors: Tensor) -> Float[Tensor, " rows"]:
        norms = vectors.norm(dim=1)
        return norms.reciprocal().masked_fill(norms == 0, 0.0) if self.unit else torch.ones_like(norms)

    def _read(self, batch: TokenBatch, role: Role, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Vectors `[rows, dim]` before scaling, and token losses `[items, tokens]` in nats."""
        totals = Totals(len(batch.rows), self.sketch.dim, self.loaded.device)
        transform = self.transforms.get(role)

        def visit(gradient: Gradient) -> None:
            gradient = self.turned(gradient) if self.turned else gradient
            step = max(1, FORMED_BYTES // (4 * gradient.size))
            total = totals.on(gradient.device)
            for first in range(0, gradient.rows, step):
                rows = slice(first, min(first + step, gradient.rows))
                values = dense(gradient.take(rows)).to(total.dtype)
                values = transform(gradient.name, values) if transform else values
                self.sketch.accumulate(total[rows], self._as_gradient(gradient, values), unit=False, norms=False)

        losses = visit_gradients(self.loaded.model, self.selection, batch, visit, weights=weights)
        total = totals.whole()
        require_finite(total.isfinite().all(1), batch, "the row's vector")
        return total, losses

    def _as_gradient(self, gradient: Gradient, values: Tensor) -> Gradient:
        """The transformed gradients as blocks: flat, or as Σ_i e_i ⊗ (row i of the matrix)."""
        matrix = values.mT if gradient.transposed else values
        if self.form == "flat" or len(gradient.shape) == 1:
            return Gradient(gradient.name, (gradient.size,), (Dense(matrix.flatten(1)),))
        out = gradient.shape[0]
        basis = torch.eye(out, dtype=matrix.dtype, device=matrix.device).expand(len(matrix), -1, -1)
        return Gradient(gradient.name, gradient.shape, (Outer(basis, matrix),))
