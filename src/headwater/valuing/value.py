"""Value a pool: give rows, targets and a method, and get a values file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headwater.core.tables import Tabular
from headwater.methods.method import Learning, Method
from headwater.methods.scoring import prepare
from headwater.methods.targets import Target, laid_out
from headwater.models.reader import Reader
from headwater.students.student import Student, load_student
from headwater.valuation.duplicates import THRESHOLD
from headwater.valuation.values import Values
from headwater.valuing.distil import Recheck, distil, recheck
from headwater.valuing.run import Job, begin, check_targets, of_scorer, require_vacant, run, run_folder, target_digest
from headwater.valuing.survey import Pool, SurveyedPool, survey
from headwater.valuing.trust import ROWS, doubt, require_strong

NO_INTERVALS = "none: {} held-out labels; a 95 % interval takes 19, which 76 labels give (--set labels=76 or more)"

OnStage = Callable[[str, int, "int | None"], None]
"""Called with the name of the current step, rows done, and rows in all."""


@dataclass(frozen=True)
class ValueOptions:
    """How to value, apart from the method and the reader.

    Attributes:
        duplicates: similarity from which rows are near-duplicates; None and 0 do not look for them.
        student: folder to save a student in; None saves it beside the values file.
        resume: continue an unfinished run.
        on_progress: called as rows are done.
        force: write values although the student that made them is weak.
    """

    duplicates: float | None = THRESHOLD
    student: Path | None = None
    resume: bool = False
    on_progress: OnStage | None = None
    force: bool = False

    def on_rows(self, words: str, total: int | None) -> Callable[[int], None] | None:
        """The callback of one step: it takes the rows done."""
        call = self.on_progress
        return None if call is None else lambda done: call(words, done, total)


@dataclass(frozen=True)
class Valued(Tabular):
    """A valued pool.

    Attributes:
        values: the values file.
        notes: what the method chose or measured.
        leaked: ids of candidates with the same text as a target row.
        student: the student that learned the scores, or None.
        recheck: how well the student does on fresh rows, or None.
        warnings: reasons to doubt the values, each a sentence.
    """

    values: Values
    notes: Mapping[str, Any]
    leaked: tuple[str, ...] = ()
    student: Student | None = None
    recheck: Recheck | None = None
    warnings: tuple[str, ...] = ()

    def records(self) -> list[dict[str, Any]]:
        """One record a row, as in the values file."""
        return self.values.records()

    def to_pandas(self) -> Any:
        """The values as a pandas `DataFrame`, column types kept."""
        return self.values.to_pandas()


def value_pool(
    candidates: Pool,
    targets: Sequence[Target],
    out: str | Path,
    *,
    method: Method,
    reader: Reader | None,
    options: ValueOptions | None = None,
) -> Valued:
    """Compute the score of every candidate on the targets, with an interval.

    Args:
        candidates: the pool.
        targets: rows of the tasks you want data for; with several targets, `value` is the mean over them.
        out: the Parquet file to write.
        method: the method that scores the rows.
        reader: the model as it is before the purchase; None for methods that read none.
        options: everything else.

    Raises:
        DataError: an empty pool or target, or a student that should learn scores which are all equal.
        StoreError: the file exists already, or it has an unfinished run and `resume` is not set.
    """
    check_targets(targets)
    require_vacant(Path(out))
    request = _Request(candidates, tuple(targets), Path(out), method, reader, options or ValueOptions())
    if method.learning is not None:
        return _learned(request, method.learning)
    found = request.survey(sample=max(method.fit_rows, ROWS))
    scorer = prepare(method, reader, targets, found.sample[: method.fit_rows])
    how, notes, doubts = request.options, dict(scorer.notes), tuple[str, ...]()
    if reader is not None and not method.whole_pool:
        doubted = doubt(reader, targets, scorer, found.sample[:ROWS])
        notes, doubts = {**notes, **doubted.notes}, doubted.warnings
    job = request.job(found, {"notes": notes})
    values = run(job, of_scorer(scorer), resume=how.resume, on_rows=how.on_rows("valuing", found.count))
    return Valued(values, notes, found.leaked, warnings=doubts)


def value_with_student(
    candidates: Pool, student: str | Path, out: str | Path, *, options: ValueOptions | None = None
) -> Valued:
    """Value rows with a saved student, which needs neither language model nor target.

    Raises:
        StoreError: there is no student, or the file exists already.
        MismatchError: the student's tokenizer is not the one it learned with.
    """
    how, place = options or ValueOptions(), Path(out)
    require_vacant(place)
    learned = load_student(student)
    remedy = "train one on more labels or a larger target, or write its values all the same with --force"
    weak = require_strong(learned.held_out, None, learned.rows, force=how.force, remedy=remedy)
    found = survey(candidates, sample=0, duplicates=how.duplicates, keep=run_folder(place) / "pool.jsonl")
    name = str(learned.about.get("target", "target"))
    identity = {"student": dict(learned.about), "options": asdict(learned.options), "rows": learned.rows}
    identity["targets"] = {name: learned.about.get("target_digest")}
    notes: dict[str, Any] = {"held-out Spearman": learned.held_out}
    if not learned.has_intervals:
        notes["intervals"] = NO_INTERVALS.format(learned.held_out_rows)
    job = Job(found, (name,), identity, {"notes": notes}, place)
    values = run(job, learned.estimates, resume=how.resume, on_rows=how.on_rows("valuing", found.count))
    return Valued(values, notes, student=learned, warnings=(weak,) if weak else ())


@dataclass(frozen=True)
class _Request:
    """The arguments of `value_pool`."""

    candidates: Pool
    targets: tuple[Target, ...]
    out: Path
    method: Method
    reader: Reader | None
    options: ValueOptions

    def survey(self, *, sample: int, seed: int = 0, stratify: str = "") -> SurveyedPool:
        """Survey the pool."""
        if self.options.on_progress is not None:
            self.options.on_progress("reading the pool", 0, self.candidates.count)
        return survey(
            self.candidates,
            sample=sample,
            seed=seed,
            stratify=stratify,
            target=laid_out(self.targets),
            duplicates=self.options.duplicates,
            keep=run_folder(self.out) / "pool.jsonl",
        )

    def job(self, found: SurveyedPool, about: Mapping[str, Any], **further: Any) -> Job:
        """Make the job of valuing a surveyed pool; `further` entries become part of its identity."""
        identity = {
            "method": self.method.spec.to_json(),
            "targets": {target.name: target_digest(target) for target in self.targets},
            "model": dict(self.reader.loaded.fingerprint) if self.reader else None,
            "tokenization": self.reader.tokenization.fingerprint if self.reader else None,
            **further,
        }
        names = tuple(target.name for target in self.targets)
        job = Job(found, names, identity, about, self.out, self.method.meaning)
        return dataclasses.replace(job, block_rows=found.count) if self.method.whole_pool else job


def _learned(request: _Request, learning: Learning) -> Valued:
    """Value by a student: label a sample with the teacher, train, score every row, and measure on fresh rows."""
    teacher, how = learning.teacher, request.options
    known = request.candidates.count
    budget = learning.labels(sum(1 for _ in request.candidates) if known is None else known)
    wanted = budget + learning.recheck
    found = request.survey(sample=wanted, seed=learning.student.seed, stratify=learning.stratify)
    labelled, fresh = found.sample[:budget], found.sample[budget:]
    job = request.job(found, {}, teacher=teacher.spec.to_json())
    call = how.on_progress
    begin(job, resume=how.resume)
    scorer = prepare(teacher, request.reader, request.targets, found.sample[: teacher.fit_rows])
    folder = how.student or request.out.with_name(f"{request.out.stem}.student")
    student = distil(
        scorer,
        labelled,
        learning.student,
        run=job.folder,
        folder=folder,
        about={**_origin(teacher, request), "method": request.method.spec.to_json()},
        whole_pool=teacher.whole_pool,
        on_stage=None if call is None else lambda words, done: call(words, done, budget),
    )
    checked = recheck(of_scorer(scorer), student, fresh) if fresh else None
    doubted = doubt(request.reader, request.targets, scorer, (fresh or labelled)[:ROWS])
    quality, ceiling = _quality(student, checked), next(iter(doubted.ceilings), None)
    if weak := require_strong(quality, ceiling, len(labelled), force=how.force):
        doubted = dataclasses.replace(doubted, further=(*doubted.further, weak))
    notes = {
        "labelled rows": len(labelled),
        "held-out Spearman": student.held_out,
        **({} if student.has_intervals else {"intervals": NO_INTERVALS.format(student.held_out_rows)}),
        **({"recheck": checked.to_json()} if checked else {}),
        **{"student": str(folder), "teacher": teacher.spec.to_json(), "teacher notes": dict(scorer.notes)},
        **{"learning curve": list(student.curve), "learning curve over": student.curve_axis},
        **doubted.notes,
        **({"share of the ceiling": quality / ceiling.stepped_up} if ceiling and ceiling.stepped_up else {}),
    }
    job = dataclasses.replace(job, about={"notes": notes})
    values = run(job, student.estimates, resume=True, on_rows=how.on_rows("valuing", found.count))
    return Valued(values, notes, found.leaked, student, checked, doubted.warnings)


def _quality(student: Student, checked: Recheck | None) -> float:
    """The student's Spearman correlation with its teacher, over held-out and fresh rows, which may both be few."""
    if checked is None:
        return student.held_out
    rows = student.held_out_rows + checked.rows
    return (student.held_out_rows * student.held_out + checked.rows * checked.spearman) / rows


def _origin(teacher: Method, request: _Request) -> dict[str, Any]:
    """The teacher, target and model of the scores that a student learns; it may be used for no others."""
    target: Target = request.targets[0]
    return {
        "teacher": teacher.spec.to_json(),
        "target": target.name,
        "target_digest": target_digest(target),
        "model": dict(request.reader.loaded.fingerprint) if request.reader else None,
    }
