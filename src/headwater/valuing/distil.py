"""Train a student for a whole pool: label a sample with the teacher, train on it, and measure on fresh rows.

Labels are saved block by block in the run's folder, and the student in a folder of its own. So a run that was killed
continues where it stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.core.errors import UsageError
from headwater.core.statistics import spearman
from headwater.data.rows import Row
from headwater.methods.targets import Scorer
from headwater.students.student import Student, StudentOptions, fit_student, load_student
from headwater.valuing.run import BLOCK_ROWS, Estimate, OnRows, estimate_rows, of_scorer


@dataclass(frozen=True)
class Recheck:
    """A student measured on fresh rows that it has not learned from.

    Attributes:
        rows: how many rows were measured.
        spearman: correlation with the teacher's scores.
        recall: share of the teacher's best tenth that is in the student's best tenth.
        covered: share of the teacher's scores inside the student's intervals; NaN if it gives none.
        teacher_seconds, student_seconds: time for one row.
    """

    rows: int
    spearman: float
    recall: float
    covered: float
    teacher_seconds: float
    student_seconds: float

    @property
    def cost_ratio(self) -> float:
        """The teacher's time per row over the student's."""
        return self.teacher_seconds / self.student_seconds

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            **{"rows": self.rows, "Spearman": self.spearman, "recall of the best tenth": self.recall},
            **{
                "inside the interval": None if math.isnan(self.covered) else self.covered,
                "teacher seconds a row": self.teacher_seconds,
            },
            **{"student seconds a row": self.student_seconds, "cost ratio": self.cost_ratio},
        }


def distil(
    scorer: Scorer,
    sample: Sequence[Row],
    options: StudentOptions,
    *,
    run: Path,
    folder: Path,
    about: Mapping[str, Any],
    whole_pool: bool = False,
    on_stage: Callable[[str, int], None] | None = None,
) -> Student:
    """Return the student in the folder if there is one that learned the same scores; else train and save it.

    Args:
        scorer: the teacher, prepared for one target.
        sample: rows to label.
        options: how to train.
        run: folder for labels; it is made if it does not exist.
        folder: folder of the student.
        about: teacher, target and model of the scores; a saved student must have the same.
        whole_pool: the teacher reads all rows as one block.
        on_stage: called with the name of the current step and the rows done.

    Raises:
        UsageError: several targets.
        MismatchError: the folder's student learned other scores.
    """
    require_one_target(scorer)
    if folder.exists():
        student = load_student(folder)
        student.require(about)
        return student
    on_rows = None if on_stage is None else partial(on_stage, "labelling")
    labels = label(scorer, sample, run / "labels", whole_pool=whole_pool, on_rows=on_rows)
    if on_stage is not None:
        on_stage("training the student", len(sample))
    student = fit_student(sample, labels, options, about=about)
    student.save(folder)
    return student


def label(
    scorer: Scorer, rows: Sequence[Row], folder: Path, *, whole_pool: bool = False, on_rows: OnRows | None = None
) -> NDArray[np.float64]:
    """The teacher's values of the rows, float64 `[rows]`; blocks that are in the folder are not computed again."""
    folder.mkdir(parents=True, exist_ok=True)
    estimate_rows(folder, rows, of_scorer(scorer), len(rows) if whole_pool else BLOCK_ROWS, on_rows)
    found = [np.load(path)[:, 0, 0] for path in sorted(folder.glob("*.npy"))]
    values: NDArray[np.float64] = np.concatenate(found)
    return values


def recheck(teacher: Estimate, student: Student, rows: Sequence[Row]) -> Recheck:
    """Compare the student with its teacher on rows it has not learned from, and time both."""
    start = time.perf_counter()
    truth = teacher(rows)[:, 0, 0]
    half = time.perf_counter()
    estimates = student.estimates(rows)[:, 0]
    end = time.perf_counter()
    inside = (estimates[:, 1] <= truth) & (truth <= estimates[:, 2])
    return Recheck(
        rows=len(rows),
        spearman=spearman(estimates[:, 0], truth, if_constant=0.0),
        recall=best_recall(estimates[:, 0], truth),
        covered=float(inside.mean()) if student.has_intervals else float("nan"),
        teacher_seconds=(half - start) / len(rows),
        student_seconds=(end - half) / len(rows),
    )


def best_recall(found: NDArray[np.float64], truth: NDArray[np.float64], share: float = 0.1) -> float:
    """Share of the truth's best tenth that is in the found best tenth."""
    count = max(1, round(share * len(truth)))
    best = set(np.argsort(-truth, kind="stable")[:count].tolist())
    return len(best & set(np.argsort(-found, kind="stable")[:count].tolist())) / count


def require_one_target(scorer: Scorer) -> None:
    """Raise `UsageError` if there are several targets, because a student learns one."""
    names = {part.target for part in scorer.parts}
    if len(names) > 1:
        what = f"there are {len(names)} targets for one student"
        raise UsageError(what, where="--target", remedy="give one target; train a student for each")
