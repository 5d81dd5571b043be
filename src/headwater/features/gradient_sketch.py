"""The gradient encoder, which normalises, sketches and sums the tensors of per-example gradients as they arrive.

RapidIn (Lin et al., arXiv 2405.11724): v = Σ_tensors S(∇_l L) / ‖∇_l L‖, so that ⟨v(s), v(t)⟩ estimates
Σ_l cos(∇_l L(s), ∇_l L(t)). One tensor is multiplied out at a time and only the sums are kept.
Peak memory beyond the model's own pass: the result (rows × dim × 4 bytes) and the sketch's working set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.spec import Column, Coverage, Role, Storage
from headwater.data.batches import TokenBatch
from headwater.features.capture import HeadReading, visit_gradients
from headwater.features.encoder import Encoded, TokenScores
from headwater.features.exact import exact_parts, exact_scores
from headwater.features.row_losses import require_finite, row_losses, token_weights
from headwater.features.sites import ParameterSelection
from headwater.features.token_batches import single_tokens, spread
from headwater.features.totals import Spare, Totals
from headwater.models.load import LoadedModel
from headwater.sketch.blocks import Gradient
from headwater.sketch.products import Normalization, unit_scale
from headwater.sketch.sketch import Sketch, takes_packed
from headwater.sketch.two_sided import matrices_of

TokenMode = Literal["token", "row"]
"""How a token's gradient is normalised: by itself (the paper), or by the row's norms (shares that add up)."""

COLUMN = "gradient"


@dataclass(frozen=True)
class Sketched:
    """Rows of a batch: vectors `[rows, dim]`, squared gradient norms by tensor `[rows]`, losses `[items, tokens]`."""

    vectors: Float[Tensor, "rows dim"]
    squared: Mapping[str, Float[Tensor, " rows"]]
    losses: Float[Tensor, "items tokens"]


@dataclass(frozen=True)
class GradientSketch:
    """An `Encoder` that writes one column, `gradient`.

    Attributes:
        loaded: the model.
        selection: which parameters are read.
        sketch: the map from gradients to vectors.
        normalize: what is scaled to norm 1.
        tokens: how `token_scores` normalises.
        token_items: how many single-token examples are run at a time.
        spare: the memory of the vectors of one batch, used again for the next one.
    """

    loaded: LoadedModel
    selection: ParameterSelection
    sketch: Sketch
    normalize: Normalization = "tensor"
    tokens: TokenMode = "token"
    token_items: int = 32
    spare: Spare = field(default_factory=Spare, init=False, repr=False, compare=False)

    @property
    def columns(self) -> tuple[Column, ...]:
        """`gradient`: float16 if vectors are normalised, else float32."""
        dtype: Storage = "float32" if self.normalize == "none" else "float16"
        return (Column(COLUMN, self.sketch.dim, dtype, matrices=matrices_of(self.sketch)),)

    @property
    def coverage(self) -> Coverage:
        """The selected parameters, with a note if the sketch is longer than the gradient."""
        seen = self.selection.coverage
        if self.sketch.dim <= seen.seen:
            return seen
        longer = f"the sketch of {self.sketch.dim:,} numbers is longer than the gradient"
        return replace(seen, note="; ".join(filter(None, (seen.note, longer))))

    def encode(self, batch: TokenBatch, role: Role) -> Encoded:
        """Sketched gradients of each row's mean loss."""
        batch = batch.to(self.loaded.device)
        found = self.read(batch)
        return Encoded({COLUMN: found.vectors.float()}, row_losses(found.losses, batch).float())

    def token_scores(
        self, batch: TokenBatch, role: Role, probes: Mapping[str, Float[Tensor, "probes _dim"]]
    ) -> tuple[TokenScores, ...]:
        """⟨vector of the token's own loss, probe⟩ for every target token.

        Mode `token`: the gradient of that token's loss, normalised as a row's would be; the other way round in the
        rejected answer of a preference pair. Mode `row`: the token's part of the row's loss, divided by the row's
        norms; these add up to the row's score.
        """
        batch = batch.to(self.loaded.device)
        vectors, losses, places = self.token_vectors(batch)
        probe = probes[COLUMN].to(vectors)
        return spread(batch, places, {COLUMN: vectors @ probe.mT}, losses)

    def exact_scores(self, train: Iterable[TokenBatch], queries: Sequence[TokenBatch]) -> Float[Tensor, "rows queries"]:
        """The scores that the vectors' inner products estimate, from the whole gradients."""
        return exact_scores(self.loaded, train, queries, normalize=self.normalize, selection=self.selection)

    def exact_parts(
        self, train: Iterable[TokenBatch], queries: Sequence[TokenBatch]
    ) -> dict[str, Float[Tensor, "rows queries"]]:
        """The exact scores by module: what its weight and bias, or an adapter's two factors, add to the score."""
        how: dict[str, Any] = {"normalize": self.normalize, "selection": self.selection}
        return exact_parts(self.loaded, train, queries, module_of, **how)

    def token_grid(self, row: TokenBatch, query: TokenBatch) -> Float[Tensor, "row_tokens query_tokens"]:
        """I(t^j, s^i) of one row's tokens on one query's: entry (i, j) belongs to token i of the row, j of the query.

        Indexed by the rows' tokens; 0 where a token is not a target. Both sides' tokens are normalised in the same way.
        """
        sides = []
        for batch in (row, query):
            vectors, _, places = self.token_vectors(batch)
            token = batch.start.to(places.device)[places[:, 0]] + places[:, 1] + 1
            sides.append((vectors, token, len(batch.rows[0].ids)))
        (left, i, rows), (right, j, columns) = sides
        grid = torch.zeros(rows, columns, dtype=left.dtype, device=left.device)
        grid[i[:, None], j[None, :]] = left @ right.mT
        return grid.float()

    def token_vectors(self, batch: TokenBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors `[targets, dim]` and losses `[targets]` of the batch's target tokens, and their (item, position)."""
        batch = batch.to(self.loaded.device)
        whole = self.read(batch) if self.tokens == "row" else None
        shares = batch.side[:, None] * batch.response if whole is None else token_weights(batch, whole.losses)
        vectors, losses, places = [], [], []
        for some, place in single_tokens(batch, self.token_items):
            row, share = batch.item_row[place[:, 0]], shares[place[:, 0], place[:, 1]]
            if whole is None:
                found = self.read(some)
                vectors.append(found.vectors * share.to(found.vectors)[:, None])
            else:
                divisors = {name: squared[row] for name, squared in whole.squared.items()}
                found = self.read(some, divisors=divisors, weights=share)
                vectors.append(found.vectors)
            losses.append(row_losses(found.losses, some))
            places.append(place)
        return torch.cat(vectors), torch.cat(losses), torch.cat(places)

    def read(
        self,
        batch: TokenBatch,
        *,
        divisors: Mapping[str, Float[Tensor, " rows"]] | None = None,
        weights: Float[Tensor, " rows"] | None = None,
    ) -> Sketched:
        """The vectors of a batch's rows; the batch must be on the model's device.

        Args:
            divisors: squared norms by tensor to normalise by, instead of the gradients' own.
            weights: factor on each row's loss.

        Raises:
            NumericError: a gradient is not finite; names the row.
        """
        totals = Totals(len(batch.rows), self.sketch.dim, self.loaded.device, self.spare)
        squared: dict[str, Tensor] = {}
        unit = self.normalize == "tensor" and divisors is None

        def visit(gradient: Gradient) -> None:
            total = totals.on(gradient.device, gradient.dtype)
            if self.normalize == "tensor" and divisors is not None:
                part = torch.zeros_like(total)
                squared[gradient.name] = self.sketch.accumulate(part, gradient, unit=False)
                total.addcmul_(part, unit_scale(divisors[gradient.name]).to(part)[:, None])
            else:
                norms = self.normalize != "none"
                squared[gradient.name] = self.sketch.accumulate(total, gradient, unit=unit, norms=norms)

        head: HeadReading = "packed" if takes_packed(self.sketch) else "summed"
        losses = visit_gradients(self.loaded.model, self.selection, batch, visit, weights=weights, head=head)
        total = totals.whole()
        if self.normalize == "row":
            total *= unit_scale(_total(divisors or squared, total))[:, None]
        # A finite norm has finite entries only, and so has every sum of them divided by norms. If no norms were asked
        # for, or the divisors are others, the vector is tested: a sum is finite only if all its terms are.
        finite = _total(squared, total).isfinite()
        if self.normalize == "none" or divisors is not None:
            finite &= total.sum(1).isfinite()
        require_finite(finite, batch, "the row's gradient")
        return Sketched(total, squared, losses)


_FACTOR = re.compile(r"\.(lora_[A-Za-z_]+|lokr_\w+|loha_\w+|hada_\w+|ia3_\w+|base_layer)(\.[^.]+)?(?=\.|$)")


def module_of(tensor: str) -> str:
    """The module that a tensor belongs to: `q_proj` for its weight, its bias, and an adapter's factors around it."""
    module = re.sub(r"\.(weight|bias)$", "", tensor)
    return _FACTOR.sub("", module)


def _total(squared: Mapping[str, Tensor], like: Tensor) -> Tensor:
    total = torch.zeros(len(like), dtype=like.dtype, device=like.device)
    for values in squared.values():
        total += values.to(total)
    return total
