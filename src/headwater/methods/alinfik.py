"""ALinFiK: a small student that has learned a teacher's scores from a sample (Pan et al., arXiv 2503.01052).

    sample the pool ─▶ label it with the teacher ─▶ train the student ─▶ score every row with the student

The teacher is any method; LinFiK by default. Cost no longer grows with the language model: it reads the sample only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from headwater.core.errors import DataError, UsageError
from headwater.core.spec import MethodSpec
from headwater.data.rows import Row
from headwater.methods.streaming import (
    Bench,
    Part,
    StreamingEntry,
    StreamingMethod,
    Target,
    pool_parts,
    require_bench,
)
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
        found = {}
        for text in filter(None, (part.strip() for part in self.teacher_set.split(";"))):
            name, sign, value = text.partition("=")
            if not sign:
                raise UsageError(f"'{text}' is not name=value", where="alinfik.teacher_set", remedy="as folds=1;seed=2")
            found[name.strip()] = value.strip()
        return found

    def budget(self, rows: int) -> int:
        """How many rows of a pool of `rows` are labelled."""
        return min(rows, self.labels or max(2000, rows // 20))


@dataclass(frozen=True)
class Distilled:
    """A student of any teacher, as a method of its own; it learns from the bench's sample.

    Attributes:
        teacher: whose scores are learned.
        student: what is trained.
        name: what the method is called.
    """

    teacher: StreamingMethod
    student: StudentOptions = dataclasses.field(default_factory=StudentOptions)
    name: str = "distilled"

    @property
    def method(self) -> StreamingMethod:
        """The method."""
        options = {"teacher": self.teacher.spec.to_json(), "student": asdict(self.student)}
        return StreamingMethod(MethodSpec(self.name, options), self.prepare)

    def prepare(self, bench: Bench | None, targets: Sequence[Target]) -> StudentScorer:
        """Label the bench's sample for every target and train a student for each.

        Raises:
            DataError: the sample is too small, or the teacher scores all of it alike.
        """
        at = require_bench(bench, self.name)
        scorer = self.teacher.prepare(at, targets)
        labels = pool_parts(scorer(at.sample), scorer.parts).astype(np.float64)
        students = tuple(fit_student(at.sample, labels[:, i], self.student) for i in range(len(targets)))
        return StudentScorer(students, tuple(target.name for target in targets))


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


def alinfik(options: ALinFiKOptions) -> StreamingMethod:
    """The method with these options; without `labels`, all of the bench's sample is labelled."""
    from headwater.methods.catalog import find_streaming  # the catalog lists this method too

    if options.teacher == "alinfik":
        raise UsageError("a student cannot teach", where="alinfik.teacher", remedy="name another method")
    distilled = Distilled(find_streaming(options.teacher, options.teacher_settings), options.student, "alinfik")

    def prepare(bench: Bench | None, targets: Sequence[Target]) -> StudentScorer:
        at = require_bench(bench, "alinfik")
        if len(at.sample) < options.labels:
            what = f"{options.labels} labels of a sample of {len(at.sample)} rows"
            raise DataError(what, where="alinfik.labels", remedy="give the bench a larger sample")
        return distilled.prepare(dataclasses.replace(at, sample=at.sample[: options.labels or None]), targets)

    return StreamingMethod(MethodSpec("alinfik", asdict(options)), prepare)


ENTRY = StreamingEntry(
    name="alinfik",
    summary="A small student trained on a sample of a teacher's scores: LinFiK's, or any method's.",
    reads="the teacher reads a sample; the student reads text",
    cost="the teacher's on the sample, then about 0.2 ms of one core",
    source="Pan et al., arXiv 2503.01052",
    presets={
        "default": ALinFiKOptions(),
        "transformer": ALinFiKOptions(family="transformer", members=3),
    },
    make=alinfik,
    choices={"family": FAMILIES},
)
