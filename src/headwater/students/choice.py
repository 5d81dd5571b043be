"""Which features a student reads: the best on left-out labels among those that cost little enough.

The time a row takes is measured for the teacher and for each source of features. A source is used only if it, with the
words, costs at most the wished share of the teacher's time; the words of the text may always be read. Of a proxy, so
much of each row is read as that allows.

If no share is wished, it is 1/20. Where that makes a poor student, sources up to 1/4 are tried too, and taken if they
foretell the left-out labels much better: what a model half-way through its training has learned of a row cannot be
told from the row's words. It is said if that happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch

from headwater.core.errors import UsageError
from headwater.data.rows import Row
from headwater.students.labels import Lesson
from headwater.students.regression import RegressionStudent, fit_regression, read_blocks
from headwater.students.sources import Matrix, StudentSource

USUAL, WIDEST = 1 / 20, 1 / 4
"""The share of the teacher's time that a student may take if none is wished; and the most where that is too little."""

POOR, BETTER = 0.75, 0.05
"""A student below the first correlation with left-out labels is poor; one is much better from the second on."""

_SPARE = 1.25
"""A source that can read less does so unless it stays so far below the share, because times vary."""

_TIMES, _LONG = 4, 3.0
_COUNTS = (16, 16 * _TIMES, 16 * _TIMES**2)
"""Sources and teachers are timed on so many rows, one number after another, until the next would take `_LONG` seconds.

Few rows together are padded more, so a quick teacher that was timed on fewer rows than a source would look too slow.
"""


@dataclass(frozen=True)
class SourceCost:
    """A source and what it costs.

    Attributes:
        source: the source.
        seconds: time of one row.
        share: the same over the teacher's time; None if that is not known.
        fits: whether a student may read it.
        total: the share of the words and this source together; None if it is not known.
    """

    source: StudentSource
    seconds: float
    share: float | None
    fits: bool
    total: float | None = None

    def within(self, most: float) -> SourceCost:
        """The same source where a student may take another share of the teacher's time."""
        return replace(self, fits=self.fits or (self.total is not None and self.total <= most))

    @property
    def cost(self) -> str:
        """Its cost in words."""
        characters = self.source.described.get("characters")
        reads = f", {characters:,} characters a row" if characters else ""
        if self.share is None:
            return f"{1000 * self.seconds:.2f} ms a row{reads}"
        return f"1/{1 / max(self.share, 1e-9):.3g} of the teacher's time{reads}"


def to_share(text: str) -> float:
    """A share such as `1/20` or `0.05`, or `USUAL` for an empty text; raises `UsageError` unless it is above 0."""
    if not text:
        return USUAL
    try:
        found = float(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError):
        found = 0.0
    if found <= 0:
        remedy = "a share of the teacher's time above 0, such as 1/20 or 0.05"
        raise UsageError(f"'{text}' is not a share of the teacher's cost", where="--student-cost", remedy=remedy)
    return found


def priced(
    sources: Sequence[StudentSource], rows: Sequence[Row], *, teacher_seconds: float | None, share: float, named: str
) -> list[SourceCost]:
    """Measure the sources on some rows.

    Args:
        sources: all that there are; the first is the words.
        rows: some rows; up to 256 of them are read.
        teacher_seconds: the teacher's time of one row, if it is known.
        share: of that time, the most that a student may take.
        named: sources to read whatever they cost, joined by `+`; empty: those that fit.

    Raises:
        UsageError: `named` names a source that there is not.
    """
    asked = [name.strip() for name in named.split("+") if name.strip()]
    known = [source.name for source in sources]
    for name in asked:
        if name not in known:
            remedy = f"there are {', '.join(known)}; a proxy needs --student-proxy, sketches of the model a model"
            raise UsageError(f"a student cannot read '{name}' here", where="alinfik.sources", remedy=remedy)
    found = []
    for source in sources:
        if asked:
            if source.name not in asked:
                continue
            found.append(_measured(source, rows, teacher_seconds, fits=True))
            continue
        found.append(_fitting(source, rows, teacher_seconds, share, words=found[0].seconds if found else 0.0))
    return found


def _fitting(
    source: StudentSource, rows: Sequence[Row], teacher_seconds: float | None, share: float, *, words: float
) -> SourceCost:
    """The source, reading as much of a row as the share allows beside the words; whole if no length is allowed."""
    first: SourceCost | None = None
    while True:
        one = _measured(source, rows, teacher_seconds, fits=True)
        total = None if teacher_seconds is None else (one.seconds + words) / teacher_seconds
        one = replace(one, total=total, fits=source.name == "words" or total is None or total <= share)
        first = first or one
        if one.fits and (source.shorter is None or total is None or _SPARE * total <= share):
            return one
        if source.shorter is None:
            return first
        source = source.shorter


def _measured(source: StudentSource, rows: Sequence[Row], teacher_seconds: float | None, *, fits: bool) -> SourceCost:
    seconds = steady_seconds_a_row(source.read, rows)
    return SourceCost(source, seconds, None if teacher_seconds is None else seconds / teacher_seconds, fits)


def seconds_a_row(read: Callable[[Sequence[Row]], Any], rows: Sequence[Row], *, elapsed: bool = False) -> float:
    """The least time of three readings, over the rows: what else the machine does lengthens only some of them.

    It is processor time, which other programs lengthen little. With `elapsed`, or where a GPU computes, it is the time
    that passes.
    """
    clock = time.perf_counter if elapsed or torch.cuda.is_available() else time.process_time
    times = []
    for _ in range(3):
        start = clock()
        read(rows)
        times.append(clock() - start)
    return max(min(times), 1e-9) / len(rows)


def steady_seconds_a_row(read: Callable[[Sequence[Row]], Any], rows: Sequence[Row]) -> float:
    """The same on so many of the rows as tell the time well, up to 256; on fewer where they take long."""
    found = 0.0
    for count in _COUNTS:
        found = seconds_a_row(read, rows[:count])
        if count >= len(rows) or _TIMES * count * found > _LONG:
            break
    return found


@dataclass
class Fitting:
    """What is fitted on one lesson after another; the rows' features are read once.

    Attributes:
        rows: the labelled rows.
        choices: the sources and their costs.
        members, seed: of the ensembles.
        widest: the share up to which sources are tried where those that fit make a poor student; 0 for none.
    """

    rows: Sequence[Row]
    choices: Sequence[SourceCost]
    members: int
    seed: int
    widest: float
    _blocks: dict[str, dict[str, Matrix]] = field(default_factory=dict)

    def best(self, lesson: Lesson) -> tuple[RegressionStudent, dict[str, Any]]:
        """The best student on left-out labels, and what was tried."""
        student, told = self._among(lesson, self.choices)
        wider = [choice.within(self.widest) for choice in self.choices]
        if student.left_out >= POOR or wider == list(self.choices):
            return student, told
        dearer, told_of_it = self._among(lesson, wider)
        if dearer.left_out < student.left_out + BETTER:
            return student, told
        what = f"what costs at most 1/{1 / USUAL:g} foretells left-out labels at {student.left_out:.2f} only"
        remedy = f"--student-cost 1/{1 / USUAL:g} keeps to that"
        return dearer, {**told_of_it, "dearer than usual": f"{what}, this student at {dearer.left_out:.2f}; {remedy}"}

    def _among(self, lesson: Lesson, choices: Sequence[SourceCost]) -> tuple[RegressionStudent, dict[str, Any]]:
        """Fit a student on each single source that fits and on all together; return the best, and what was tried."""
        fitting = [choice for choice in choices if choice.fits]
        groups = [[choice] for choice in fitting] + ([fitting] if len(fitting) > 1 else [])
        best: RegressionStudent | None = None
        tried: dict[str, float] = {}
        for group in groups:
            sources = [choice.source for choice in group]
            blocks = {name: block for source in sources for name, block in self._read(source).items()}
            student = fit_regression(lesson, blocks, sources, members=self.members, seed=self.seed)
            tried["+".join(source.name for source in sources)] = student.left_out
            if best is None or student.left_out > best.left_out:
                best = student
        assert best is not None  # the words always fit
        reads = [choice for choice in fitting if choice.source in best.sources]
        shares = [choice.share for choice in reads if choice.share is not None]
        return best, {
            "student reads": " and ".join(f"{choice.source.name} ({choice.cost})" for choice in reads),
            **({"student's share of the teacher's time": sum(shares)} if shares else {}),
            "left-out Spearman of each student": tried,
            "not read": [f"{c.source.name}: {c.cost}, more than --student-cost allows" for c in choices if not c.fits],
        }

    def _read(self, source: StudentSource) -> Mapping[str, Matrix]:
        if source.name not in self._blocks:
            self._blocks[source.name] = read_blocks([source], self.rows)
        return self._blocks[source.name]
