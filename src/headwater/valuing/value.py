"""Value a pool: give rows, targets and a method, and get a values file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from headwater.methods.method import Method
from headwater.methods.scoring import prepare
from headwater.methods.targets import Target
from headwater.models.reader import Reader
from headwater.students.student import load_student
from headwater.valuing.elsewhere import teacher_recipe
from headwater.valuing.learned import NO_INTERVALS, value_learned
from headwater.valuing.request import Request, Valued, ValueOptions
from headwater.valuing.run import Job, check_targets, of_scorer, require_vacant, run, run_folder
from headwater.valuing.survey import Pool, survey
from headwater.valuing.trust import ROWS, Doubts, doubt, require_strong


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
    request = Request(candidates, tuple(targets), Path(out), method, reader, options or ValueOptions())
    if method.learning is not None:
        return value_learned(request, method.learning)
    found = request.survey(sample=max(method.fit_rows, ROWS))
    fitted = found.sample[: method.fit_rows]
    scorer = prepare(method, reader, targets, fitted)
    how, notes, doubts = request.options, dict(scorer.notes), tuple[str, ...]()
    if reader is not None and not method.whole_pool:
        doubted = doubt(reader, targets, scorer, found.sample[:ROWS])
        notes, doubts = {**notes, **doubted.notes}, doubted.warnings
    job = request.job(found, {"notes": notes})
    again = partial(teacher_recipe, method, reader, targets, fitted, placing=how.placing)
    spread: dict[str, Any] = {"engine": how.engine, "recipe": again}
    values = run(job, of_scorer(scorer), resume=how.resume, on_rows=how.on_rows("valuing", found.count), **spread)
    return Valued(values, notes, found.leaked, warnings=doubts)


def value_with_student(
    candidates: Pool,
    student: str | Path,
    out: str | Path,
    *,
    options: ValueOptions | None = None,
    reader: Reader | None = None,
    proxy: str = "",
) -> Valued:
    """Value rows with a saved student, which needs no target, and the language model only if it reads it.

    Args:
        candidates: the pool.
        student: the student's folder.
        out: the Parquet file to write.
        options: everything else.
        reader: the language model, for a student that reads its sketches.
        proxy: where the student's small model is on this machine; empty: where it was.

    Raises:
        StoreError: there is no student, or the file exists already.
        MismatchError: the student's tokenizer, proxy or model is not the one it learned with.
        UsageError: the student reads the language model, and there is no reader.
    """
    how, place = options or ValueOptions(), Path(out)
    require_vacant(place)
    learned = load_student(student, reader=reader, proxy=proxy)
    remedy = "train one on more labels or a larger target, or write its values all the same with --force"
    weak = require_strong(learned.held_out, None, remedy=remedy, force=how.force)
    found = survey(candidates, sample=0, duplicates=how.duplicates, keep=run_folder(place) / "pool.jsonl")
    name = str(learned.about.get("target", "target"))
    identity = {"student": dict(learned.about), "options": asdict(learned.options), "rows": learned.rows}
    identity["targets"] = {name: learned.about.get("target_digest")}
    doubted = Doubts([], weak=(weak,) if weak else ())
    notes: dict[str, Any] = {"held-out Spearman": learned.held_out, **doubted.notes}
    if not learned.has_intervals:
        notes["intervals"] = NO_INTERVALS.format(learned.held_out_rows)
    job = Job(found, (name,), identity, {"notes": notes}, place)
    values = run(job, learned.estimates, resume=how.resume, on_rows=how.on_rows("valuing", found.count))
    return Valued(values, notes, students={name: learned}, warnings=doubted.warnings)
