"""Telling unwanted answers: by a pattern, by a classifier of words, or by likeness to a known unwanted answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline

from headwater.core.errors import DataError, UsageError, unknown_name
from headwater.data.rows import Row
from headwater.unlearning.attacks import Unwanted
from headwater.unlearning.fluency import word_f1

JUDGES = ("pattern", "words", "likeness")
FOLDS = 5
LEAST_ACCURACY = 0.9
"""A classifier of words must tell rows it has not seen apart at least this well (balanced accuracy)."""
ALIKE = 0.5


def by_pattern(pattern: str) -> Unwanted:
    """An answer is unwanted if the regular expression occurs in it; letters' case does not matter.

    Raises:
        UsageError: it is not a regular expression.
    """
    try:
        found = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        remedy = "write a Python regular expression, such as 'planet|starship'"
        raise UsageError(f"'{pattern}' is not a pattern: {error}", where="--unwanted", remedy=remedy) from None
    return lambda rows, answers: [found.search(answer) is not None for answer in answers]


def by_words(forget: Sequence[Row], clean: Sequence[Row]) -> Unwanted:
    """An answer is unwanted if a classifier of words takes it for one of the forget rows' answers, not the clean ones'.

    The classifier is logistic regression on tf-idf of words, trained on the answers alone.

    Raises:
        DataError: with five folds it tells less than 90 % of rows apart that it was not trained on.
    """
    answers = [row.answer for row in (*forget, *clean)]
    labels = np.arange(len(answers)) < len(forget)
    folds = min(FOLDS, len(forget), len(clean))
    accuracy = 0.0
    if folds > 1:
        guessed = cross_val_predict(_classifier(), answers, labels, cv=folds)
        accuracy = float(balanced_accuracy_score(labels, guessed))
    if accuracy < LEAST_ACCURACY:
        what = f"the answers' words tell {accuracy:.0%} of forget and clean rows apart (balanced accuracy)"
        remedy = "give --unwanted PATTERN, or --judge likeness, which compares with each row's own answer"
        raise DataError(what, where="--judge words", remedy=remedy)
    model = _classifier().fit(answers, labels)
    return lambda rows, given: [
        bool(guess) and bool(a.strip()) for guess, a in zip(_guess(model, given), given, strict=True)
    ]


def by_likeness() -> Unwanted:
    """An answer is unwanted if its words agree with the row's own answer, the unwanted one: F1 of 0.5 or more."""
    return lambda rows, answers: [word_f1(a, r.answer) >= ALIKE for r, a in zip(rows, answers, strict=True)]


def find_judge(
    name: str | None, pattern: str | None, forget: Sequence[Row], clean: Sequence[Row]
) -> tuple[str, Unwanted]:
    """The judge of this name, and its name; without a name the pattern's if there is one, else that of words.

    Raises:
        UsageError: an unknown name, or one that does not go with a pattern.
        DataError: see `by_words`.
    """
    chosen = name or ("pattern" if pattern else "words")
    if chosen not in JUDGES:
        raise unknown_name("judge", chosen, JUDGES, where="--judge")
    if (chosen == "pattern") != (pattern is not None):
        what = f"judge '{chosen}' " + ("without a pattern" if pattern is None else "with a pattern")
        raise UsageError(what, where="--judge", remedy="--unwanted PATTERN goes with --judge pattern, and only with it")
    if pattern is not None:
        return chosen, by_pattern(pattern)
    return (chosen, by_words(forget, clean)) if chosen == "words" else (chosen, by_likeness())


def _classifier() -> Pipeline:
    return make_pipeline(
        TfidfVectorizer(token_pattern=r"\w+"), LogisticRegression(class_weight="balanced", max_iter=500)
    )


def _guess(model: Pipeline, answers: Sequence[str]) -> list[bool]:
    return [bool(guess) for guess in model.predict(list(answers))]
