"""ALinFiK: a small student that has learned a teacher's scores from a sample (Pan et al., arXiv 2503.01052).

    sample the pool ─▶ label it with the teacher ─▶ train the student ─▶ score every row with the student

The teacher is any method; LinFiK by default. Cost no longer grows with the language model: it reads the sample only.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from headwater.core.errors import DataError, UsageError
from headwater.core.spec import MethodSpec
from headwater.data.rows import Row
from headwater.methods.method import Find, Learning, Method, MethodEntry, parse_settings
from headwater.methods.scoring import prepare
from headwater.methods.targets import Part, Target, mean_over_parts
from headwater.models.reader import Reader
from headwater.students.student import FAMILIES, Student, StudentOptions, fit_student


@dataclass(frozen=True)
class ALinFiKOptions:
    """Every knob.

    teacher: any method but this one; teacher_set: its options as `name=value;name=value`. labels: rows the teacher
    labels; 0: 2,000 or a twentieth of the pool, whichever is more. stratify: a metadata column to sample evenly by.
    recheck: fresh rows labelled afterwards to measure the student on; 0: none. family, members, encoder, ranking,
    epochs, seed as in `StudentOptions`.
    """

    teacher: str = "linfik"
    teacher_set: str = ""
    labels: int = 0
    stratify: str = ""
    recheck: int = 200
    family: str = "regression"
    members: int = 5
    encoder: str = ""
    ranking: bool = False
    epochs: int = 30
    seed: int = 0

    @property
    def student(self) -> StudentOptions:
        """The student's own options."""
        return StudentOptions(self.family, self.members, self.encoder, self.ranking, self.epochs, self.seed)

    @property
    def teacher_settings(self) -> dict[str, str]:
        """The teacher's options by name."""
        return parse_settings(self.teacher_set, where="alinfik.teacher_set")

    def budget(self, rows: int) -> int:
        """How many rows of a pool of `rows` are labelled."""
        return min(rows, self.labels or max(2000, rows // 20))


@dataclass(frozen=True)
class StudentScorer:
    """A `Scorer` of one student a target."""

    students: tuple[Student, ...]
    targets: tuple[str, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """One a target."""
        return tuple(Part(name) for name in self.targets)

    @property
    def notes(self) -> Mapping[str, Any]:
        """Each student's held-out Spearman correlation with its teacher."""
        return {"held-out Spearman": {t: s.held_out for t, s in zip(self.targets, self.students, strict=True)}}

    def __call__(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows parts"]:
        """The students' scores in the teacher's units."""
        return np.stack([student.predict(rows) for student in self.students], axis=1).astype(np.float32)


def alinfik(options: ALinFiKOptions, find: Find) -> Method:
    """The method with these options; without `labels`, all of the sample that it is given is labelled."""
    teacher = find(options.teacher, options.teacher_settings)
    spec = MethodSpec("alinfik", asdict(options))
    learning = Learning(teacher, options.student, options.budget, options.recheck, options.stratify)
    return student_of(learning, spec, sample=options.labels)


def student_of(learning: Learning, spec: MethodSpec, *, sample: int = 0) -> Method:
    """A student of any teacher, as a method of its own.

    Args:
        learning: whose scores are learned, and how.
        spec: what the method is called.
        sample: rows of the pool the teacher labels; 0: all that it is given.

    Raises:
        UsageError: the teacher is a student itself.
    """
    if learning.teacher.learning is not None:
        raise UsageError("a student cannot teach", where=f"{spec.name}.teacher", remedy="name another method")
    scoring = partial(_learn, learning, sample)
    return Method(
        spec, scoring=scoring, learning=learning, fit_rows=sample or sys.maxsize, meaning=learning.teacher.meaning
    )


def _learn(
    learning: Learning, wanted: int, reader: Reader, targets: Sequence[Target], sample: Sequence[Row]
) -> StudentScorer:
    """Label the sample for every target and train a student for each."""
    if len(sample) < wanted:
        what = f"{wanted} labels of a sample of {len(sample)} rows"
        raise DataError(what, where="labels", remedy="give a larger sample")
    scorer = prepare(learning.teacher, reader, targets, sample)
    labels = mean_over_parts(scorer(sample), scorer.parts).astype(np.float64)
    students = tuple(fit_student(sample, labels[:, i], learning.student) for i in range(len(targets)))
    return StudentScorer(students, tuple(target.name for target in targets))


def entry(find: Find) -> MethodEntry[ALinFiKOptions]:
    """The line of the catalog whose methods `find` gives the teachers."""
    return MethodEntry(
        name="alinfik",
        summary="A small student trained on a sample of a teacher's scores: LinFiK's, or any method's.",
        reads="the teacher reads a sample; the student reads text",
        cost="the teacher's on the sample, then about 0.2 ms of one core",
        source="Pan et al., arXiv 2503.01052",
        presets={
            "default": ALinFiKOptions(),
            "transformer": ALinFiKOptions(family="transformer", members=3),
        },
        make=partial(alinfik, find=find),
        choices={"family": FAMILIES},
    )
