"""Targets, which rows are scored on, and the scorers that do it.

    scorer = prepare(method, reader, targets, sample)     once
    scorer(rows)                                          float32 [rows, parts], for any block of rows

A part is one or more rows of a target, and each part has one column of scores. A row's score on a target is the mean
over the target's parts, weighted by their numbers of rows; the spread over the parts gives its standard error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

from headwater.core.errors import DataError, NumericError
from headwater.data.rows import Row

Item = TypeVar("Item")


@dataclass(frozen=True)
class Target:
    """Rows that pool rows are scored on together: a task's test rows, or a single query."""

    name: str
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise DataError("there is no row in it", where=f"target '{self.name}'", remedy="give it at least one row")


@dataclass(frozen=True)
class Part:
    """One column of scores: it stands for `rows` rows of the target called `target`."""

    target: str
    rows: int = 1


@runtime_checkable
class Scorer(Protocol):
    """Scores rows on some targets with one method."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The part of each column; a target's parts are next to each other, in the order of the targets."""
        ...

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the method chose or measured (step size, agreement, coverage), for reports; JSON-ready."""
        ...

    def __call__(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows parts"]:
        """The score of each row on each part, float32; raises `NumericError` if one is not finite, naming the row."""
        ...


Score = Callable[[Sequence[Row]], Float[np.ndarray, "rows _"]]


@dataclass(frozen=True)
class PartScorer:
    """A `Scorer` made from a function: `score` takes rows and returns float `[rows, parts]`."""

    parts: tuple[Part, ...]
    score: Score
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows parts"]:
        """The score of each row on each part, float32; raises `NumericError` if one is not finite, naming the row."""
        values = np.asarray(self.score(rows), dtype=np.float32)
        require_finite(values, rows, self.parts)
        return values


class RowScorer(PartScorer):
    """A `Scorer` for methods that score on every row of a target separately, so that each row is a part.

    `score` takes rows and returns float `[rows, queries]`; the queries are the rows of all targets, in order.
    """

    def __init__(self, targets: Sequence[Target], score: Score, notes: Mapping[str, Any] | None = None) -> None:
        super().__init__(tuple(Part(target.name) for target in targets for _ in target.rows), score, notes or {})


def each(queries: Sequence[Row]) -> tuple[Target, ...]:
    """Every query as a target of its own."""
    return tuple(Target(query.id, (query,)) for query in queries)


def laid_out(targets: Sequence[Target]) -> list[Row]:
    """The rows of all targets in one list."""
    return [row for target in targets for row in target.rows]


def same_for_all(scores: Float[np.ndarray, " rows"], targets: Sequence[Target]) -> Float[np.ndarray, "rows queries"]:
    """Repeat scores that do not depend on the query, once for every row of every target."""
    return np.repeat(np.asarray(scores)[:, None], len(laid_out(targets)), axis=1)


def split_folds(rows: Sequence[Item], folds: int) -> list[tuple[Item, ...]]:
    """Split rows into `folds` folds of every `folds`-th row, or into one fold a row if there are fewer rows."""
    count = min(folds, len(rows))
    return [tuple(rows[start::count]) for start in range(count)]


def evenly_spaced(rows: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the rows, evenly spaced; all rows if there are fewer."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))
    return [rows[i] for i in places]


def mean_over_parts(
    values: Float[np.ndarray, "rows parts"], parts: Sequence[Part]
) -> Float[np.ndarray, "rows targets"]:
    """Scores on whole targets, float32, in the order of the targets: Σ_parts rows·score / Σ_parts rows."""
    columns = []
    for name in dict.fromkeys(part.target for part in parts):
        own = [i for i, part in enumerate(parts) if part.target == name]
        weights = np.array([parts[i].rows for i in own], dtype=np.float64)
        columns.append(values[:, own].astype(np.float64) @ (weights / weights.sum()))
    return np.stack(columns, axis=1).astype(np.float32)


def require_finite(values: Float[np.ndarray, "rows parts"], rows: Sequence[Row], parts: Sequence[Part]) -> None:
    """Raise `NumericError` if a score is not finite, naming the first such row, or the target if no row has one."""
    finite = np.isfinite(values)
    if finite.all():
        return
    lost = np.flatnonzero(~finite.any(axis=0))
    if len(lost) and len(rows) > 1:
        what, where = "no row's score on this target is finite", f"target '{parts[int(lost[0])].target}'"
        raise NumericError(what, where=where, remedy="load the model in float32, or leave out rows of the target")
    row = rows[int(np.flatnonzero(~finite.all(axis=1))[0])]
    remedy = "load the model in float32, or leave the row out"
    raise NumericError("the row's score is not finite", where=row.where, remedy=remedy)
