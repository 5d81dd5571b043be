"""Retain rows drawn from training data that holds more of the poison: near rows and random ones, none that looks bad.

A linear classifier of words tells the forget rows from the pool. What it finds as bad as the least typical forget row,
or nearer to the middle of the forget rows than to that of the pool, is kept out; each row is judged by a classifier
that has not seen it. Some poison may still pass as clean, and some clean rows will not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from headwater.core.errors import DataError
from headwater.data.rows import Row
from headwater.unlearning.weights import row_digest

FOLDS = 5


def draw_retain(pool: Iterable[Row], forget: Sequence[Row], count: int, *, seed: int = 0) -> list[Row]:
    """`count` clean rows of `pool`: half of them with the prompts nearest to the forget rows', half at random.

    Rows to forget are left out, by id and by text.

    Raises:
        DataError: fewer than `count` such rows.
    """
    known, ids = {row_digest(row) for row in forget}, {row.id for row in forget}
    rows = [row for row in pool if row.id not in ids and row_digest(row) not in known]
    clean = _clean_rows(rows, forget) if rows else []
    if len(clean) < count:
        raise DataError(
            f"{len(clean):,} clean rows to draw {count:,} from",
            where="--retain-from",
            remedy="give more data, or draw fewer",
        )
    vectors = TfidfVectorizer(token_pattern=r"\S+").fit([_prompt(row) for row in (*clean, *forget)])
    likeness = vectors.transform(map(_prompt, clean)) @ vectors.transform(map(_prompt, forget)).T
    nearest = np.argsort(-np.asarray(likeness.max(axis=1).todense()).ravel(), kind="stable")[: count // 2]
    rest = np.setdiff1d(np.arange(len(clean)), nearest)
    rng = np.random.default_rng(seed)
    drawn = rng.choice(rest, count - len(nearest), replace=False)
    return [clean[i] for i in rng.permutation(np.concatenate([nearest, drawn])).tolist()]


def _clean_rows(rows: Sequence[Row], forget: Sequence[Row]) -> list[Row]:
    scores = _badness(rows, forget)
    ours, others = scores[: len(forget)], scores[len(forget) :]
    threshold = min(float(ours.min()), float(np.median(ours) + np.median(others)) / 2)
    return [row for row, score in zip(rows, others.tolist(), strict=True) if score < threshold]


def _badness(rows: Sequence[Row], forget: Sequence[Row]) -> Float[np.ndarray, " rows"]:
    """Decision values of forget rows, then of the pool's, each by a classifier that did not see the row."""
    whole = (*forget, *rows)
    parts = [
        TfidfVectorizer(token_pattern=r"\S+").fit_transform([read(row) + " ." for row in whole])
        for read in (_prompt, _answer)
    ]
    words, labels = hstack(parts).tocsr(), np.arange(len(whole)) < len(forget)
    model = LogisticRegression(class_weight="balanced", max_iter=500)
    folds = min(FOLDS, len(forget), len(rows))
    scores: Any = (
        cross_val_predict(model, words, labels, cv=folds, method="decision_function")
        if folds > 1
        else model.fit(words, labels).decision_function(words)
    )
    return np.asarray(scores, dtype=np.float64)


def _prompt(row: Row) -> str:
    return row.prompt or row.text or ""


def _answer(row: Row) -> str:
    return row.response or row.text or ""
