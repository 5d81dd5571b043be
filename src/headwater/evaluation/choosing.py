"""How the rows of a pool score on a target, for every way of choosing; each score is computed once and kept in a file.

    folder/scores-<digest>.npz    values of the rows, NaN where none is known yet, and the time they took

The digest is of pool, target, model and method. Rows are scored in blocks of 256, and the file is written after each,
so a run that was stopped goes on. A student's teacher has such a file too: what `linfik` has scored teaches `alinfik`,
and the samples of several seeds are labelled once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headwater.core.files import whole_file
from headwater.core.fingerprints import digest
from headwater.core.seeds import key
from headwater.data.rows import Row
from headwater.evaluation.stage import parse_label
from headwater.methods.alinfik import Labels, student_scorer
from headwater.methods.catalog import find_method
from headwater.methods.method import Learning, Method
from headwater.methods.scoring import attribute, prepare
from headwater.methods.targets import Target, mean_over_parts
from headwater.models.reader import Reader

BLOCK_ROWS = 256

OnRows = Callable[[int, int], None]
"""Called with the rows scored, and how many there are to score."""


@dataclass(frozen=True)
class PoolScores:
    """The scores of rows (positive = proponent), and the seconds that computing them took."""

    values: NDArray[np.float64]
    seconds: float


@dataclass(frozen=True)
class Chooser:
    """A pool, a target and a model; scores are kept in the folder.

    Attributes:
        folder: where the files of scores are.
        reader: the model and how it reads rows.
        rows: the pool.
        target: what the rows are chosen for.
        on_rows: called as rows are scored.
    """

    folder: Path
    reader: Reader
    rows: tuple[Row, ...]
    target: Target
    on_rows: OnRows | None = None

    @cached_property
    def identity(self) -> str:
        """A digest of the pool, the target, and the model with the way it reads rows."""
        texts = [[(row.id, dict(row.fields())) for row in rows] for rows in (self.rows, self.target.rows)]
        return digest(texts, dict(self.reader.loaded.fingerprint), dict(self.reader.tokenization.fingerprint))

    def drawn(self, seed: int) -> list[int]:
        """The positions of the pool's rows in an order that seed and ids decide."""
        return sorted(range(len(self.rows)), key=lambda i: key(seed, "selection", self.rows[i].id))

    def scores(self, label: str, *, seed: int, labels: int) -> PoolScores:
        """The scores of all rows by the method called `label`.

        Args:
            label: a method with options, as in `parse_label`.
            seed: of the labelled sample and the student, if the method learns from labels.
            labels: how many rows its teacher labels.
        """
        named = parse_label(label)
        method = find_method(named.name, named.settings)
        if method.learning is None:
            return self._known(method, range(len(self.rows)))
        learning = replace(method.learning, student=replace(method.learning.student, seed=seed))
        file = self._file(method, seed, labels)
        if not file.exists():
            _save(file, self._student(learning, self.drawn(seed)[:labels]))
        return _load(file)

    def _student(self, learning: Learning, sample: Sequence[int]) -> PoolScores:
        """What a student says of all rows, from the teacher's scores of the sample; the time is of both."""
        teacher = self._known(learning.teacher, sample)
        rows = tuple(self.rows[i] for i in sample)
        seconds = None if learning.teacher.whole_pool else teacher.seconds / len(rows)
        begin = time.perf_counter()
        scorer = student_scorer(learning, self.reader, [self.target], Labels(rows, teacher.values[:, None], seconds))
        values = scorer(self.rows)[:, 0].astype(np.float64)
        return PoolScores(values, teacher.seconds + time.perf_counter() - begin)

    def _known(self, method: Method, places: Sequence[int]) -> PoolScores:
        """A method's scores of the rows at these positions; those that no file has yet are computed."""
        file = self._file(method)
        if file.exists():
            found = _load(file)
        else:
            found = PoolScores(np.full(len(self.rows), np.nan), 0.0)
        missing = [i for i in places if np.isnan(found.values[i])]
        if missing and method.whole_pool:
            begin = time.perf_counter()
            values = attribute(method, self.reader, self.rows, [self.target]).values[:, 0].astype(np.float64)
            found = PoolScores(values, time.perf_counter() - begin)
            _save(file, found)
        elif missing:
            found = self._extended(method, file, found, missing)
        scored = int(np.isfinite(found.values).sum())
        return PoolScores(found.values[list(places)], found.seconds * len(places) / scored)

    def _extended(self, method: Method, file: Path, found: PoolScores, missing: Sequence[int]) -> PoolScores:
        """Score the missing rows block by block, and keep the file after each block."""
        scorer = prepare(method, self.reader, [self.target], self.rows)
        for start in range(0, len(missing), BLOCK_ROWS):
            some = list(missing[start : start + BLOCK_ROWS])
            begin = time.perf_counter()
            values = found.values.copy()
            values[some] = mean_over_parts(scorer([self.rows[i] for i in some]), scorer.parts)[:, 0]
            found = PoolScores(values, found.seconds + time.perf_counter() - begin)
            _save(file, found)
            if self.on_rows is not None:
                self.on_rows(start + len(some), len(missing))
        return found

    def _file(self, method: Method, *further: int) -> Path:
        return self.folder / f"scores-{digest(self.identity, method.spec.to_json(), list(further))[:16]}.npz"


def _save(file: Path, scores: PoolScores) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as part, part.open("wb") as stream:
        np.savez(stream, values=scores.values, seconds=scores.seconds)


def _load(file: Path) -> PoolScores:
    with np.load(file) as kept:
        return PoolScores(kept["values"], float(kept["seconds"]))
