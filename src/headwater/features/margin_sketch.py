"""Sketched gradients of the margin ln(p / (1 − p)), with p = exp(−mean loss): TRAK's features, up to sign.

    ∇ ln(p / (1 − p)) = ∇p / (p (1 − p)) = −∇L / (1 − p)

p is the geometric mean of the probabilities of the row's target tokens, so a row of text is one example as TRAK's
classification examples are, and its margin's gradient is its loss's, scaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.spec import Column, Coverage, Role
from headwater.data.batches import TokenBatch
from headwater.features.encoder import Encoded, TokenScores
from headwater.features.gradient_sketch import GradientSketch


@dataclass(frozen=True)
class MarginSketch:
    """An `Encoder` whose vectors are those of `inner` (gradients of the loss, not normalised) over 1 − p."""

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
        """∇L / (1 − p); a row whose loss is 0 has none, and is zero."""
        found = self.inner.encode(batch, role)
        scale = _over_doubt(found.losses)
        return Encoded({name: v * scale.to(v)[:, None] for name, v in found.vectors.items()}, found.losses)

    def token_scores(
        self, batch: TokenBatch, role: Role, probes: Mapping[str, Float[Tensor, "probes _dim"]]
    ) -> tuple[TokenScores, ...]:
        """Each token's part of the row's vector on each probe; they add up to the row's."""
        scored = self.inner.token_scores(batch, role, probes)
        losses = torch.stack([scores.losses.nanmean() for scores in scored])
        return tuple(
            replace(scores, values={name: v * scale.to(v) for name, v in scores.values.items()})
            for scores, scale in zip(scored, _over_doubt(losses), strict=True)
        )


def _over_doubt(losses: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """1 / (1 − exp(−loss)), 0 where the loss is 0."""
    doubt = -torch.expm1(-losses)
    return doubt.reciprocal().masked_fill(doubt <= 0, 0.0)
