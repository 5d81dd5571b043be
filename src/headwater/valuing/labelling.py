"""Which rows the teacher labels, and their labels.

    candidates      a random sample of the pool, even over a column if one is named
    cheap           of four times as many, every fourth in the order of their BM25 score with the target
    active          a first student learns a part of the labels; the rest goes to rows on which its members disagree
    seconds         as many labels as the teacher gives in that time

What was measured is kept in the run's folder, so that a resumed run labels the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headwater.core.files import write_text
from headwater.data.rows import Row
from headwater.methods.lexical import bm25_scores
from headwater.methods.method import Learning
from headwater.methods.targets import Scorer
from headwater.students.choice import seconds_a_row, steady_seconds_a_row
from headwater.students.labels import FEWEST
from headwater.students.student import Taught, fit_students
from headwater.valuing.distil import Labelled, Teacher, label
from headwater.valuing.run import OnRows
from headwater.valuing.survey import SurveyedPool

SPARE = 4
"""So many times as many candidates as labels are drawn if not all of them are labelled."""

_TIMED = 16


@dataclass(frozen=True)
class LabelPlan:
    """The rows that may be labelled, and how many of them are.

    Attributes:
        candidates: rows in the order in which they are labelled.
        fresh: further rows, to measure the student on.
        labels: how many rows are labelled.
        teacher_seconds: the teacher's time of one row; None for a teacher that reads the whole pool at once.
        folder: the run's folder.
    """

    candidates: tuple[Row, ...]
    fresh: tuple[Row, ...]
    labels: int
    teacher_seconds: float | None
    folder: Path

    @classmethod
    def of(
        cls, drawn: SurveyedPool, learning: Learning, scorer: Scorer, *, most: int, target: Sequence[Row], folder: Path
    ) -> LabelPlan:
        """Measure the teacher, and divide the drawn rows."""
        kept = folder / "budget.json"
        if not kept.exists():
            timed = None if learning.teacher.whole_pool else steady_seconds_a_row(scorer, drawn.sample)
            budget = min(most, drawn.count)
            if learning.seconds and timed is not None:
                passing = seconds_a_row(scorer, drawn.sample[:_TIMED], elapsed=True)
                budget = min(budget, max(FEWEST, int(learning.seconds / passing)))
            write_text(kept, json.dumps({"labels": budget, "teacher seconds": timed}))
        measured = json.loads(kept.read_text(encoding="utf-8"))
        labels, spare = int(measured["labels"]), SPARE if learning.cheap or learning.active else 1
        end = max(labels, min(spare * labels, len(drawn.sample) - learning.recheck))
        candidates, fresh = drawn.sample[:end], drawn.sample[end : end + learning.recheck]
        if learning.cheap:
            candidates = evenly_over(candidates, target, labels)
        return cls(candidates, fresh, labels, measured["teacher seconds"], folder)

    def gather(
        self, learning: Learning, teacher: Teacher, taught: Taught, *, on_rows: OnRows | None = None
    ) -> Labelled:
        """Label the rows, in two rounds if the learning is active."""
        first = max(self.labels - round(learning.active * self.labels), min(FEWEST, self.labels))
        rows = self.candidates[:first]
        labels = label(teacher, rows, self.folder / "labels", on_rows=on_rows)
        if first == self.labels:
            return Labelled(rows, labels, first)
        students = fit_students(rows, labels, learning.student, taught)
        rest = self.candidates[first:]
        unsure = np.mean([student.unsure(rest) for student in students], axis=0)
        second = tuple(rest[i] for i in np.argsort(-unsure, kind="stable")[: self.labels - first])
        further = label(teacher, second, self.folder / "labels of the second round")
        return Labelled((*rows, *second), np.concatenate([labels, further]), first)


def evenly_over(rows: Sequence[Row], target: Sequence[Row], count: int) -> tuple[Row, ...]:
    """All rows in another order: first `count` of them, evenly over the rows' BM25 score with the target.

    These stay in the order in which they were drawn, so that every beginning of them is a sample too.
    """
    order = np.argsort(-bm25_scores(rows, target).values.sum(axis=1), kind="stable")
    chosen = set(order[np.linspace(0, len(rows) - 1, count).round().astype(int)].tolist())
    return (*(rows[i] for i in sorted(chosen)), *(row for i, row in enumerate(rows) if i not in chosen))
