"""The forward form of LinFiK: losses before and after a small step down the target's gradient.

    value(z) = [l(z; θ) − l(z; θ − η·d)] / η,    d = ∇L_t,  η = c / ‖d‖

Its error is at most (η/2)·B·‖d‖² + 2u·l/η (B: smoothness of l; u: round-off), which is large if the step is too long or
too short. So the distance c is chosen by how well the values agree with exact inner products on a sample of the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from headwater.core.errors import NumericError
from headwater.core.statistics import spearman
from headwater.data.batches import TokenBatch, Window
from headwater.data.rows import Row
from headwater.features.perturbed import Direction, Movable
from headwater.methods.targets import Part, PartScorer
from headwater.models.reader import Reader

DISTANCES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""The distances that are tried, in the norm of the weights."""

AGREEMENT = 0.99
"""The values must have at least this Spearman correlation with the exact inner products on the sample."""

CLOSE = 0.01
"""A relative error this small is good enough too: if the sampled rows hardly differ, their ranks mean nothing."""


@dataclass(frozen=True)
class Distance:
    """How far the weights move, and how well the forward form then agrees with the gradient form on a sample.

    Attributes:
        distance: c, in the norm of the weights.
        agreement: Spearman correlation with the exact inner products; NaN if these are all equal.
        error: root mean square of the differences over that of the exact inner products.
        rows: size of the sample.
        tried: distance to relative error, for all distances that were tried.
    """

    distance: float
    agreement: float
    error: float
    rows: int
    tried: Mapping[float, float]


def forward_scorer(
    movable: Movable, moves: Sequence[tuple[Part, Direction]], reader: Reader, window: Window, choice: Distance
) -> PartScorer:
    """The scorer that makes one forward pass with the model's weights and one with the weights moved for each part.

    Besides the model, it holds one copy of the selected parameters for each part in memory.
    """
    distance, parts = choice.distance, tuple(part for part, _ in moves)
    moved = [(movable.moved(direction, distance), distance / direction.norm) for _, direction in moves]

    def score(rows: Sequence[Row]) -> Float[np.ndarray, "rows parts"]:
        values = np.empty((len(rows), len(parts)), dtype=np.float32)
        for batch in reader.batches(rows, window):
            here = movable.losses(batch)
            steps = [(here - movable.losses(batch, weights)) / eta for weights, eta in moved]
            values[[row.row.ordinal for row in batch.rows]] = torch.stack(steps, dim=1).float().cpu().numpy()
        return values

    notes = {
        **{"distance": distance, "agreement with exact inner products": choice.agreement},
        **{"relative error": choice.error, "agreement sample": choice.rows, "coverage": str(movable.coverage)},
    }
    return PartScorer(parts, score, notes)


def choose_distance(
    movable: Movable, direction: Direction, reader: Reader, sample: Sequence[Row], *, window: Window, distance: float
) -> Distance:
    """Choose the distance of least error on the sample, or take `distance` if it is not 0, and measure its agreement.

    Raises:
        NumericError: the values at the best distance do not agree with the exact inner products.
    """
    batches = reader.batches(sample, window)
    single = [reader.plan([row], window)[0] for batch in batches for row in batch.rows]
    exact = movable.products(single, direction).cpu().numpy()
    found = differences(movable, direction, batches, [distance] if distance else DISTANCES)
    errors = {c: _relative_error(values, exact) for c, values in found.items()}
    best = min(errors, key=lambda c: errors[c])
    choice = Distance(best, spearman(found[best], exact), errors[best], len(sample), errors)
    if not distance and not (choice.agreement >= AGREEMENT or choice.error <= CLOSE):
        what = (
            f"at its best distance, {best:g}, the forward form ranks {len(sample)} sampled rows with a correlation of "
            f"{choice.agreement:.3f} to the exact inner products (relative error {choice.error:.2g})"
        )
        raise NumericError(what, where="linfik", remedy="set form=gradient, or load the model in float64")
    return choice


def differences(
    movable: Movable, direction: Direction, batches: Sequence[TokenBatch], distances: Sequence[float]
) -> dict[float, NDArray[np.float64]]:
    """Distance to the value of every row at this distance, in the order of the batches."""
    here = [movable.losses(batch) for batch in batches]
    found = {}
    for distance in distances:
        weights, eta = movable.moved(direction, distance), distance / direction.norm
        steps = [(before - movable.losses(batch, weights)) / eta for before, batch in zip(here, batches, strict=True)]
        found[distance] = torch.cat(steps).cpu().numpy()
    return found


def _relative_error(values: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    if not np.isfinite(values).all():
        return float("inf")
    return float(np.sqrt(np.mean((values - exact) ** 2) / max(np.mean(exact**2), np.finfo(np.float64).tiny)))
