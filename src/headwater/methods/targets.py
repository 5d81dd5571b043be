"""Targets: rows that are asked about together; and what a method made ready for them does.

    scorer = prepare(method, reader, targets, sample)     once
    scorer(rows)                                          float32 [rows, parts], for any block of rows

A part is what one column of scores stands for: one row of a target, or several taken together. A row's score on a
target is the mean over the target's parts, each counted by its rows; the parts' spread gives its standard error.
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
    """Rows that are asked about together: a task's test rows, or a single query."""

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
    """A method made ready for some targets."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the columns are; a target's parts stand next to each other, in the order of the targets."""
        ...

    @property
    def notes(self) -> Mapping[str, Any]:
        """What was chosen or measured on the way (step size, agreement, coverage); JSON-ready, for reports."""
        ...

    def __call__(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows parts"]:
        """The score of each row on each part, float32. Raises `NumericError` naming the row."""
        ...


@dataclass(frozen=True)
class RowScorer:
    """A `Scorer` made of a function, for methods that score every row of a target by itself.

    `score` takes rows to float `[rows, queries]`, the queries being the targets' rows laid end to end.
    """

    targets: tuple[Target, ...]
    score: Callable[[Sequence[Row]], Float[np.ndarray, "rows queries"]]
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Part, ...]:
        """One a row of each target."""
        return tuple(Part(target.name) for target in self.targets for _ in target.rows)

    def __call__(self, rows: Sequence[Row]) -> Float[np.ndarray, "rows queries"]:
        """Scores of the rows."""
        return np.asarray(self.score(rows), dtype=np.float32)


def each(queries: Sequence[Row]) -> tuple[Target, ...]:
    """Every query as a target of its own."""
    return tuple(Target(query.id, (query,)) for query in queries)


def laid_out(targets: Sequence[Target]) -> list[Row]:
    """The targets' rows end to end."""
    return [row for target in targets for row in target.rows]


def same_for_all(scores: Float[np.ndarray, " rows"], targets: Sequence[Target]) -> Float[np.ndarray, "rows queries"]:
    """Scores that do not depend on the query, repeated for every row of every target."""
    return np.repeat(np.asarray(scores)[:, None], len(laid_out(targets)), axis=1)


def split_folds(rows: Sequence[Item], folds: int) -> list[tuple[Item, ...]]:
    """The rows in `folds` folds, every `folds`-th row in one; one row a fold where there are fewer rows."""
    count = min(folds, len(rows))
    return [tuple(rows[start::count]) for start in range(count)]


def evenly_spaced(rows: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the rows, evenly spaced; all of them where there are fewer."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))
    return [rows[i] for i in places]


def mean_over_parts(
    values: Float[np.ndarray, "rows parts"], parts: Sequence[Part]
) -> Float[np.ndarray, "rows targets"]:
    """Scores on whole targets: Σ_parts rows·score / Σ_parts rows, in the targets' order; float32."""
    columns = []
    for name in dict.fromkeys(part.target for part in parts):
        own = [i for i, part in enumerate(parts) if part.target == name]
        weights = np.array([parts[i].rows for i in own], dtype=np.float64)
        columns.append(values[:, own].astype(np.float64) @ (weights / weights.sum()))
    return np.stack(columns, axis=1).astype(np.float32)


def require_finite(values: Float[np.ndarray, "rows parts"], rows: Sequence[Row]) -> None:
    """Raise `NumericError` naming the first row with a score that is not finite."""
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        row = rows[int(bad[0])]
        remedy = "load the model in float32, or leave the row out"
        raise NumericError("the row's score is not finite", where=row.where, remedy=remedy)
