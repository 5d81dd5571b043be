"""A student of a whole pool: label a sample, train the student, and measure it on fresh rows.

Labels are kept block by block in the run's folder and the student in a folder of its own, so a run that was killed goes
on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
        rows: how many.
        spearman: with the teacher.
        recall: share of the teacher's best tenth that is in the student's best tenth.
        covered: share of the teacher's scores inside the student's intervals.
        teacher_seconds, student_seconds: a row.
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
            **{"inside the interval": self.covered, "teacher seconds a row": self.teacher_seconds},
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
    """The student of a teacher, from the folder if it is there and learned the same, else trained and saved.

    Args:
        scorer: the teacher, ready for one target.
        sample: rows to label.
        options: how to train.
        run: folder for labels, which is made if need be.
        folder: of the student.
        about: whose scores these are.
        whole_pool: the teacher reads all rows as one block.
        on_stage: called with what is being done and the rows done.

    Raises:
        MismatchError: the folder's student learned other scores.
    """
    require_one_target(scorer)
    if folder.exists():
        student = load_student(folder)
        student.require(about)
        return student
    labels = label(scorer, sample, run / "labels", whole_pool=whole_pool, on_rows=_named("labelling", on_stage))
    if on_stage is not None:
        on_stage("training the student", len(sample))
    student = fit_student(sample, labels, options, about=about)
    student.save(folder)
    return student


def label(
    scorer: Scorer, rows: Sequence[Row], folder: Path, *, whole_pool: bool = False, on_rows: OnRows | None = None
) -> NDArray[np.float64]:
    """The teacher's values of the rows, `[rows]`; blocks that are in the folder are not computed again."""
    folder.mkdir(parents=True, exist_ok=True)
    estimate_rows(folder, rows, of_scorer(scorer), len(rows) if whole_pool else BLOCK_ROWS, on_rows)
    found = [np.load(path)[:, 0, 0] for path in sorted(folder.glob("*.npy"))]
    values: NDArray[np.float64] = np.concatenate(found)
    return values


def recheck(teacher: Estimate, student: Student, rows: Sequence[Row]) -> Recheck:
    """The student beside its teacher on rows it has not learned from, both timed."""
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
        covered=float(inside.mean()),
        teacher_seconds=(half - start) / len(rows),
        student_seconds=(end - half) / len(rows),
    )


def best_recall(found: NDArray[np.float64], truth: NDArray[np.float64], share: float = 0.1) -> float:
    """Share of the truth's best tenth that is in the found best tenth."""
    count = max(1, round(share * len(truth)))
    best = set(np.argsort(-truth, kind="stable")[:count].tolist())
    return len(best & set(np.argsort(-found, kind="stable")[:count].tolist())) / count


def require_one_target(scorer: Scorer) -> None:
    """Refuse several targets: a student learns one."""
    names = {part.target for part in scorer.parts}
    if len(names) > 1:
        what = f"{len(names)} targets for one student"
        raise UsageError(what, where="--target", remedy="give one target; train a student for each")


def _named(words: str, on_stage: Callable[[str, int], None] | None) -> OnRows | None:
    return None if on_stage is None else lambda done: on_stage(words, done)
