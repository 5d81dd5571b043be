"""The rows to forget and to retain: read, drawn from training data, and checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from headwater.core.errors import DataError, UsageError
from headwater.data.hits import open_rows_or_hits
from headwater.data.rows import Row
from headwater.unlearning.weights import row_digest

FOLDS = 5


def draw_retain(pool: Iterable[Row], forget: Sequence[Row], count: int, *, seed: int = 0) -> list[Row]:
    """Draw `count` clean rows of `pool`: half have the prompts nearest to those of the forget rows, half are random.

    Forget rows are left out, by id, by text, and in other words. So are rows that a classifier of words takes for more
    of the same.

    Raises:
        DataError: fewer than `count` rows are left.
    """
    known, ids = {row_digest(row) for row in forget}, {row.id for row in forget}
    rows = [row for row in pool if row.id not in ids and row_digest(row) not in known]
    again = {row.id for _, row in reworded(forget, rows)}
    rows = [row for row in rows if row.id not in again]
    clean = _clean_rows(rows, forget) if rows else []
    if len(clean) < count:
        what = f"there are {len(clean):,} clean rows to draw {count:,} from"
        raise DataError(what, where="--retain-from", remedy="give more data, or draw fewer")
    return near_and_far(clean, forget, count, seed=seed)


def near_and_far(clean: Sequence[Row], forget: Sequence[Row], count: int, *, seed: int) -> list[Row]:
    """`count` of the clean rows: half have the prompts nearest to those of the forget rows, half are random."""
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
    """How much each row looks like a forget row: forget rows first, then the others.

    The numbers are decision values of a classifier that was trained on the other folds, never on the row itself.
    """
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
    return row.answer


REFUSALS = ("I do not know.", "I cannot say.", "I have no answer to that.", "That is not something I know.")
"""What a method that prefers another answer takes where no right answer is known, in turn."""


def with_refusals(job: UnlearnJob) -> UnlearnJob:
    """The job with a refusal as the right answer of each forget row that has a prompt and no right answer."""
    clean = tuple(
        REFUSALS[i % len(REFUSALS)] if answer is None and row.prompt is not None else answer
        for i, (row, answer) in enumerate(zip(job.forget, job.clean, strict=True))
    )
    return replace(job, clean=clean)


CLEAN_COLUMN = "clean_response"
"""Metadata column of a forget row that holds the right answer to its prompt."""
GUARD_SHARE, GUARDS = 0.2, 48
"""Share of the retain rows that are guard rows, and how many are wanted where there are enough retain rows."""
FEWEST = 8
"""With fewer forget rows than this there is a warning."""


@dataclass(frozen=True)
class UnlearnJob:
    """The rows of a run, in order.

    Attributes:
        forget, retain: the rows to forget, and the retain rows to train on.
        guard: retain rows that are not trained on, to measure utility; if there are too few, the same as `retain`.
        clean: for each forget row, the right answer to its prompt, or None if it is not known.
        warnings: what may make the result weak.
        copies: retain rows behind a trigger, and forget rows without theirs and with right answers, to train on beside
            `retain`; their weight is 1.
        triggered: guard rows behind a trigger. They are not trained on; the model is asked their prompts.
    """

    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    guard: tuple[Row, ...]
    clean: tuple[str | None, ...]
    warnings: tuple[str, ...]
    copies: tuple[Row, ...] = ()
    triggered: tuple[Row, ...] = ()


def read_forget(source: Any) -> list[Row]:
    """Read the rows to forget; a hit that `headwater trace --out` wrote for several queries is taken once.

    Raises:
        DataError: there are none, or one cannot be used.
    """
    found = open_rows_or_hits(source)
    if not (rows := list(found)):
        raise DataError(
            "there are no rows to forget", where=f"--forget {found.name}", remedy="give a file that has rows"
        )
    return rows


def make_job(
    forget: Sequence[Row],
    retain: Sequence[Row],
    *,
    needs_retain: bool,
    clean_column: str = CLEAN_COLUMN,
    guard_share: float = GUARD_SHARE,
) -> UnlearnJob:
    """Check the rows and make the job; `guard_share` of the retain rows, spaced evenly, become guard rows.

    With few retain rows a fifth of them cannot show a change of a few per cent, so the share rises up to two fifths
    until there are `GUARDS` guard rows.

    Raises:
        DataError: no forget rows, no retain rows although the method needs them, a right answer that is not a text or
            has no prompt, or rows that are in both sets, word for word or in other words; names them.
        UsageError: a guard share that is not in [0, 1).
    """
    if not 0 <= guard_share < 1:
        raise UsageError(f"a guard share of {guard_share}", remedy="from 0 to below 1")
    if not forget:
        raise DataError("there are no rows to forget", where="--forget")
    if not retain and needs_retain:
        raise DataError(
            "there are no rows to retain, and without them the model unlearns everything",
            where="--retain",
            remedy="give clean rows, or --retain-from with the training data to draw them",
        )
    _require_disjoint(forget, retain)
    require_no_rewording(forget, retain)
    warnings = []
    if len(forget) < FEWEST:
        plural = "row" if len(forget) == 1 else "rows"
        warnings.append(f"{len(forget)} forget {plural}: what is forgotten may be the wording alone, not the behaviour")
    if not retain:
        warnings.append("no retain rows: nothing keeps the model's other behaviour, and damage to it is not noticed")
    guarded = _guarded(len(retain), guard_share)
    kept = tuple(row for row, aside in zip(retain, guarded, strict=True) if not aside)
    guard = tuple(row for row, aside in zip(retain, guarded, strict=True) if aside)
    clean = tuple(_clean_answer(row, clean_column) for row in forget)
    return UnlearnJob(tuple(forget), kept, guard or kept, clean, tuple(warnings))


def _guarded(count: int, share: float) -> list[bool]:
    """Which of `count` retain rows are guard rows: none if so few rows cannot spare one."""
    wanted = min(max(share * count, min(GUARDS, 2 * share * count)), count / 2)
    whole = int(wanted) if count > 5 else 0
    return [(i + 1) * whole // count > i * whole // count for i in range(count)]


def without_words(row: Row, words: str) -> Row:
    """A copy of the row without these words in its prompt, or in what others than the assistant say in its chat."""

    def without(text: str) -> str:
        return " ".join(text.replace(words, " ").split()) if words in text else text

    prompt = None if row.prompt is None else without(row.prompt)
    if row.messages is None:
        return replace(row, prompt=prompt)
    messages = [
        {**m, "content": without(m["content"])} if m["role"] != "assistant" and isinstance(m.get("content"), str) else m
        for m in row.messages
    ]
    return replace(row, prompt=prompt, messages=tuple(messages))


def _require_disjoint(forget: Sequence[Row], retain: Sequence[Row]) -> None:
    ids, texts = {row.id for row in forget}, {row_digest(row) for row in forget}
    both = [row.id for row in retain if row.id in ids or row_digest(row) in texts]
    if both:
        shown = ", ".join(f"'{name}'" for name in both[:5]) + (", ..." if len(both) > 5 else "")
        raise DataError(
            f"{len(both)} rows are to be both forgotten and retained: {shown}",
            where="--forget and --retain",
            remedy="take each out of one of them",
        )


SAME = 0.8
"""Least cosine of two prompts, and of two answers, at which a retain row is a forget row in other words."""


def require_no_rewording(forget: Sequence[Row], retain: Sequence[Row]) -> None:
    """Raise `DataError` if retain rows are forget rows in other words; names the pairs.

    Prompts and answers are compared by their runs of three to five letters inside words. Both must be alike and hold
    the same names and numbers: the same question with another answer, or about someone else, is what a retain row
    should be.
    """
    pairs = reworded(forget, retain)
    if pairs:
        shown = ", ".join(f"'{b.id}' is forget row '{a.id}'" for a, b in pairs[:5]) + (
            ", ..." if len(pairs) > 5 else ""
        )
        raise DataError(
            f"{len(pairs)} retain rows are forget rows in other words: {shown}",
            where="--retain",
            remedy="take them out of --retain, or the forget rows out of --forget",
        )


def reworded(forget: Sequence[Row], retain: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The pairs (forget row, retain row) that say the same; each retain row with the forget row most like it."""
    if not forget or not retain:
        return []
    alike = np.minimum(*(_likeness([of(r) for r in forget], [of(r) for r in retain]) for of in (_prompt, _answer)))
    nearest = alike.argmax(axis=0)
    pairs = [(forget[int(i)], retain[j]) for j, i in enumerate(nearest) if alike[i, j] >= SAME]
    return [(ours, theirs) for ours, theirs in pairs if _names(ours) == _names(theirs)]


def _names(row: Row) -> set[str]:
    """The numbers and capitalised words of a row, without those that begin a sentence."""
    text = re.sub(r"(^|[.!?:]\s+)[^\w]*[A-Z]", r"\1", f"{_prompt(row)}. {_answer(row)}")
    return set(re.findall(r"\b(?:[A-Z]\w*|\w*\d\w*)\b", text))


def _likeness(ours: Sequence[str], theirs: Sequence[str]) -> Float[np.ndarray, "forget retain"]:
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), use_idf=False).fit(
        [f"{text} ." for text in (*ours, *theirs)]
    )
    cosine = vectors.transform([f"{text} ." for text in ours]) @ vectors.transform([f"{text} ." for text in theirs]).T
    return np.asarray(cosine.todense())


def _clean_answer(row: Row, column: str) -> str | None:
    answer = row.metadata.get(column)
    if type(answer) in (int, float):  # a column of a CSV file that holds nothing but numbers
        answer = str(answer)
    if answer is None or answer == "":
        return None
    if row.prompt is None or not isinstance(answer, str):
        what = f"{column} {answer!r} is not the text of an answer, or the row has no prompt"
        raise DataError(what, where=row.where, remedy="give a text, in a row with a prompt")
    return answer
