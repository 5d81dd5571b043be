"""What the readout layer gives for each token, and its residual r = softmax(z / τ) − onehot(y), cheap to multiply.

RISE (Ran et al., arXiv 2604.16197), "Kernel" and "Estimator". The gradient of a token's loss by the head's weight is
(r ∘ s) ⊗ h / τ, where s is the slope of the logits z by the head's own output: 1 for most models, the factor of models
that scale their logits, scale · (1 − (z / c)²) with a soft-cap. The constant 1/τ is left out, which all rows share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.errors import NumericError
from headwater.data.batches import TokenBatch
from headwater.models.readout import Readout

CHUNK_BYTES = {"cpu": 24 * 2**20, "cuda": 512 * 2**20}
"""Largest size of one chunk's logits: what stays in a CPU's outer cache, or what keeps a GPU busy."""


@dataclass(frozen=True)
class ReadoutChunk:
    """Some positions of a batch; `place` indexes the batch flattened to items × tokens."""

    place: Int[Tensor, " chunk"]
    hidden: Float[Tensor, "chunk width"]
    residual: Residual
    losses: Float[Tensor, " chunk"]


def readout_chunks(
    readout: Readout,
    batch: TokenBatch,
    hidden: Float[Tensor, "items tokens width"],
    positions: Bool[Tensor, "items tokens"],
    support: Support,
) -> Iterator[ReadoutChunk]:
    """Hidden state, residual and loss (nats) of the positions that are True, in reading order.

    A chunk's residual is valid until the next chunk is requested.

    Raises:
        NumericError: a logit is not finite; names the row.
    """
    places = positions.flatten().nonzero()[:, 0]
    flat, targets = hidden.flatten(0, 1), batch.targets.flatten()
    width = readout.weight.shape[0] * torch.promote_types(hidden.dtype, torch.float32).itemsize
    for place in places.split(max(16, CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cuda"]) // width)):
        h, y = flat[place], targets[place]
        divided = support.may_divide_states and readout.bias is None and readout.soft_cap is None
        logits = readout.logits(h / support.temperature if divided else h)
        slope = readout.slope(logits) if support.slope else 1.0
        residual, losses = support.read(logits, y, slope, divided=divided)
        _require_finite(losses, place, batch)
        yield ReadoutChunk(place, h, residual, losses)


def _require_finite(losses: Tensor, place: Tensor, batch: TokenBatch) -> None:
    bad = place[~losses.isfinite()]
    if len(bad):
        row = batch.rows[int(batch.item_row[int(bad[0]) // batch.input_ids.shape[1]])].row
        remedy = "load the model in float32, or leave the row out"
        raise NumericError("the model's logits are not finite", where=row.where, remedy=remedy)


_GROUP = 32
"""Columns in a group of `largest`."""
_GRAIN = 64
"""Narrow products have a multiple of this many rows, because the CPU's library compiles a kernel for every shape."""
_SAFE = 60.0
"""Logits within ±60 have exponentials whose sums stay well inside float32."""
_CHEAP = (1.0, 2.0)
"""Temperatures at which the loss can be computed from the residual's exponentials."""
_SMALL, _LARGE = 1e-12, 1e15
"""Between these, neither a sum of exponentials nor its square leaves the range of float32."""


@runtime_checkable
class Residual(Protocol):
    """A residual [tokens, vocab], of which only products are needed."""

    def project(self, matrix: Float[Tensor, "vocab width"]) -> Float[Tensor, "tokens width"]:
        """residual @ matrix, float32 or wider."""
        ...


@dataclass(frozen=True)
class Support:
    """Which probabilities of the vocabulary enter a residual, and at which temperature.

    Attributes:
        kind: `full` uses the exact softmax over the vocabulary; `top` the published truncation: the `top` largest
            logits with the target forced in, softmax over those, the shortest prefix of cumulative mass ≥ `mass`,
            at least `at_least` of them, plus the target, renormalised.
        temperature: τ. τ = 1 gives the true gradient.
        adaptive: τ_t = temperature × the standard deviation of the token's logits in the support, which makes the
            residual independent of the scale of the logits.
        slope: multiply by the slope of the logits, without which the residual is no gradient under a soft-cap.
    """

    kind: Literal["full", "top"] = "full"
    temperature: float = 1.0
    adaptive: bool = False
    top: int = 256
    mass: float = 0.92
    at_least: int = 4
    slope: bool = True

    def read(
        self,
        logits: Float[Tensor, "tokens vocab"],
        targets: Int[Tensor, " tokens"],
        slope: Float[Tensor, "tokens vocab"] | float = 1.0,
        *,
        divided: bool = False,
    ) -> tuple[Residual, Float[Tensor, " tokens"]]:
        """The residual, times the slope, and the loss (nats, at temperature 1) of each token.

        To save passes over the vocabulary, `logits` is overwritten, and the residual may share its memory. `divided`
        says that they are divided by the temperature already.
        """
        if divided:
            return _cheap(logits, targets, self.temperature, slope)
        return (_full if self.kind == "full" else _truncated)(logits, targets, self, slope)

    @property
    def may_divide_states(self) -> bool:
        """Whether the head's input can be divided by the temperature instead of its logits: exactly, by 1 or 2."""
        return self.kind == "full" and not self.adaptive and self.temperature in _CHEAP


@dataclass(frozen=True)
class FullResidual:
    """The residual over the whole vocabulary, as `values / scale`."""

    values: Float[Tensor, "tokens vocab"]
    scale: Float[Tensor, " tokens"]

    def project(self, matrix: Float[Tensor, "vocab width"]) -> Float[Tensor, "tokens width"]:
        """r @ matrix; a bfloat16 matrix makes it one bfloat16 product, accumulated in float32."""
        tokens = len(self.values)
        if matrix.dtype == self.values.dtype:
            product = self.values @ matrix
        else:
            padded = self.values.new_empty((-(-tokens // _GRAIN) * _GRAIN, len(matrix)), dtype=matrix.dtype)
            padded[:tokens], padded[tokens:] = self.values, 0
            product = (padded @ matrix)[:tokens]
        return product.to(self.scale.dtype) / self.scale[:, None]


@dataclass(frozen=True)
class SparseResidual:
    """Weights on a few entries a token: `offsets[i]` is where token i's entries begin."""

    entries: Int[Tensor, " kept"]
    weights: Float[Tensor, " kept"]
    offsets: Int[Tensor, " tokens"]

    def project(self, matrix: Float[Tensor, "vocab width"]) -> Float[Tensor, "tokens width"]:
        """Σ_v r(v) · matrix[v] over the kept entries."""
        wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
        return torch.nn.functional.embedding_bag(
            self.entries, wide, self.offsets, mode="sum", per_sample_weights=self.weights.to(wide.dtype)
        )


def _full(logits: Tensor, targets: Tensor, support: Support, slope: Tensor | float) -> tuple[FullResidual, Tensor]:
    """With e = exp(z / τ) and S = Σ e: r = (e − S · onehot) / S, and for τ = 2 log Σ exp(z) = 2 log ‖e‖.

    So the softmax is never stored, and the target is subtracted before rounding to a narrow dtype: the residual of a
    well predicted token is small, and rounding first would lose its direction.
    """
    if support.may_divide_states:
        return _cheap(logits.div_(support.temperature), targets, support.temperature, slope)
    losses = logits.logsumexp(-1) - _at(logits, targets)
    logits /= support.temperature * (logits.std(-1, keepdim=True) if support.adaptive else 1.0)
    exponentials, total, _ = _exponentials(logits)
    return _residual(exponentials, total, targets, slope), losses


def _cheap(divided: Tensor, targets: Tensor, temperature: float, slope: Tensor | float) -> tuple[FullResidual, Tensor]:
    """The same at a temperature of 1 or 2, at which the loss follows from the residual's own exponentials."""
    target_logits = temperature * _at(divided, targets)
    exponentials, total, shift = _exponentials(divided)
    norm = total if temperature == 1.0 else torch.linalg.vector_norm(exponentials, dim=-1)
    losses = temperature * (shift + norm.log()) - target_logits
    return _residual(exponentials, total, targets, slope), losses


def _residual(exponentials: Tensor, total: Tensor, targets: Tensor, slope: Tensor | float) -> FullResidual:
    exponentials[torch.arange(len(targets), device=targets.device), targets] -= total
    if isinstance(slope, Tensor):
        return FullResidual(exponentials.mul_(slope), total)
    return FullResidual(exponentials, total / slope)


def _exponentials(scaled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """exp(z − shift), its sum, and the shift, which is 0 (to save a pass) unless the sum or its square left float32."""
    exponentials, shift = scaled.exp(), torch.zeros_like(scaled[:, 0])
    total = exponentials.sum(-1)
    if not bool(((total > _SMALL) & (total < _LARGE)).all()):
        shift = scaled.amax(-1)
        exponentials = (scaled - shift[:, None]).exp()
        total = exponentials.sum(-1)
    return exponentials, total, shift


def _truncated(
    logits: Tensor, targets: Tensor, support: Support, slope: Tensor | float
) -> tuple[SparseResidual, Tensor]:
    values, entries = largest(logits, min(support.top, logits.shape[-1]))
    target_logits, peak = _at(logits, targets), values[:, :1].clone()
    losses = _log_sum_exp(logits, peak) - target_logits
    present = (entries == targets[:, None]).any(-1)
    entries[:, -1] = torch.where(present, entries[:, -1], targets)
    values[:, -1] = torch.where(present, values[:, -1], target_logits)
    scale = support.temperature * (values.std(-1, keepdim=True) if support.adaptive else 1.0)
    p = torch.softmax(values / scale, -1)
    is_target = entries == targets[:, None]
    before = p.cumsum(-1) - p
    keep = (before < support.mass) | (torch.arange(p.shape[-1], device=p.device) < support.at_least) | is_target
    p = torch.where(keep, p, 0.0)
    weights = p / p.sum(-1, keepdim=True) - is_target.to(p.dtype)
    weights = weights * (slope.gather(-1, entries) if isinstance(slope, Tensor) else slope)
    counts = keep.sum(-1)
    return SparseResidual(entries[keep], weights[keep], counts.cumsum(0) - counts), losses


def _log_sum_exp(logits: Tensor, peak: Tensor) -> Tensor:
    """log Σ exp(z), overwriting z; the pass that shifts z is left out if no exponential can overflow."""
    if bool((peak.abs() < _SAFE).all()):
        return logits.exp_().sum(-1).log()
    return logits.sub_(peak).exp_().sum(-1).log() + peak[:, 0]


def _at(values: Tensor, columns: Tensor) -> Tensor:
    return values.gather(-1, columns[:, None])[:, 0]


def largest(values: Float[Tensor, "rows columns"], k: int) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """The k largest of each row, descending, with their columns; exact, and several times faster than one `topk`.

    Take the k groups of columns with the largest maxima. They hold k entries no smaller than the k-th of those maxima,
    so the k largest entries lie in these groups and are no smaller either, which leaves few to sort.
    """
    rows, columns = values.shape
    count = columns // _GROUP
    if count <= k:
        top, places = values.topk(k, -1)
        return top, places
    whole = count * _GROUP
    grouped = values[:, :whole].reshape(-1, _GROUP)
    maxima, groups = grouped.amax(-1).view(rows, count).topk(k, -1, sorted=False)
    first = torch.arange(rows, device=values.device)[:, None] * count
    found = torch.nn.functional.embedding(groups + first, grouped).flatten(1)
    found = torch.cat([found, values[:, whole:]], 1)
    top, slot = _sorted_above(found, maxima.amin(-1, keepdim=True), k)
    group = groups.gather(-1, (slot // _GROUP).clamp_max(k - 1))
    inside = slot < k * _GROUP
    return top, torch.where(inside, group * _GROUP + slot % _GROUP, whole + slot - k * _GROUP)


def _sorted_above(values: Tensor, threshold: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their columns, given a threshold that at least k entries of each row reach."""
    row, column = (values >= threshold).nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(values))
    slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    width = max(k, int(counts.max()))
    kept = values.new_full((len(values), width), -torch.inf)
    columns = torch.zeros(len(values), width, dtype=torch.int64, device=values.device)
    kept[row, slot], columns[row, slot] = values[row, column], column
    top, order = kept.sort(-1, descending=True)
    return top[:, :k], columns.gather(-1, order[:, :k])
