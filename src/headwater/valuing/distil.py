"""Train students for a whole pool: label a sample with the teacher, train on it, and measure on fresh rows.

Labels are saved block by block in the run's folder, and each target's student in a folder of its own. So a run
that was killed continues where it stopped.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.core.statistics import spearman
from headwater.data.rows import Row
from headwater.engines.blocks import Engine
from headwater.methods.targets import Scorer
from headwater.students.labels import FEWEST
from headwater.students.student import Student, StudentOptions, Taught, estimates_of, fit_students, load_student
from headwater.valuing.run import BLOCK_ROWS, Estimate, EstimateFiles, OnRows, Recipe, estimate_rows, of_scorer


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


@dataclass(frozen=True)
class Labelled:
    """Labelled rows: the teacher's values float64 `[rows, targets]`; the first `random` rows are a random sample."""

    rows: tuple[Row, ...]
    labels: NDArray[np.float64]
    random: int


def distil(
    gather: Callable[[], Labelled],
    options: StudentOptions,
    *,
    folders: Mapping[str, Path],
    about: Mapping[str, Mapping[str, Any]],
    taught: Taught,
    on_training: Callable[[int], None] | None = None,
) -> dict[str, Student]:
    """Return each target's student if its folder has one that learned the same scores; else train and save it.

    Args:
        gather: labels the sample; called only if a student is missing.
        options: how to train.
        folders: folder of each target's student.
        about: of each target: teacher, target and model of the scores; a saved student must have the same.
        taught: the language model whose sketches a student may read, and the teacher's time.
        on_training: called with the number of labels when the students begin to learn.

    Raises:
        MismatchError: a folder's student learned other scores.
    """
    saved = {name: load_student(place, reader=taught.reader) for name, place in folders.items() if place.exists()}
    for name, student in saved.items():
        student.require(about[name])
    if len(saved) == len(folders):
        return saved
    lesson = gather()
    if on_training is not None:
        on_training(len(lesson.rows))
    students = fit_students(lesson.rows, lesson.labels, options, replace(taught, random=lesson.random))
    made = {}
    for name, student in zip(folders, students, strict=True):
        made[name] = saved.get(name) or replace(student, about=dict(about[name]))
        if name not in saved:
            made[name].save(folders[name])
    return made


def folders_of(folder: Path, targets: Sequence[str]) -> dict[str, Path]:
    """The folder of each target's student: the given one for one target, else with the target's name in it."""
    if len(targets) == 1:
        return {targets[0]: folder}
    plain = [re.sub(r"[^\w.-]+", "-", name) for name in targets]
    names = [name if plain.count(name) == 1 else f"{place}-{name}" for place, name in enumerate(plain)]
    return {
        target: folder.with_name(f"{folder.stem}.{name}{folder.suffix}")
        for target, name in zip(targets, names, strict=True)
    }


def doubled(curve: Sequence[tuple[int, float]]) -> float | None:
    """The held-out correlation that twice the labels would bring if 1 − ρ falls as a power of the labels.

    None if the curve has fewer than three points from 20 labels on, or does not rise.
    """
    points = [(count, 1 - rho) for count, rho in curve if count >= FEWEST and rho < 1]
    if len(points) < 3:
        return None
    counts, misses = np.log(np.array(points, dtype=np.float64)).T
    slope = float(np.polyfit(counts, misses, 1)[0])
    return None if slope >= 0 else float(1 - points[-1][1] * 2**slope)


@dataclass(frozen=True)
class Teacher:
    """A teacher, and where it labels rows.

    Attributes:
        scorer: its scores.
        whole_pool: whether it must be given all rows at once.
        engine: where rows are labelled; None: in this process.
        recipe: how another process makes the same teacher; None if none can.
    """

    scorer: Scorer
    whole_pool: bool = False
    engine: Engine | None = None
    recipe: Recipe | None = None


def label(teacher: Teacher, rows: Sequence[Row], folder: Path, *, on_rows: OnRows | None = None) -> NDArray[np.float64]:
    """The teacher's values, float64 `[rows, targets]`; blocks that are in the folder are not computed again."""
    folder.mkdir(parents=True, exist_ok=True)
    work = EstimateFiles(folder, of_scorer(teacher.scorer), teacher.recipe)
    together = len(rows) if teacher.whole_pool else BLOCK_ROWS
    estimate_rows(work, rows, together, on_rows=on_rows, engine=teacher.engine)
    found = [np.load(path)[:, :, 0] for path in sorted(folder.glob("[!.]*.npy"))]
    values: NDArray[np.float64] = np.concatenate(found)
    return values


def recheck(teacher: Estimate, students: Mapping[str, Student], rows: Sequence[Row]) -> dict[str, Recheck]:
    """Compare each target's student with its teacher on rows it has not learned from, and time all.

    The teacher's time and the students' are for all targets together.
    """
    start = time.perf_counter()
    truths = teacher(rows)[:, :, 0]
    half = time.perf_counter()
    estimates = estimates_of(list(students.values()))(rows)
    end = time.perf_counter()
    found = {}
    for place, (name, student) in enumerate(students.items()):
        truth, (value, low, high) = truths[:, place], estimates[:, place].T
        found[name] = Recheck(
            rows=len(rows),
            spearman=spearman(value, truth, if_constant=0.0),
            recall=best_recall(value, truth),
            covered=float(((low <= truth) & (truth <= high)).mean()) if student.has_intervals else float("nan"),
            teacher_seconds=(half - start) / len(rows),
            student_seconds=(end - half) / len(rows),
        )
    return found


def best_recall(found: NDArray[np.float64], truth: NDArray[np.float64], share: float = 0.1) -> float:
    """Share of the truth's best tenth that is in the found best tenth."""
    count = max(1, round(share * len(truth)))
    best = set(np.argsort(-truth, kind="stable")[:count].tolist())
    return len(best & set(np.argsort(-found, kind="stable")[:count].tolist())) / count
