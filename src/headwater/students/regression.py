"""The regression student: ridge regression on hashed n-grams, an ensemble of bootstrap draws.

    w = Xᵀ(XXᵀ + λI)⁻¹ y        a system with one equation a labelled row, so the cost does not depend on the features

λ is chosen by the best held-out Spearman correlation. With an `encoder`, the mean hidden state of a small model is
appended to the features.
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
"""The n-grams of each field are hashed into 2^16 buckets."""

LENGTHS = 4
WIDTH = 2 * 2**BITS + LENGTHS

_PATTERN = r"(?u)\w+|[^\w\s]"


def ngram_features(rows: Sequence[Row]) -> sparse.csr_matrix:
    """`[rows, WIDTH]` float32: unit vectors of word 1- to 3-grams for prompt and response, then lengths.

    The 2- and 3-grams depend on word order, so a garbled response has other features than a sound one.
    """
    vectorizer = HashingVectorizer(
        n_features=2**BITS, ngram_range=(1, 3), token_pattern=_PATTERN, norm="l2", dtype=np.float32
    )
    prompts = vectorizer.transform([row.prompt or "" for row in rows])
    responses = vectorizer.transform([row.response or row.text or "" for row in rows])
    return sparse.hstack([prompts, responses, sparse.csr_matrix(_lengths(rows))], format="csr", dtype=np.float32)


def _lengths(rows: Sequence[Row]) -> Float[np.ndarray, "rows LENGTHS"]:
    """Log counts of characters and words minus those of a usual row, so that they vary about as much as the n-grams."""
    counts = []
    for row in rows:
        prompt, response = row.prompt or "", row.response or row.text or ""
        counts.append([len(prompt), len(response), prompt.count(" ") + 1, response.count(" ") + 1])
    usual = np.array([4.0, 4.0, 2.5, 2.5])
    lengths: np.ndarray = (np.log1p(np.array(counts).reshape(len(rows), LENGTHS)) - usual).astype(np.float32)
    return lengths


PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
"""The learning curve is measured at these shares of the train split."""

_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class RegressionStudent:
    """A linear map of features, with one column of weights for each member.

    Attributes:
        weights: float32 `[features, members]`.
        encoder: the model whose hidden states are further features, or None.
        curve: pairs of labelled rows and held-out Spearman correlation.
    """

    weights: Float[np.ndarray, "features members"]
    encoder: HiddenStates | None = None
    curve: tuple[tuple[int, float], ...] = field(default=(), compare=False)

    curve_axis: ClassVar[str] = "labelled rows"

    def predict(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows members"]:
        """Each member's standardised scores, float64."""
        predicted: NDArray[np.float64] = np.asarray(_features(rows, self.encoder) @ self.weights, dtype=np.float64)
        return predicted

    def save(self, folder: Path) -> None:
        """Write the weights into the folder."""
        save_file({"weights": self.weights}, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, encoder: HiddenStates | None) -> RegressionStudent:
        """Load the student that `save` wrote into the folder."""
        return cls(load_file(folder / _WEIGHTS)["weights"], encoder)


def fit_regression(
    lesson: Lesson, *, members: int, seed: int, encoder: HiddenStates | None = None
) -> RegressionStudent:
    """Fit an ensemble with the penalty of best held-out Spearman correlation, and measure its learning curve."""
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
