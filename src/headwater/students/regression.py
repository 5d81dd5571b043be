"""The regression student: ridge regression on blocks of features, an ensemble of bootstrap draws.

    f(z) = Σ_blocks ⟨w_b, x_b(z)⟩ + intercept          penalty Σ_b ‖w_b‖² / a_b
    K = Σ_b a_b K_b + a_0,  K_b = X_b X_bᵀ / its mean diagonal;  dual (K + I)⁻¹ y;  w_b = a_b X_bᵀ dual

The a_b say how much each block may explain. They are chosen by the error on left-out rows, which the inverse gives for
every row at once: y_i − f_{−i}(z_i) = dual_i / [(K + I)⁻¹]_ii. The cost does not depend on the number of features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from headwater.core.statistics import spearman
from headwater.data.rows import Row
from headwater.students.labels import Lesson
from headwater.students.sources import Matrix, StudentSource

SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
"""The learning curve is measured at these shares of the train split."""

SEARCHED = 400
"""The blocks' shares are searched on at most so many rows."""

_STEPS = (2.0, -2.0, 1.0, -1.0)
_FARTHEST = 9.0
_NARROW = 256
"""Dense blocks of at most so many columns are standardised: their columns have different units."""

_WEIGHTS = "weights.safetensors"
_INTERCEPT = "intercept"

Blocks = Mapping[str, Matrix]


@dataclass(frozen=True)
class RegressionStudent:
    """A linear map of features, with one column of weights for each member.

    Attributes:
        weights: block name to float32 `[features, members]`; `intercept` is `[1, members]`.
        sources: what reads the blocks.
        curve: pairs of labelled rows and held-out Spearman correlation.
        left_out: Spearman correlation of the labels with the predictions for left-out rows; NaN after loading.
    """

    weights: Mapping[str, Float[np.ndarray, "features members"]]
    sources: tuple[StudentSource, ...]
    curve: tuple[tuple[int, float], ...] = field(default=(), compare=False)
    left_out: float = field(default=float("nan"), compare=False)

    curve_axis: ClassVar[str] = "labelled rows"

    def predict(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows members"]:
        """Each member's standardised scores, float64."""
        return applied(self.weights, read_blocks(self.sources, rows), len(rows))

    def save(self, folder: Path) -> None:
        """Write the weights into the folder."""
        save_file({name: np.ascontiguousarray(found) for name, found in self.weights.items()}, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, sources: Sequence[StudentSource]) -> RegressionStudent:
        """Load the student that `save` wrote into the folder."""
        return cls(load_file(folder / _WEIGHTS), tuple(sources))


def read_blocks(sources: Sequence[StudentSource], rows: Sequence[Row]) -> dict[str, Matrix]:
    """All blocks of all sources, as `source/block`."""
    return {f"{s.name}/{name}": block for s in sources for name, block in s.read(rows).items()}


def applied(weights: Mapping[str, np.ndarray], blocks: Blocks, rows: int) -> Float[np.ndarray, "rows members"]:
    """Σ_blocks features · weights + intercept, float64."""
    total = np.repeat(np.asarray(weights[_INTERCEPT], dtype=np.float64), rows, axis=0)
    for name, block in blocks.items():
        if name in weights:
            total += np.asarray(block @ weights[name], dtype=np.float64)
    return total


def fit_regression(
    lesson: Lesson, blocks: Blocks, sources: Sequence[StudentSource], *, members: int, seed: int
) -> RegressionStudent:
    """Fit an ensemble on the train split; the held-out rows only measure its learning curve.

    Args:
        lesson: the labelled rows.
        blocks: features of all of the lesson's rows.
        sources: what read them.
        members: how many bootstrap draws; one member uses all rows.
        seed: of the draws.
    """
    labels = lesson.labels[lesson.train]
    narrow = {name: block for name, block in blocks.items() if _narrow(block)}
    scales = {name: _Standard.of(np.asarray(block)[lesson.train]) for name, block in narrow.items()}
    even = {name: scales[name].apply(block) if name in scales else block for name, block in blocks.items()}
    train = {name: block[lesson.train] for name, block in even.items()}
    kernels = {name: _kernel(block) for name, block in train.items()}
    sizes = {name: max(float(np.trace(k)) / len(labels), 1e-30) for name, k in kernels.items()}
    kernels = {name: kernel / sizes[name] for name, kernel in kernels.items()}
    shares = chosen_shares(kernels, labels)

    def solved(places: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        whole = _mixed(kernels, shares)[np.ix_(places, places)]
        dual = np.linalg.solve(whole + np.eye(len(places)), labels[places])
        found = {_INTERCEPT: np.array([shares[_INTERCEPT] * dual.sum()])}
        for name, block in train.items():
            weights = shares[name] / sizes[name] * np.asarray(block[places].T @ dual).ravel()
            if name in scales:
                weights, shift = scales[name].folded(weights)
                found[_INTERCEPT] = found[_INTERCEPT] + shift
            found[name] = weights
        return found

    everything = np.arange(len(labels))
    held_out = {name: block[lesson.held_out] for name, block in blocks.items()}

    def agreement(count: int) -> float:
        weights = {name: found[:, None] for name, found in solved(everything[:count]).items()}
        return lesson.held_out_agreement(applied(weights, held_out, len(lesson.held_out))[:, 0])

    generator = np.random.default_rng(seed)
    draws = [generator.integers(0, len(labels), len(labels)) for _ in range(members)] if members > 1 else [everything]
    fitted = [solved(draw) for draw in draws]
    weights = {name: np.stack([one[name] for one in fitted], axis=1).astype(np.float32) for name in fitted[0]}
    curve = tuple((count, agreement(count)) for count in (max(2, round(share * len(labels))) for share in SHARES))
    missed = left_out_errors(_mixed(kernels, shares), labels)
    return RegressionStudent(weights, tuple(sources), curve, spearman(labels - missed, labels, if_constant=0.0))


def chosen_shares(kernels: Mapping[str, NDArray[np.float64]], labels: NDArray[np.float64]) -> dict[str, float]:
    """How much of the labels each block and the intercept may explain: the least error on left-out rows.

    Searched block by block in factors of e and e², twice around, from equal shares.
    """
    some = slice(0, SEARCHED)
    parts = {name: kernel[some, some] for name, kernel in kernels.items()}
    logs = dict.fromkeys([*kernels, _INTERCEPT], 1.0)

    def error(trial: Mapping[str, float]) -> float:
        mixed = _mixed(parts, {name: float(np.exp(value)) for name, value in trial.items()})
        return float(np.mean(left_out_errors(mixed, labels[some]) ** 2))

    best = error(logs)
    for _ in range(2):
        for name in logs:
            for step in _STEPS:
                while abs(logs[name] + step) <= _FARTHEST:
                    trial = {**logs, name: logs[name] + step}
                    found = error(trial)
                    if found >= best - 1e-5:
                        break
                    best, logs = found, trial
    return {name: float(np.exp(value)) for name, value in logs.items()}


def left_out_errors(kernel: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is missed of each row's label by the fit on all other rows."""
    from scipy.linalg.lapack import dpotrf, dpotri, dpotrs

    factor, _ = dpotrf(kernel + np.eye(len(kernel)), lower=1)
    dual, _ = dpotrs(factor, labels, lower=1)
    inverse, _ = dpotri(factor, lower=1)
    errors: NDArray[np.float64] = dual / np.diag(inverse)
    return errors


def _mixed(kernels: Mapping[str, NDArray[np.float64]], shares: Mapping[str, float]) -> NDArray[np.float64]:
    first = next(iter(kernels.values()))
    total = np.full_like(first, shares[_INTERCEPT])
    for name, kernel in kernels.items():
        total += shares[name] * kernel
    return total


def _kernel(block: Matrix) -> NDArray[np.float64]:
    products = block @ block.T
    dense = products if isinstance(products, np.ndarray) else products.toarray()
    return np.asarray(dense, dtype=np.float64)


def _narrow(block: Matrix) -> bool:
    return isinstance(block, np.ndarray) and block.shape[1] <= _NARROW


@dataclass(frozen=True)
class _Standard:
    """Means and standard deviations of a block's columns."""

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]

    @classmethod
    def of(cls, block: NDArray[np.float32]) -> _Standard:
        wide = block.astype(np.float64)
        return cls(wide.mean(axis=0), np.where(wide.std(axis=0) > 1e-6, wide.std(axis=0), np.inf))

    def apply(self, block: Matrix) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (np.asarray(block, dtype=np.float64) - self.mean) / self.sd
        return found

    def folded(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """Weights of the columns as they were, and what they add to the intercept."""
        plain = weights / self.sd
        return plain, -float(plain @ self.mean)
