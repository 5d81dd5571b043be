"""The verb `value`: a pool, a target and a method's name in, a values file out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError, StoreError
from headwater.data.corpus import Corpus
from headwater.data.rows import Row
from headwater.data.templates import resolve_template
from headwater.data.tokens import Tokenization
from headwater.methods.alinfik import ENTRY as ALINFIK
from headwater.methods.alinfik import ALinFiKOptions
from headwater.methods.catalog import find_streaming
from headwater.methods.method import settle
from headwater.methods.streaming import SAMPLE, Bench, StreamingMethod, Target
from headwater.models.load import LoadedModel
from headwater.students.student import Student, load_student
from headwater.valuation.duplicates import THRESHOLD
from headwater.valuation.values import Values
from headwater.valuing.distil import Recheck, distil, recheck
from headwater.valuing.run import Job, begin, check_targets, of_scorer, run, target_digest
from headwater.valuing.survey import Survey, survey

Progress = Callable[[str, int, "int | None"], None]
"""Called with what is being done, rows done, and rows in all."""


@dataclass(frozen=True)
class Settings:
    """How to value, apart from the method.

    Attributes:
        template: how prompt and response become one text; the tokenizer's own unless given.
        max_tokens: a longer row is cut.
        tokens_per_batch: padded tokens in one forward pass.
        duplicates: similarity from which rows are near-duplicates; None does not look for them.
        student: folder to save ALinFiK's student in; beside the values file unless given.
        resume: go on with an unfinished run.
        progress: called as rows are done.
    """

    template: str | None = None
    max_tokens: int = 2048
    tokens_per_batch: int = 8192
    duplicates: float | None = THRESHOLD
    student: Path | None = None
    resume: bool = False
    progress: Progress | None = None

    def bench(self, loaded: LoadedModel) -> Bench:
        """The bench a method reads on."""
        template = resolve_template(self.template, loaded.tokenizer)
        return Bench(loaded, Tokenization(loaded.tokenizer, template, self.max_tokens), self.tokens_per_batch)

    def report(self, words: str, total: int | None) -> Callable[[int], None] | None:
        """The progress call of one stage."""
        told = self.progress
        return None if told is None else lambda done: told(words, done, total)


@dataclass(frozen=True)
class Valued:
    """A valued pool.

    Attributes:
        values: the file.
        notes: what the method chose or measured.
        leaked: ids of candidates that say what a target row says.
        student: ALinFiK's, or None.
        recheck: how well the student does on fresh rows, or None.
    """

    values: Values
    notes: Mapping[str, Any]
    leaked: tuple[str, ...] = ()
    student: Student | None = None
    recheck: Recheck | None = field(default=None)


def value(
    candidates: Corpus,
    targets: Sequence[Target],
    out: str | Path,
    *,
    loaded: LoadedModel | None,
    method: str = "linfik",
    options: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
) -> Valued:
    """Every candidate's influence on the targets: what training on it would take off their loss.

    Args:
        candidates: the pool.
        targets: rows of the tasks the data is wanted for; with several, `value` is the mean over them.
        out: the Parquet file to write.
        loaded: the model as it is before the purchase; None for methods that read none.
        method: any name from the catalogs.
        options: the method's.
        settings: everything else.

    Raises:
        DataError: an empty pool or target, or scores that are all equal where a student is to learn them.
        StoreError: the file is there already, or an unfinished run is and `resume` was not given.
    """
    how = settings or Settings()
    check_targets(targets)
    if not targets:
        raise DataError("no target", remedy="name the rows of the task the data is wanted for")
    if Path(out).exists():
        raise StoreError("there is a file already", where=str(out), remedy="remove it, or choose another name")
    request = _Request(candidates, tuple(targets), Path(out), how.bench(loaded) if loaded else None, how)
    if method == "alinfik":
        return _distilled(request, settle(options or {}, ALINFIK.presets, ALINFIK.choices, where="alinfik"))
    streaming = find_streaming(method, options)
    looked = request.survey(sample=SAMPLE)
    scorer = streaming.prepare(request.bench_with(looked.sample), targets)
    job = request.job(looked, streaming, {"notes": dict(scorer.notes)})
    values = run(job, of_scorer(scorer), resume=how.resume, progress=how.report("valuing", looked.count))
    return Valued(values, scorer.notes, looked.leaked)


def score_with_student(
    candidates: Corpus, student: str | Path, out: str | Path, *, settings: Settings | None = None
) -> Valued:
    """Values of rows by a saved student: no language model, no target.

    Raises:
        StoreError: no student there, or the file is there already.
        MismatchError: the student's tokenizer is not the one it learned with.
    """
    how = settings or Settings()
    learned = load_student(student)
    looked = survey(candidates, sample=0, duplicates=how.duplicates)
    name = str(learned.about.get("target", "target"))
    identity = {"student": dict(learned.about), "options": asdict(learned.options), "rows": learned.rows}
    identity["targets"] = {name: learned.about.get("target_digest")}
    job = Job(candidates, looked, (name,), identity, {"notes": {"held-out Spearman": learned.held_out}}, Path(out))
    values = run(job, learned.estimates, resume=how.resume, progress=how.report("valuing", looked.count))
    return Valued(values, {"held-out Spearman": learned.held_out}, student=learned)


@dataclass(frozen=True)
class _Request:
    """What is asked for, in one piece."""

    candidates: Corpus
    targets: tuple[Target, ...]
    out: Path
    bench: Bench | None
    how: Settings

    def survey(self, *, sample: int, seed: int = 0, stratify: str = "") -> Survey:
        """A pass over the pool."""
        if self.how.progress is not None:
            self.how.progress("reading the pool", 0, self.candidates.count)
        rows: list[Row] = [row for target in self.targets for row in target.rows]
        return survey(
            self.candidates,
            sample=sample,
            seed=seed,
            stratify=stratify,
            target=rows,
            duplicates=self.how.duplicates,
        )

    def bench_with(self, sample: Sequence[Row]) -> Bench | None:
        """The bench, with rows of the pool to look at."""
        return None if self.bench is None else dataclasses.replace(self.bench, sample=tuple(sample[:SAMPLE]))

    def job(self, looked: Survey, method: StreamingMethod, about: Mapping[str, Any], **further: Any) -> Job:
        """The job; `further` joins its identity."""
        identity = {
            "method": method.spec.to_json(),
            "targets": {target.name: target_digest(target) for target in self.targets},
            "model": dict(self.bench.loaded.fingerprint) if self.bench else None,
            "tokenization": self.bench.tokenization.fingerprint if self.bench else None,
            **further,
        }
        names = tuple(target.name for target in self.targets)
        job = Job(self.candidates, looked, names, identity, about, self.out)
        return dataclasses.replace(job, block_rows=looked.count) if method.whole else job


def _distilled(request: _Request, options: ALinFiKOptions) -> Valued:
    """Label, train, score, recheck."""
    teacher, how = find_streaming(options.teacher, options.teacher_settings), request.how
    known = request.candidates.count
    budget = options.budget(sum(1 for _ in request.candidates) if known is None else known)
    looked = request.survey(sample=budget + options.recheck, seed=options.seed, stratify=options.stratify)
    labelled, fresh = looked.sample[:budget], looked.sample[budget:]
    job = request.job(looked, teacher, {}, alinfik=asdict(options))
    begin(job, resume=how.resume)
    scorer = teacher.prepare(request.bench_with(looked.sample), request.targets)
    folder = how.student or request.out.with_name(f"{request.out.stem}.student")
    student = distil(
        scorer,
        labelled,
        options,
        run=job.folder,
        folder=folder,
        about={**student_about(teacher, request.targets[0], request.bench), "alinfik": asdict(options)},
        whole=teacher.whole,
        progress=None if how.progress is None else partial(_told, how.progress, budget),
    )
    checked = recheck(of_scorer(scorer), student, fresh) if fresh else None
    notes = {
        "labelled rows": len(labelled),
        "held-out Spearman": student.held_out,
        **({"recheck": checked.to_json()} if checked else {}),
        **{"student": str(folder), "teacher": teacher.spec.to_json(), "teacher notes": dict(scorer.notes)},
        **{"learning curve": list(student.curve), "learning curve over": student.curve_axis},
    }
    job = dataclasses.replace(job, about={"notes": notes})
    values = run(job, student.estimates, resume=True, progress=how.report("valuing", looked.count))
    return Valued(values, notes, looked.leaked, student, checked)


def _told(progress: Progress, total: int, words: str, done: int) -> None:
    progress(words, done, total)


def student_about(teacher: StreamingMethod, target: Target, bench: Bench | None) -> dict[str, Any]:
    """Whose scores a student learns: it may be used for these alone."""
    return {
        "teacher": teacher.spec.to_json(),
        "target": target.name,
        "target_digest": target_digest(target),
        "model": dict(bench.loaded.fingerprint) if bench else None,
    }
