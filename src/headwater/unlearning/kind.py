"""Is an answer still of the unwanted kind?  Judged from the rows alone, without a list of words.

A classifier of letters and words is trained to tell the forget rows' answers from the retain rows' answers. An answer
counts as unwanted if the classifier takes it for one of the forget rows', or if it repeats the unwanted answer to its
own prompt. Where the two groups do not differ as a kind (altered facts, say), only the second test is used. How well
they differ is measured on rows that the classifier was not trained on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

from headwater.core.seeds import key
from headwater.data.rows import Row

FOLDS = 5
SEPARABLE = 0.6
"""Least area under the ROC curve at which the two groups of answers count as two kinds. It is 0.75 for kinds that are
told apart without an error where a quarter of both groups is of the other kind. Two standard errors above chance are
needed too, which is more for few rows."""
REPEATED = 0.6
"""Share of an unwanted answer's word pairs at which an answer repeats it."""


@dataclass(frozen=True)
class UnwantedKind:
    """Tells unwanted answers from others.

    Attributes:
        separation: area under the ROC curve with which unseen answers of the two groups are told apart; 0.5 if there
            are too few rows to measure it.
        least: the separation from which the groups count as two kinds.
        threshold: the decision value from which an answer is unwanted.
    """

    model: Any
    separation: float
    threshold: float
    least: float = SEPARABLE

    @classmethod
    def of(cls, forget: Sequence[Row], retain: Sequence[Row], *, seed: int = 0) -> UnwantedKind:
        """Learn the kind from the rows' answers; rows of plain text count as answers."""
        ours, others = [row.answer for row in forget], [row.answer for row in retain]
        folds = min(FOLDS, len(set(ours)), len(set(others)))
        if folds < 2:
            return cls(None, 0.5, 0.0)
        texts, labels = [*ours, *others], np.arange(len(ours) + len(others)) < len(ours)
        order = np.random.default_rng(key(seed, "kind")).permutation(len(texts))
        model = make_pipeline(
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
            LogisticRegression(class_weight="balanced", C=10.0, max_iter=500),
        )
        shuffled, truth = [texts[i] for i in order], labels[order]
        scores = cross_val_predict(model, shuffled, truth, cv=folds, method="decision_function")
        separation = float(roc_auc_score(truth, scores))
        threshold = float(np.median(scores[truth]) + np.median(scores[~truth])) / 2
        least = max(SEPARABLE, 0.5 + 2 * _chance_error(len(ours), len(others)))
        return cls(model.fit(shuffled, truth), separation, threshold, least)

    @property
    def separable(self) -> bool:
        """Whether the two groups of answers differ as kinds."""
        return self.separation >= self.least

    def unwanted(self, answers: Sequence[str], rows: Sequence[Row]) -> list[bool]:
        """Whether each answer to a forget row's prompt is still unwanted."""
        again = [repeats(answer, row.answer) for answer, row in zip(answers, rows, strict=True)]
        return [a or b for a, b in zip(again, self.alike(answers), strict=True)]

    def alike(self, answers: Sequence[str]) -> list[bool]:
        """Whether the classifier takes each answer for one of the forget rows'; never if the groups are no kinds."""
        if not self.separable or not answers:
            return [False] * len(answers)
        return [bool(value > self.threshold) for value in self.model.decision_function(list(answers))]


def _chance_error(ours: int, others: int) -> float:
    """Standard error of the area under the ROC curve where the groups do not differ."""
    return math.sqrt((ours + others + 1) / (12 * ours * others))


def repeats(answer: str, unwanted: str) -> bool:
    """Whether the answer holds most of the unwanted answer's pairs of neighbouring words."""
    wanted, found = _pairs(unwanted), set(_pairs(answer))
    return bool(wanted) and sum(pair in found for pair in wanted) >= REPEATED * len(wanted)


def _pairs(text: str) -> list[tuple[str, str]]:
    words = text.lower().split()
    return list(itertools.pairwise(words)) or [(word, "") for word in words]
