"""What is asked of a valuation, and what comes back: the options, the request, and the valued pool."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headwater.core.tables import Tabular
from headwater.engines.blocks import Engine
from headwater.methods.method import Method
from headwater.methods.targets import Target, laid_out
from headwater.models.reader import Reader
from headwater.students.student import Student
from headwater.valuation.duplicates import THRESHOLD
from headwater.valuation.values import Values
from headwater.valuing.distil import Recheck
from headwater.valuing.run import Job, run_folder, target_digest
from headwater.valuing.survey import Pool, SurveyedPool, survey

OnStage = Callable[[str, int, "int | None"], None]
"""Called with the name of the current step, rows done, and rows in all."""


@dataclass(frozen=True)
class ValueOptions:
    """How to value, apart from the method and the reader.

    Attributes:
        duplicates: similarity from which rows are near-duplicates; None and 0 do not look for them.
        student: folder to save a student in; None saves it beside the values file. With several targets each has a
            folder with the target's name in it.
        resume: continue an unfinished run.
        on_progress: called as rows are done.
        force: write values although the student that made them is weak.
        engine: where rows are labelled and valued; None: in this process.
        placing: where the engine's other processes load the model (`device`, `device_map`).
    """

    duplicates: float | None = THRESHOLD
    student: Path | None = None
    resume: bool = False
    on_progress: OnStage | None = None
    force: bool = False
    engine: Engine | None = None
    placing: Mapping[str, Any] = field(default_factory=dict)

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
        students: the student that learned the scores of each target, if students did.
        rechecks: how well each does on fresh rows, if there were any.
        warnings: reasons to doubt the values, each a sentence.
    """

    values: Values
    notes: Mapping[str, Any]
    leaked: tuple[str, ...] = ()
    students: Mapping[str, Student] = field(default_factory=dict)
    rechecks: Mapping[str, Recheck] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def student(self) -> Student | None:
        """The first target's student, or None."""
        return next(iter(self.students.values()), None)

    @property
    def recheck(self) -> Recheck | None:
        """How well the first target's student does on fresh rows, or None."""
        return next(iter(self.rechecks.values()), None)

    def records(self) -> list[dict[str, Any]]:
        """One record a row, as in the values file."""
        return self.values.records()

    def to_pandas(self) -> Any:
        """The values as a pandas `DataFrame`, column types kept."""
        return self.values.to_pandas()


@dataclass(frozen=True)
class Request:
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
