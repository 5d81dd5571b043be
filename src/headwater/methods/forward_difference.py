"""The forward form of LinFiK: losses before and after a small step down the target's gradient, and how small.

    value(z) = [l(z; θ) − l(z; θ − η·d)] / η,    d = ∇L_t,  η = c / ‖d‖

Its error is at most (η/2)·B·‖d‖² + 2u·l/η (B: smoothness of l; u: round-off), large for steps too long and too short.
So the distance c is chosen where the difference agrees best with exact inner products on a sample of the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from headwater.core.errors import NumericError
from headwater.core.statistics import spearman
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.data.rows import Row
from headwater.features.perturbed import Direction, Movable, Weights
from headwater.methods.targets import Part, require_finite
from headwater.models.reader import Reader

DISTANCES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Distances tried, in the norm of the weights."""

AGREEMENT = 0.99
"""Least Spearman correlation with the exact inner products on the sample."""

CLOSE = 0.01
"""A relative error this small will do where the rows of a sample hardly differ and ranks say nothing."""


@dataclass(frozen=True)
class Distance:
    """How far the weights move, and how well the forward form then agrees with the gradient form on a sample.

    Attributes:
        distance: c, in the norm of the weights.
        agreement: Spearman correlation with the exact inner products; NaN where these are all equal.
        error: root mean square of the differences over that of the exact inner products.
        rows: size of the sample.
        tried: distance to relative error, for all distances tried.
    """

    distance: float
    agreement: float
    error: float
    rows: int
    tried: Mapping[float, float]


@dataclass(frozen=True)
class ForwardDifference:
    """A scorer: one forward pass under the model's weights and one under each part's moved weights.

    Memory beyond the model's own: one copy of the selected parameters a part.
    """

    movable: Movable
    reader: Reader
    window: Window
    moved: tuple[tuple[Weights, float], ...]
    parts: tuple[Part, ...]
    choice: Distance

    @property
    def notes(self) -> Mapping[str, Any]:
        """Distance, agreement, error and coverage."""
        return {
            "distance": self.choice.distance,
            "agreement with exact inner products": self.choice.agreement,
            "relative error": self.choice.error,
            "agreement sample": self.choice.rows,
            "coverage": str(self.movable.coverage),
        }

    def __call__(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows parts"]:
        """The rows' values on each part."""
        values = np.empty((len(rows), len(self.parts)), dtype=np.float32)
        for batch in self.reader.batches(rows, self.window):
            here = self.movable.losses(batch)
            steps = [(here - self.movable.losses(batch, weights)) / eta for weights, eta in self.moved]
            values[[row.row.ordinal for row in batch.rows]] = torch.stack(steps, dim=1).float().cpu().numpy()
        require_finite(values, rows)
        return values


def choose_distance(
    movable: Movable, direction: Direction, reader: Reader, sample: Sequence[Row], *, window: Window, distance: float
) -> Distance:
    """The distance of least error on the sample, or the one given, with its agreement.

    Raises:
        NumericError: the best distance does not agree with the exact inner products.
    """
    batches = reader.batches(sample, window)
    single = [plan_batches([row], window)[0] for batch in batches for row in batch.rows]
    exact = movable.products(single, direction).cpu().numpy()
    found = differences(movable, direction, batches, [distance] if distance else DISTANCES)
    errors = {c: _relative_error(values, exact) for c, values in found.items()}
    best = min(errors, key=lambda c: errors[c])
    choice = Distance(best, spearman(found[best], exact), errors[best], len(sample), errors)
    if not distance and not (choice.agreement >= AGREEMENT or choice.error <= CLOSE):
        raise NumericError(
            f"at its best distance, {best:g}, the forward form ranks {len(sample)} sampled rows with a correlation of "
            f"{choice.agreement:.3f} to the exact inner products (relative error {choice.error:.2g})",
            where="linfik",
            remedy="set form=gradient, or load the model in float64",
        )
    return choice


def differences(
    movable: Movable, direction: Direction, batches: Sequence[TokenBatch], distances: Sequence[float]
) -> dict[float, NDArray[np.float64]]:
    """The forward form of every row at each distance, rows in the order of the batches."""
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
