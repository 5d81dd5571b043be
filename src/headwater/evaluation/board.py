"""One table of methods × tasks from several results, those of this package's tasks or of your own data alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError, UsageError
from headwater.evaluation.result import Result, read_result
from headwater.evaluation.standing import Standing, certain, difference, standings

BEST = "°"
"""Marks a cell that is the best of its column, or level with the best."""


@dataclass(frozen=True)
class BoardColumn:
    """A column of the table: one metric of one group of a result."""

    heading: str
    result: Result
    group: str
    metric: str

    def standings(self) -> list[Standing]:
        """The lines, the highest value first."""
        return standings(self.result, self.group, self.metric)


@dataclass(frozen=True)
class Board:
    """The table: a row is (place, method, a cell for each heading, build s, bytes a row, query s).

    The rows are ordered by the first column of numbers, which also gives the places.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def board(columns: Sequence[BoardColumn], results: Sequence[Result]) -> Board:
    """The table of these columns; costs are those on detection if a method was measured there.

    Raises:
        UsageError: there is no column.
    """
    if not columns:
        raise UsageError("there is no result to show", remedy="give run files of evaluations")
    places = {s.line.method: s.place_text for s in columns[0].standings()}
    cells: dict[str, dict[int, str]] = {}
    for i, column in enumerate(columns):
        for method, text in _cells(column).items():
            cells.setdefault(method, {})[i] = text
    costs = _costs(results)
    order = [*places, *(method for method in cells if method not in places)]
    rows = [
        (places.get(m, ""), m, *(cells[m].get(i) for i in range(len(columns))), *costs.get(m, (None, None, None)))
        for m in order
    ]
    return Board(tuple(column.heading for column in columns), tuple(rows))


def read_results(files: Sequence[Path]) -> list[Result]:
    """The results in run files, in the order given.

    Raises:
        DataError: there is no such file, it is no run file, or two files measure one task on different data.
    """
    results: list[Result] = []
    known: dict[tuple[str, str], tuple[Path, str]] = {}
    for file in files:
        found = read_result(file)
        digest, name = str(found.data.get("digest", "")), (found.task, str(found.data.get("name", found.name)))
        if name in known and known[name][1] != digest:
            what = f"{' '.join(name)} is measured here on other data than in {known[name][0]}"
            raise DataError(what, where=str(file), remedy="merge results on one data set, or give another --name")
        known.setdefault(name, (file, digest))
        results.append(found)
    return results


def joined(results: Sequence[Result]) -> list[Result]:
    """The results, with those of one task on the same data joined into one; of a method measured twice the last counts.

    Two results with no digest, which older versions wrote, are never joined.
    """
    merged: dict[Any, Result] = {}
    for number, result in enumerate(results):
        digest = result.data.get("digest")
        key = (result.task, digest, result.data.get("model", {}).get("fingerprint")) if digest else number
        before = merged.get(key)
        if before is None:
            merged[key] = result
            continue
        again = {(line.group, line.method) for line in result.lines}
        kept = tuple(line for line in before.lines if (line.group, line.method) not in again)
        notes = tuple(dict.fromkeys((*before.notes, *result.notes)))
        merged[key] = replace(result, lines=(*kept, *result.lines), notes=notes)
    return list(merged.values())


def columns_of(results: Sequence[Result]) -> list[BoardColumn]:
    """A column for each group of each result: the metric that its table is ordered by."""
    found = []
    for result in results:
        task = " ".join(dict.fromkeys((result.task, str(result.data.get("name", "")))))
        for group in result.groups:
            own = group if group and group != result.data.get("name") else ""
            metric = result.shown[0]
            found.append(BoardColumn(" ".join(filter(None, (task.strip(), own, metric))), result, group, metric))
    return found


def _cells(column: BoardColumn) -> dict[str, str]:
    """Each method's number with its interval; the best, and all that are level with it, are marked."""
    found = column.standings()
    if not found:
        return {}
    best = found[0].line
    return {
        s.line.method: f"{s.line.metrics[column.metric]}"
        + ("" if s.line is not best and certain(difference(best, s.line, column.metric)) else BEST)
        for s in found
    }


def _costs(results: Sequence[Result]) -> dict[str, tuple[float | None, int | None, float | None]]:
    """Build seconds, bytes a row and query seconds of each method: on detection if it was measured there."""
    found: dict[str, tuple[float | None, int | None, float | None]] = {}
    for result in sorted(results, key=lambda result: result.task != "detection"):
        for line in result.lines:
            found.setdefault(line.method, (line.cost.build_seconds, line.cost.row_bytes, line.cost.query_seconds))
    return found
