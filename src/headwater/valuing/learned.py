"""Value a pool by students: label a sample with the teacher, train, score every row, and measure on fresh rows.

    survey ─▶ a sample, even over providers and over a cheap score ─▶ labels ─▶ a student for each target ─▶ values

The sample is labelled once on all targets, and the students share what they read of the rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from headwater.methods.method import Learning
from headwater.methods.scoring import prepare
from headwater.methods.targets import laid_out
from headwater.students.student import Student, Taught, estimates_of
from headwater.valuing.distil import Recheck, Teacher, distil, doubled, folders_of, recheck
from headwater.valuing.elsewhere import student_recipe, teacher_recipe
from headwater.valuing.labelling import SPARE, LabelPlan
from headwater.valuing.request import Request, Valued
from headwater.valuing.run import begin, of_scorer, run, target_digest
from headwater.valuing.trust import ROWS, Ceiling, doubt, help_for, require_strong

NO_INTERVALS = "none: {} held-out labels; a 95 % interval takes 19, which 76 labels give (--set labels=76 or more)"
MOST = 20_000
"""At most so many rows are labelled if only the seconds are given."""


def value_learned(request: Request, learning: Learning) -> Valued:
    """Value by students of the method's teacher.

    Raises:
        DataError: a student is too weak for its values to mean anything, and `force` is not set.
    """
    teacher, how = learning.teacher, request.options
    known = request.candidates.count
    count = sum(1 for _ in request.candidates) if known is None else known
    most = min(count, MOST) if learning.seconds else learning.labels(count)
    spare = SPARE if learning.cheap or learning.active else 1
    drawn = request.survey(
        sample=spare * most + learning.recheck, seed=learning.student.seed, stratify=learning.stratify
    )
    job = request.job(drawn, {}, teacher=teacher.spec.to_json())
    begin(job, resume=how.resume)
    fitted = drawn.sample[: teacher.fit_rows]
    scorer = prepare(teacher, request.reader, request.targets, fitted)
    asked = partial(teacher_recipe, teacher, request.reader, request.targets, fitted, placing=how.placing)
    labeller = Teacher(scorer, teacher.whole_pool, how.engine, asked)
    plan = LabelPlan.of(drawn, learning, scorer, most=most, target=laid_out(request.targets), folder=job.folder)
    about = {target.name: _origin(request, learning, target.name) for target in request.targets}
    taught = Taught(request.reader, plan.teacher_seconds)
    folders = folders_of(how.student or request.out.with_name(f"{request.out.stem}.student"), list(about))
    students = distil(
        partial(plan.gather, learning, labeller, taught, on_rows=how.on_rows("labelling", plan.labels)),
        learning.student,
        folders=folders,
        taught=taught,
        about=about,
        on_training=how.on_rows("training the student", plan.labels),
    )
    checks = recheck(of_scorer(scorer), students, plan.fresh) if plan.fresh else {}
    doubted = doubt(request.reader, request.targets, scorer, (plan.fresh or plan.candidates)[:ROWS])
    all_by = teacher.spec.name if plan.labels >= count else ""
    remedy = partial(help_for, labels=plan.labels, seen=doubted.seen, all_by=all_by)
    weak = _too_weak(students, checks, doubted.ceilings, remedy=remedy, force=how.force)
    further = (*doubted.further, *_too_many(learning, count))
    doubted = dataclasses.replace(doubted, further=further, weak=weak)
    notes = {
        "labelled rows": plan.labels,
        **_notes(students, checks, doubted.ceilings),
        **{"teacher": teacher.spec.to_json(), "teacher notes": dict(scorer.notes)},
        **doubted.notes,
    }
    job = dataclasses.replace(job, about={"notes": notes})
    estimate = estimates_of(list(students.values()))
    again = partial(student_recipe, list(folders.values()), request.reader, placing=how.placing)
    spread: dict[str, Any] = {"engine": how.engine, "recipe": again}
    values = run(job, estimate, resume=True, on_rows=how.on_rows("valuing", drawn.count), **spread)
    return Valued(values, notes, drawn.leaked, students, checks, doubted.warnings)


def _too_weak(
    students: Mapping[str, Student],
    checks: Mapping[str, Recheck],
    found: Sequence[Ceiling],
    *,
    remedy: Callable[..., str],
    force: bool,
) -> tuple[str, ...]:
    """A sentence for each student that is too weak, with `force`; else raises `DataError` at the first."""
    weak = []
    for name, student in students.items():
        quality, ceiling = _quality(student, checks.get(name)), _ceiling(found, name)
        of = f" on target '{name}'" if len(students) > 1 else ""
        unread = [str(one).partition(":")[0] for one in student.choice.get("not read", ()) if "--student-cost" in one]
        helps = remedy(ceiling, unread=unread)
        if said := require_strong(quality, ceiling, force=force, of=of, remedy=helps):
            weak.append(said)
    return tuple(weak)


def _too_many(learning: Learning, count: int) -> list[str]:
    """A sentence if more labels are asked for than there are rows."""
    if learning.asked <= count:
        return []
    what = f"{learning.asked:,} labels are asked for and the pool has {count:,} rows, so the teacher labels all of them"
    return [f"{what} and nothing is left to foretell; value with --method {learning.teacher.spec.name}"]


def _notes(students: Mapping[str, Student], checks: Mapping[str, Recheck], found: Sequence[Ceiling]) -> dict[str, Any]:
    """What is told of each student; of several, under the target's name."""
    notes: dict[str, Any] = {}
    for name, student in students.items():
        ceiling, quality = _ceiling(found, name), _quality(student, checks.get(name))
        twice = doubled(student.curve) if student.curve_axis == "labelled rows" else None
        one = {
            "held-out Spearman": student.held_out,
            **({"with twice the labels": twice} if twice is not None else {}),
            **({} if student.has_intervals else {"intervals": NO_INTERVALS.format(student.held_out_rows)}),
            **student.choice,
            **({"recheck": checks[name].to_json()} if name in checks else {}),
            **{"learning curve": list(student.curve), "learning curve over": student.curve_axis},
            **({"share of the ceiling": quality / ceiling.stepped_up} if ceiling and ceiling.stepped_up else {}),
        }
        notes |= one if len(students) == 1 else {f"{name}: {fact}": value for fact, value in one.items()}
    return notes


def _ceiling(found: Sequence[Ceiling], name: str) -> Ceiling | None:
    return next((ceiling for ceiling in found if ceiling.target == name), None)


def _quality(student: Student, checked: Recheck | None) -> float:
    """The student's Spearman correlation with its teacher, over held-out and fresh rows, which may both be few."""
    if checked is None:
        return student.held_out
    rows = student.held_out_rows + checked.rows
    return (student.held_out_rows * student.held_out + checked.rows * checked.spearman) / rows


def _origin(request: Request, learning: Learning, name: str) -> dict[str, Any]:
    """The teacher, target and model of the scores that a student learns; it may be used for no others."""
    (target,) = (target for target in request.targets if target.name == name)
    return {
        "teacher": learning.teacher.spec.to_json(),
        "target": name,
        "target_digest": target_digest(target),
        "model": dict(request.reader.loaded.fingerprint) if request.reader else None,
        "method": request.method.spec.to_json(),
    }
