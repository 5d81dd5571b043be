"""How far values can be trusted: the target's ceiling, the student's share of it, and signs that they are noise.

    scores from one half of the target, from the other half → Spearman r → 2r / (1 + r)        (Spearman-Brown)

The stepped-up correlation says how well the values foretell those of another target of the same size and kind. Nothing
that learns them can be expected to do better, so it is the ceiling that a student is measured by.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from headwater.core.errors import DataError
from headwater.core.statistics import spearman
from headwater.data.batches import Window
from headwater.data.rows import Row
from headwater.features.row_losses import mean_losses
from headwater.methods.lexical import bm25_scores
from headwater.methods.targets import Part, Scorer, Target, laid_out
from headwater.models.reader import Reader
from headwater.valuation.values import NOT_FOR_PRICES

ROWS = 200
"""Candidates on which the ceiling is measured."""

GOOD, WEAK = 0.8, 0.5
"""A ceiling below the first is told; a student below the second writes no values unasked."""

_FEWEST = 10
_SPLITS = 20
_NEAREST, _BELOW, _FAR_BELOW, _SURE = 32, 4 / 5, 2 / 3, 0.001


@dataclass(frozen=True)
class Ceiling:
    """How well a target's values foretell those of another target like it.

    Attributes:
        target: the target's name.
        target_rows: how many rows it has.
        rows: candidates on which it was measured.
        halves: Spearman correlation of the values from two halves of the target, mean over splits.
    """

    target: str
    target_rows: int
    rows: int
    halves: float

    @property
    def stepped_up(self) -> float:
        """The correlation for a whole target, by Spearman-Brown; 0 if the halves do not agree at all."""
        return max(0.0, 2 * self.halves / (1 + self.halves)) if self.halves > -1 else 0.0

    def rows_for(self, wanted: float) -> int | None:
        """How many target rows would reach a stepped-up correlation; None if the halves do not agree at all."""
        known = self.stepped_up
        return math.ceil(self.target_rows * wanted * (1 - known) / (known * (1 - wanted))) if known > 0 else None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {"rows": self.rows, "between halves": self.halves, "ceiling": self.stepped_up}

    def warning(self) -> str | None:
        """A sentence if the target is too small to tell rows apart."""
        if self.stepped_up >= GOOD:
            return None
        more = self.rows_for(0.9)
        help_ = f"about {more:,} rows would agree at 0.90" if more else "its rows have nothing in common for this model"
        what = f"target '{self.target}' of {self.target_rows} rows is too small to tell these candidates apart"
        return f"{what}: another of its kind would rank them at a correlation of {self.stepped_up:.2f}; {help_}"


def ceilings(scores: Float[np.ndarray, "rows parts"], parts: Sequence[Part]) -> list[Ceiling]:
    """The ceiling of each target that has two parts or more; none from fewer than 10 rows.

    Args:
        scores: of some candidates on each part.
        parts: the part of each column.
    """
    found = []
    for name in dict.fromkeys(part.target for part in parts):
        own = [i for i, part in enumerate(parts) if part.target == name]
        if len(own) < 2 or len(scores) < _FEWEST:
            continue
        weights = np.array([parts[i].rows for i in own], dtype=np.float64)
        values = scores[:, own].astype(np.float64)
        agreements = [
            spearman(*(values[:, half] @ weights[half] / weights[half].sum() for half in halves), if_constant=0.0)
            for halves in _halves(len(own))
        ]
        found.append(Ceiling(name, int(weights.sum()), len(scores), float(np.mean(agreements))))
    return found


@dataclass(frozen=True)
class Familiar:
    """A model's loss (nats a token) on the candidates most like the target, which is evidently below the target's."""

    known: float
    fresh: float

    @property
    def grave(self) -> bool:
        """Whether the difference is so large that the model knows most of what the rows could teach."""
        return self.known < _FAR_BELOW * self.fresh

    def warning(self) -> str:
        """The sentence that tells it."""
        losses = f"{self.known:.2f} nats a token, the target's rows {self.fresh:.2f}"
        what = f"the model seems to have trained on the candidates: those most like the target have a loss of {losses}"
        return f"{what}; the values of rows that it knows already are noise, so use the model as it was before"


@dataclass(frozen=True)
class Doubts:
    """What was measured of targets and model.

    Attributes:
        ceilings: of the targets.
        further: warnings that leave the values what they are: a target of one row, more labels than rows.
        seen: that the model has trained on the candidates, if it has.
        weak: that a student is weak.
    """

    ceilings: list[Ceiling]
    further: tuple[str, ...] = ()
    seen: Familiar | None = None
    weak: tuple[str, ...] = ()

    @property
    def grave(self) -> tuple[str, ...]:
        """Those of the warnings that say the values are mostly noise, so that nobody should be paid by them."""
        return (*((self.seen.warning(),) if self.seen and self.seen.grave else ()), *self.weak)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The reasons to doubt the values, each a sentence."""
        small = [one for ceiling in self.ceilings if (one := ceiling.warning())]
        return (*small, *self.further, *((self.seen.warning(),) if self.seen else ()), *self.weak)

    @property
    def notes(self) -> dict[str, Any]:
        """For the values file: each target's ceiling, and the warnings."""
        found: dict[str, Any] = {}
        if len(self.ceilings) == 1:
            found["ceiling"] = self.ceilings[0].stepped_up
        if self.ceilings:
            found["ceilings"] = {ceiling.target: ceiling.to_json() for ceiling in self.ceilings}
        return {
            **found,
            **({"warnings": list(self.warnings)} if self.warnings else {}),
            **({NOT_FOR_PRICES: list(self.grave)} if self.grave else {}),
        }


def doubt(reader: Reader | None, targets: Sequence[Target], scorer: Scorer, rows: Sequence[Row]) -> Doubts:
    """Measure the targets' ceilings on some candidates, and look whether the model has trained on them."""
    if reader is None:
        return Doubts([])
    single = [_single(target.name) for target in targets if len(target.rows) == 1]
    return Doubts(ceilings(scorer(rows), scorer.parts), tuple(single), familiar(reader, rows, laid_out(targets)))


def _single(name: str) -> str:
    what = f"target '{name}' has one row, so nothing tells how much of a value is about the task and not this row"
    return f"{what}; give it 16 rows or more"


def _halves(count: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Ways to split parts in two halves: all of them for few parts, else 20 at random."""
    if count <= 6:
        for left in itertools.combinations(range(count), count // 2):
            if count % 2 or 0 in left:
                yield np.array(left), np.setdiff1d(np.arange(count), left)
        return
    generator = np.random.default_rng(0)
    for _ in range(_SPLITS):
        order = generator.permutation(count)
        yield order[: count // 2], order[count // 2 :]


def familiar(reader: Reader, candidates: Sequence[Row], target: Sequence[Row]) -> Familiar | None:
    """The two losses if the model has evidently trained on the pool; None if nothing says so.

    Only the candidates whose responses share most words with the target are compared, because rows of other kinds have
    other losses anyway.
    """
    from scipy.stats import ttest_ind

    if len(candidates) < _FEWEST or len(target) < _FEWEST:
        return None
    alike = bm25_scores(candidates, target).values.sum(axis=1)
    nearest = [candidates[i] for i in np.argsort(-alike, kind="stable")[:_NEAREST]]
    known, fresh = (mean_losses(reader.loaded, reader.batches(rows, Window(512)), len(rows)).double().numpy()
                    for rows in (nearest, target))  # fmt: skip
    if known.mean() >= _BELOW * fresh.mean() or ttest_ind(known, fresh, equal_var=False).pvalue >= _SURE:
        return None
    return Familiar(float(known.mean()), float(fresh.mean()))


def require_strong(quality: float, ceiling: Ceiling | None, *, remedy: str, force: bool, of: str = "") -> str | None:
    """Raise `DataError` if a student is too weak for its values to mean anything; with `force`, return a warning.

    Args:
        quality: Spearman correlation of the student with its teacher, on rows it has not learned from.
        ceiling: the target's, if it is known.
        remedy: what helps.
        force: go on all the same.
        of: words that say which student, if there are several.
    """
    limit = max(WEAK, ceiling.stepped_up / 2 if ceiling else 0.0)
    if quality >= limit:
        return None
    found = f"a correlation of {quality:.2f} only, below {limit:.2f}"
    what = f"the student{of} ranks rows it has not seen as its teacher does at {found}"
    if ceiling is not None:
        what += f"; the target's ceiling is {ceiling.stepped_up:.2f}"
    if force:
        return what
    raise DataError(what, where="alinfik", remedy=remedy)


def help_for(
    ceiling: Ceiling | None, labels: int, unread: Sequence[str] = (), seen: Familiar | None = None, *, all_by: str = ""
) -> str:
    """What would help a weak student.

    Args:
        ceiling: the target's, if it is known.
        labels: how many rows the student learned from.
        unread: sources that were too dear to read.
        seen: that the model has trained on the candidates, if it has.
        all_by: the name of the teacher if it has labelled the whole pool, so that there is nothing more to label.
    """
    more = ceiling.rows_for(0.9) if ceiling is not None and ceiling.stepped_up < GOOD else None
    rows = f"give about {more:,} target rows, " if more else ""
    dearer = f"let the student cost more, so that it reads {' and '.join(unread)} (--student-cost 1/2), "
    base = "use the base model if this one was trained on the pool"
    if seen is not None:
        losses = f"{seen.known:.2f} nats a token on those most like the target, {seen.fresh:.2f} on the target"
        base = f"use the model as it was before it trained on these candidates ({losses})"
    again = f"label more than {labels:,} rows (--set labels=...)"
    if all_by:
        again = f"value with --method {all_by}, which has scored all {labels:,} rows anyway,"
    return (
        f"no values were written: {rows}{dearer if unread else ''}{again} under another --out, {base}, or write them "
        "all the same with --resume --force"
    )
