"""ALinFiK: a small student that has learned a teacher's scores from a sample (Pan et al., arXiv 2503.01052).

    sample the pool ─▶ label it with the teacher ─▶ train the student ─▶ score every row with the student

The teacher may be any method; by default it is LinFiK. The language model reads only the sample, so scoring the rest of
the pool costs the same for a model of any size.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
from headwater.methods.targets import Part, PartScorer, Target, mean_over_parts
from headwater.models.reader import Reader
from headwater.students.choice import steady_seconds_a_row, to_share
from headwater.students.student import FAMILIES, StudentOptions, Taught, estimates_of, fit_students


@dataclass(frozen=True)
class ALinFiKOptions:
    """All options.

    teacher: any method but this one; teacher_set: its options as `name=value;name=value`. labels: how many rows the
    teacher labels; 0 is 2,000 or a twentieth of the pool, whichever is more. seconds: how long it may label instead.
    stratify: a metadata column; the sample has equally many rows of each of its values, if there are enough. cheap:
    take the sample evenly over the rows' BM25 scores with the target. active: the share of the labels that goes to
    rows on which the members of a first student disagree. recheck: how many fresh rows are labelled afterwards to
    measure the student; 0 for none. family, members, encoder, ranking, epochs, proxy, sources, cost, seed as in
    `StudentOptions`.
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
    seconds: float = 0.0
    cheap: bool = False
    active: float = 0.0
    proxy: str = ""
    sources: str = ""
    cost: str = ""

    def budget(self, rows: int) -> int:
        """How many rows of a pool of `rows` rows the teacher labels."""
        return min(rows, self.labels or max(2000, rows // 20))


def alinfik(o: ALinFiKOptions, find: Find) -> Method:
    """The method with these options; if `labels` is 0, the teacher labels the whole sample."""
    teacher = find(o.teacher, parse_settings(o.teacher_set, where="alinfik.teacher_set"))
    if o.seconds < 0 or o.labels < 0 or not 0 <= o.active < 1:
        what = f"{o.labels} labels in {o.seconds:g} seconds, {o.active:g} of them active"
        raise UsageError(what, where="alinfik", remedy="give numbers above 0, or 0 for what is usual; active below 1")
    to_share(o.cost)  # a wrong share is told before anything is labelled
    reads: dict[str, Any] = {"proxy": o.proxy, "sources": o.sources, "cost": o.cost}
    student = StudentOptions(o.family, o.members, o.encoder, o.ranking, o.epochs, o.seed, **reads)
    learning = Learning(teacher, student, o.budget, o.recheck, o.stratify, o.cheap, o.active, o.seconds, o.labels)
    return student_of(learning, MethodSpec("alinfik", asdict(o)), sample=o.labels)


def student_of(learning: Learning, spec: MethodSpec, *, sample: int = 0) -> Method:
    """A method whose scores are those of a student of any teacher.

    Args:
        learning: the teacher, and how the student learns its scores.
        spec: name and options of the method.
        sample: how many rows of the pool the teacher labels; 0 for all of the sample.

    Raises:
        UsageError: the teacher's scores are a student's themselves.
    """
    teacher = learning.teacher
    if teacher.learning is not None:
        raise UsageError("a student cannot teach", where=f"{spec.name}.teacher", remedy="name another method")
    scoring, fit_rows = partial(_learn, learning, sample), sample or sys.maxsize
    return Method(spec, scoring=scoring, learning=learning, fit_rows=fit_rows, meaning=teacher.meaning)


def _learn(
    learning: Learning, wanted: int, reader: Reader, targets: Sequence[Target], sample: Sequence[Row]
) -> PartScorer:
    """Label the sample with the teacher on every target, and train a student for each target."""
    if len(sample) < wanted:
        what = f"{wanted} labels of a sample of {len(sample)} rows"
        raise DataError(what, where="labels", remedy="give a larger sample")
    scorer = prepare(learning.teacher, reader, targets, sample)
    labels = mean_over_parts(scorer(sample), scorer.parts).astype(np.float64)
    seconds = None if learning.teacher.whole_pool else steady_seconds_a_row(scorer, sample)
    return student_scorer(learning, reader, targets, Labels(tuple(sample), labels, seconds))


@dataclass(frozen=True)
class Labels:
    """What a teacher said of some rows.

    Attributes:
        rows: the labelled rows.
        values: float64 `[rows, targets]`.
        seconds: the teacher's time of one row; None if it is not known.
    """

    rows: tuple[Row, ...]
    values: Float[np.ndarray, "rows targets"]
    seconds: float | None


def student_scorer(learning: Learning, reader: Reader | None, targets: Sequence[Target], labels: Labels) -> PartScorer:
    """Train a student for each target on labels that a teacher has given; the scorer is theirs."""
    given = reader if learning.teacher.reads_model else None
    students = fit_students(labels.rows, labels.values, learning.student, Taught(given, labels.seconds))
    estimate = estimates_of(students)

    def score(rows: Sequence[Row]) -> Float[np.ndarray, "rows parts"]:
        return estimate(rows)[:, :, 0]

    held_out = {target.name: student.held_out for target, student in zip(targets, students, strict=True)}
    return PartScorer(tuple(Part(target.name) for target in targets), score, {"held-out Spearman": held_out})


def entry(find: Find) -> MethodEntry[ALinFiKOptions]:
    """The entry of the catalog; `find` returns the teacher by name and settings."""
    return MethodEntry(
        name="alinfik",
        summary="A small student trained on a sample of a teacher's scores: LinFiK's, or any method's.",
        reads="the teacher reads a sample; the student reads text",
        cost="the teacher's on the sample, then 1/20 of it a row or less (1/4 where that is too poor)",
        source="Pan et al., arXiv 2503.01052",
        presets={
            "default": ALinFiKOptions(),
            "training": ALinFiKOptions(teacher_set="preset=training"),
            "transformer": ALinFiKOptions(family="transformer", members=3),
        },
        make=partial(alinfik, find=find),
        choices={"family": FAMILIES},
    )
