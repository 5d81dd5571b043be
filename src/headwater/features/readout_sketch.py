"""The RISE encoder, which sketches token residuals and hidden states, multiplies them and sums over a window.

Ran et al., arXiv 2604.16197, "Estimator". Per position t, with count-sketches CS_r, CS_h, CS_g:

    r̂ = CS_r(r) / ‖·‖      ĥ = CS_h(h) / ‖·‖      ĝ = CS_g(Wᵀ r) / ‖·‖ = Σ_v r(v) CS_g(W_v) / ‖·‖
    window = L2( [ λ_rh Σ_t r̂_t ⊗ ĥ_t , λ_gh Σ_t ĝ_t ⊗ ĥ_t , λ_rg Σ_t r̂_t ⊗ ĝ_t ] )
    row    = L2( mean over windows )

CS_r and CS_g ∘ Wᵀ are columns of one matrix over the vocabulary, so one product per chunk gives both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headwater.core.spec import Column, Coverage, Role
from headwater.data.batches import TokenBatch
from headwater.features.encoder import Encoded, TokenScores
from headwater.features.residuals import Support, readout_chunks
from headwater.features.row_losses import require_finite, row_losses, token_weights
from headwater.features.vocabulary_tiles import TOKENS, sketched_residuals
from headwater.models.readout import Readout
from headwater.sketch.count_sketch import count_sketch_matrix
from headwater.sketch.precision import narrow_products_pay, tensor_cores

EPS = 1e-8
Positions = Literal["all", "response"]


@dataclass(frozen=True)
class Channels:
    """Weights λ of the three channels (0 leaves one out) and widths of the three sketches (0: no sketch)."""

    rh: float = 1.0
    gh: float = 0.3
    rg: float = 0.0
    width_r: int = 128
    width_h: int = 128
    width_g: int = 64


@dataclass(frozen=True)
class Factors:
    """Sketched factors of every position of a batch; zero at positions that do not enter the vector.

    `share` is what a position counts for, if the batch has preference pairs; else all count alike.
    """

    r: Float[Tensor, "items tokens width_r"]
    g: Float[Tensor, "items tokens width_g"]
    h: Float[Tensor, "items tokens width_h"]
    losses: Float[Tensor, "items tokens"]
    share: Float[Tensor, "items tokens 1"] | None = None

    def channels(self, weights: Channels) -> Iterator[tuple[float, Tensor, Tensor]]:
        """The weight of each channel that is on, and its left factors (times `share`) and right factors."""
        for weight, left, right in (
            (weights.rh, self.r, self.h),
            (weights.gh, self.g, self.h),
            (weights.rg, self.r, self.g),
        ):
            if weight:
                yield weight, left if self.share is None else left * self.share, right


@dataclass(frozen=True)
class ReadoutSketch:
    """An `Encoder` that writes the column `rise` and, when asked, the pooled hidden state as `embedding`."""

    readout: Readout
    channels: Channels
    support: Support
    positions: Mapping[Role, Positions]
    pooling: Positions | Literal["none"] = "response"
    normalize_factors: bool = True
    normalize_sample: bool = True
    weight_windows: Literal["equal", "tokens"] = "equal"
    products: Literal["exact", "bfloat16"] = "exact"
    seed: int = 0
    _vocabulary: Tensor = field(init=False, repr=False)
    _hidden: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        weight = self.readout.weight
        vocab, width = weight.shape
        c = self.channels
        to_r = count_sketch_matrix(vocab, c.width_r, seed=self.seed, name="rise/r", device=weight.device)
        to_g = count_sketch_matrix(width, c.width_g, seed=self.seed, name="rise/g", device=weight.device)
        to_h = count_sketch_matrix(width, c.width_h, seed=self.seed, name="rise/h", device=weight.device)
        exact = torch.promote_types(weight.dtype, torch.float32)
        both = torch.cat([to_r.to(exact), weight.to(exact) @ to_g.to(exact)], 1)
        # A truncated residual reads few rows of the matrix, so a narrow dtype would not make it faster.
        allowed = self.products == "bfloat16" and self.support.kind == "full"
        narrow = allowed and narrow_products_pay(weight.device)
        object.__setattr__(self, "_vocabulary", both.bfloat16() if narrow else both)
        object.__setattr__(self, "_hidden", to_h.to(exact))

    @property
    def coverage(self) -> Coverage:
        """The head's weight; gradients of every other parameter are unseen."""
        return self.readout.coverage

    @property
    def columns(self) -> tuple[Column, ...]:
        """`rise`, then `embedding` unless pooling is off. The embedding is not part of the method's own score."""
        width_h, width_r, width_g = self._hidden.shape[1], self._width_r, self._vocabulary.shape[1] - self._width_r
        c = self.channels
        dim = bool(c.rh) * width_r * width_h + bool(c.gh) * width_g * width_h + bool(c.rg) * width_r * width_g
        rise = Column("rise", dim)
        pooled = Column("embedding", self.readout.weight.shape[1], weight=0.0)
        return (rise,) if self.pooling == "none" else (rise, pooled)

    @torch.no_grad()
    def encode(self, batch: TokenBatch, role: Role) -> Encoded:
        """Vectors of the batch's rows.

        With both normalisations off, one window and full support at τ = 1, the inner product of two rows is an
        unbiased estimate of that of the gradients of their summed losses by the head's weight (`rh`) and by a matrix
        inserted between head and hidden state (`gh`).
        """
        batch = batch.to(self.readout.weight.device)
        hidden, mask, factors = self._read(batch, role)
        rows, _ = self._combine(batch, mask, self._windows(factors))
        vectors = {"rise": rows}
        if self.pooling != "none":
            vectors["embedding"] = mean_states(hidden, batch, self.pooling)
        for vector in vectors.values():
            require_finite(vector.isfinite().all(1), batch, "the row's vector")
        return Encoded(vectors, row_losses(factors.losses, batch))

    @torch.no_grad()
    def token_scores(
        self, batch: TokenBatch, role: Role, probes: Mapping[str, Float[Tensor, "probes _dim"]]
    ) -> tuple[TokenScores, ...]:
        """Each token's share of ⟨row, probe⟩: the probe as matrices, contracted with the token's factors. Additive."""
        batch = batch.to(self.readout.weight.device)
        hidden, mask, factors = self._read(batch, role)
        shares = {}
        if "rise" in probes:
            _, scales = self._combine(batch, mask, self._windows(factors))
            shares["rise"] = self._contract(factors, probes["rise"].to(scales)) * scales[:, None, None]
        if "embedding" in probes:
            shares["embedding"] = _pool_shares(hidden, batch, self.pooling, probes["embedding"].to(hidden.device))
        return tuple(_scatter(batch, row, shares, factors.losses) for row in range(len(batch.rows)))

    @property
    def _width_r(self) -> int:
        return self.channels.width_r or self.readout.weight.shape[0]

    def _read(self, batch: TokenBatch, role: Role) -> tuple[Tensor, Bool[Tensor, "items tokens"], Factors]:
        hidden = self.readout.hidden(batch.input_ids)
        mask = self._positions(batch, role)
        # Losses are reported for the response, whichever positions enter the vector.
        wanted = mask | batch.response
        exact, tokens = self._hidden.dtype, mask.numel()
        left = torch.zeros(tokens, self._vocabulary.shape[1], dtype=exact, device=hidden.device)
        right = torch.zeros(tokens, self._hidden.shape[1], dtype=exact, device=hidden.device)
        losses = torch.full((tokens,), torch.nan, dtype=torch.float32, device=hidden.device)
        for place, states, product, loss in self._residuals(batch, hidden, wanted):
            left[place] = product.to(exact)
            with tensor_cores(states.dtype):
                right[place] = states.to(exact) @ self._hidden
            losses[place] = loss.float()
        r, g = left.tensor_split([self._width_r], dim=1)
        if self.normalize_factors:
            r, g, right = _unit(r), _unit(g), _unit(right)
        keep = mask.flatten()[:, None].to(exact)
        shape = mask.shape
        factors = Factors(
            (r * keep).view(*shape, -1), (g * keep).view(*shape, -1), right.view(*shape, -1), losses.view(shape)
        )
        if batch.paired:
            factors = replace(factors, share=self._shares(batch, factors.losses, mask).to(exact)[..., None])
        return hidden, mask, factors

    def _residuals(
        self, batch: TokenBatch, hidden: Tensor, wanted: Bool[Tensor, "items tokens"]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Places, states, sketched residuals and losses of the wanted positions, some at a time."""
        left = wanted.flatten()
        if self._in_tiles:
            readout, flat, targets, left = self.readout, hidden.flatten(0, 1), batch.targets.flatten(), left.clone()
            for place in left.nonzero()[:, 0].split(TOKENS):
                divided = flat[place].to(self._hidden.dtype) * (readout.scale / self.support.temperature)
                how = (readout.weight, self._vocabulary, self.support.temperature)
                found = sketched_residuals(divided, targets[place], *how)
                done = place[found.safe]
                left[done] = False
                yield done, flat[done], found.product[found.safe] * readout.scale, found.losses[found.safe]
            if not bool(left.any()):
                return
        for chunk in readout_chunks(self.readout, batch, hidden, left.view_as(wanted), self.support):
            yield chunk.place, chunk.hidden, chunk.residual.project(self._vocabulary), chunk.losses

    @property
    def _in_tiles(self) -> bool:
        """Whether the vocabulary is read in tiles: on a CPU, for plain products and a narrow sketch in a wide dtype."""
        readout = self.readout
        plain = readout.bias is None and readout.soft_cap is None and self.support.may_divide_states
        wide = self._vocabulary.dtype == self._hidden.dtype
        return plain and wide and self.channels.width_r > 0 and readout.weight.device.type == "cpu"

    def _shares(self, batch: TokenBatch, losses: Tensor, mask: Tensor) -> Float[Tensor, "items tokens"]:
        """1 for rows that are no pairs; the derivative of a pair's loss, or its sign alone if vectors have norm 1."""
        weights = batch.side[:, None] * mask if self.normalize_sample else token_weights(batch, losses)
        return torch.where(_is_paired(batch)[:, None], weights.double(), 1.0)

    def _positions(self, batch: TokenBatch, role: Role) -> Bool[Tensor, "items tokens"]:
        """The positions that enter the vectors; of a preference pair only those with a loss."""
        if self.positions[role] != "all" or not batch.paired:
            return batch.valid if self.positions[role] == "all" else batch.response
        return torch.where(_is_paired(batch)[:, None], batch.response, batch.valid)

    def _windows(self, f: Factors) -> Float[Tensor, "items dim"]:
        parts = [weight * torch.bmm(left.mT, right).flatten(1) for weight, left, right in f.channels(self.channels)]
        return torch.cat(parts, 1)

    def _contract(self, f: Factors, probe: Float[Tensor, "probes dim"]) -> Float[Tensor, "items tokens probes"]:
        start = 0
        total = torch.zeros(*f.h.shape[:2], len(probe), dtype=f.h.dtype, device=f.h.device)
        for weight, left, right in f.channels(self.channels):
            shape = (left.shape[-1], right.shape[-1])
            part = probe[:, start : start + shape[0] * shape[1]].unflatten(1, shape)
            total += weight * torch.einsum("itl,plr,itr->itp", left, part, right)
            start += shape[0] * shape[1]
        return total

    def _combine(
        self, batch: TokenBatch, mask: Bool[Tensor, "items tokens"], windows: Float[Tensor, "items dim"]
    ) -> tuple[Float[Tensor, "rows dim"], Float[Tensor, " items"]]:
        """The rows' vectors, and the factor of each window in its row."""
        used = mask.sum(1).to(windows)
        weights = used if self.weight_windows == "tokens" else (used > 0).to(windows)
        scales = weights / batch.sum_windows(weights)[batch.item_row].clamp_min(EPS)
        if self.normalize_sample:
            scales = scales / windows.norm(dim=1).clamp_min(EPS)
        if batch.paired:
            scales = torch.where(_is_paired(batch), 1.0, scales)
        rows = batch.sum_windows(windows * scales[:, None])
        if self.normalize_sample:
            norms = rows.norm(dim=1).clamp_min(EPS)
            rows, scales = rows / norms[:, None], scales / norms[batch.item_row]
        return rows, scales


def _is_paired(batch: TokenBatch) -> Bool[Tensor, " items"]:
    """Which windows belong to preference pairs."""
    pairs = torch.tensor([row.contrast is not None for row in batch.rows], device=batch.item_row.device)
    return pairs[batch.item_row]


def _unit(x: Tensor) -> Tensor:
    unit: Tensor = x / x.norm(dim=-1, keepdim=True).clamp_min(EPS)
    return unit


def _pooled(batch: TokenBatch, positions: str) -> Float[Tensor, "items tokens"]:
    chosen = batch.valid if positions == "all" else batch.response
    return chosen.to(torch.float32)


def mean_states(hidden: Tensor, batch: TokenBatch, positions: str) -> Float[Tensor, "rows width"]:
    """Each row's mean hidden state over its positions (`response` or `all`), scaled to norm 1; float32 or wider."""
    return _unit(batch.sum_windows(torch.einsum("itw,it->iw", hidden.float(), _pooled(batch, positions))))


def _pool_shares(hidden: Tensor, batch: TokenBatch, positions: str, probe: Tensor) -> Tensor:
    """Each position's part of ⟨mean hidden state / its norm, probe⟩, `[items, tokens, probes]`."""
    masked = hidden.float() * _pooled(batch, positions)[..., None]
    norms = batch.sum_windows(masked.sum(1)).norm(dim=1).clamp_min(EPS)
    shares: Tensor = torch.einsum("itw,pw->itp", masked, probe) / norms[batch.item_row][:, None, None]
    return shares


def _scatter(batch: TokenBatch, row: int, shares: Mapping[str, Tensor], losses: Tensor) -> TokenScores:
    """Shares and losses at the row's tokens: those of position t of a window belong to the token t + 1 it predicts."""
    tokens, device = len(batch.rows[row].ids), losses.device
    values = {name: torch.zeros(tokens, share.shape[-1], device=device) for name, share in shares.items()}
    nats = torch.full((tokens,), torch.nan, device=device)
    for item in (batch.item_row == row).nonzero()[:, 0].tolist():
        length, first = int(batch.valid[item].sum()), int(batch.start[item]) + 1
        place = slice(first, first + length)
        for name, share in shares.items():
            values[name][place] += share[item, :length].float()
        nats[place] = torch.where(nats[place].isnan(), losses[item, :length], nats[place])
    return TokenScores(values, nats)
