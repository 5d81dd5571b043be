"""The regression student: ridge regression on hashed n-grams, an ensemble of bootstrap draws.

    w = Xᵀ(XXᵀ + λI)⁻¹ y        solved in the labelled rows, so the number of features costs nothing

λ is the one of best held-out Spearman correlation. With `encoder`, the mean hidden state of a small model joins the
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

from headwater.data.rows import Row
from headwater.students.hidden_states import HiddenStates
from headwater.students.labels import Lesson

BITS = 16
"""Each field's n-grams go to 2^16 buckets."""

LENGTHS = 4
WIDTH = 2 * 2**BITS + LENGTHS

_PATTERN = r"(?u)\w+|[^\w\s]"


def ngram_features(rows: Sequence[Row]) -> sparse.csr_matrix:
    """`[rows, WIDTH]` float32: unit vectors of word 1- to 3-grams for prompt and response, then lengths.

    Word order matters to 2- and 3-grams, which is what tells a garbled answer from a whole one.
    """
    vectorizer = HashingVectorizer(
        n_features=2**BITS, ngram_range=(1, 3), token_pattern=_PATTERN, norm="l2", dtype=np.float32
    )
    asked = vectorizer.transform([row.prompt or "" for row in rows])
    said = vectorizer.transform([row.response or row.text or "" for row in rows])
    return sparse.hstack([asked, said, sparse.csr_matrix(_lengths(rows))], format="csr", dtype=np.float32)


def _lengths(rows: Sequence[Row]) -> Float[np.ndarray, "rows LENGTHS"]:
    """Logarithms of characters and words, less those of a usual row, so that they vary about as much as the n-grams."""
    counts = []
    for row in rows:
        asked, said = row.prompt or "", row.response or row.text or ""
        counts.append([len(asked), len(said), asked.count(" ") + 1, said.count(" ") + 1])
    usual = np.array([4.0, 4.0, 2.5, 2.5])
    lengths: np.ndarray = (np.log1p(np.array(counts).reshape(len(rows), LENGTHS)) - usual).astype(np.float32)
    return lengths


PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
"""Shares of the train split at which the learning curve is measured."""

_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class RegressionStudent:
    """A linear map of features, one column a member.

    Attributes:
        weights: float32 `[features, members]`.
        encoder: gives hidden states as further features, or None.
        curve: (labelled rows, held-out Spearman).
    """

    weights: Float[np.ndarray, "features members"]
    encoder: HiddenStates | None = None
    curve: tuple[tuple[int, float], ...] = field(default=(), compare=False)

    curve_axis: ClassVar[str] = "labelled rows"

    def predict(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows members"]:
        """Standardised scores by each member."""
        predicted: NDArray[np.float64] = np.asarray(_features(rows, self.encoder) @ self.weights, dtype=np.float64)
        return predicted

    def save(self, folder: Path) -> None:
        """Write the weights into the folder."""
        save_file({"weights": self.weights}, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, encoder: HiddenStates | None) -> RegressionStudent:
        """The student a folder holds."""
        return cls(load_file(folder / _WEIGHTS)["weights"], encoder)


def fit_regression(
    lesson: Lesson, *, members: int, seed: int, encoder: HiddenStates | None = None
) -> RegressionStudent:
    """The ensemble with the penalty of best held-out Spearman, with its learning curve."""
    train, held_out = (_features(lesson.rows_at(part), encoder) for part in (lesson.train, lesson.held_out))
    labels = lesson.labels[lesson.train]
    generator = np.random.default_rng(seed)
    draws = [generator.integers(0, len(labels), len(labels)) for _ in range(members)] if members > 1 else None

    def agreement(penalty: float, count: int) -> float:
        weights = _solve(train[:count], labels[:count], penalty)
        return lesson.held_out_agreement(np.asarray(held_out @ weights, dtype=np.float64))

    penalty = max(PENALTIES, key=lambda candidate: agreement(candidate, len(labels)))
    counts = [max(2, round(share * len(labels))) for share in SHARES]
    curve = tuple((count, agreement(penalty, count)) for count in counts)
    columns = [_solve(train[draw], labels[draw], penalty) for draw in draws or [np.arange(len(labels))]]
    return RegressionStudent(np.stack(columns, axis=1), encoder, curve)


def _features(rows: Sequence[Row], encoder: HiddenStates | None) -> sparse.csr_matrix:
    words = ngram_features(rows)
    if encoder is None:
        return words
    return sparse.hstack([words, sparse.csr_matrix(encoder.read(rows))], format="csr", dtype=np.float32)


def _solve(features: sparse.csr_matrix, labels: NDArray[np.float64], penalty: float) -> NDArray[np.float32]:
    """Ridge weights; labels are standardised, so there is no intercept."""
    products = (features @ features.T).toarray().astype(np.float64)
    dual = np.linalg.solve(products + penalty * np.eye(len(labels)), labels)
    weights: NDArray[np.float32] = np.asarray(features.T @ dual, dtype=np.float32)
    return weights
