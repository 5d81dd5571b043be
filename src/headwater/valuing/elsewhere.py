"""Estimate rows in other processes: what they are told as JSON, and how they make the same estimates of it.

A worker loads the model, prepares the method on the same targets and the same rows of the pool as the process that
divides the work, and returns each block's numbers in its receipt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.core.spec import MethodSpec
from headwater.data.rows import Row
from headwater.engines.blocks import Place, WorkRecipe, versions
from headwater.indexing.elsewhere import settle
from headwater.methods.catalog import restore_method
from headwater.methods.method import Method
from headwater.methods.scoring import prepare
from headwater.methods.targets import Target
from headwater.models.elsewhere import described_reader, reader_like
from headwater.models.reader import Reader
from headwater.students.student import estimates_of, load_student
from headwater.valuing.kept_rows import from_line, to_line
from headwater.valuing.run import EstimateFiles, of_scorer

_NOWHERE = Path()
"""Workers write no files: their numbers travel in receipts."""


def teacher_recipe(
    method: Method,
    reader: Reader | None,
    targets: Sequence[Target],
    sample: Sequence[Row],
    *,
    placing: Mapping[str, Any],
) -> WorkRecipe:
    """How another process makes the method's estimates; `sample` is what `prepare` is given.

    Raises:
        UsageError: the model is in the memory of this process.
    """
    arguments = {
        "method": method.spec.to_json(),
        "reader": None if reader is None else described_reader(reader, placing),
        "targets": {target.name: [to_line(row) for row in target.rows] for target in targets},
        "sample": [to_line(row) for row in sample],
    }
    return WorkRecipe("headwater.valuing.elsewhere:teacher", arguments, versions())


def teacher(
    place: Place,
    *,
    method: Mapping[str, Any],
    reader: Mapping[str, Any] | None,
    targets: Mapping[str, Sequence[str]],
    sample: Sequence[str],
) -> EstimateFiles:
    """Make the work that `teacher_recipe` describes."""
    settle(place)
    rows = [Target(name, tuple(from_line(line, i) for i, line in enumerate(lines))) for name, lines in targets.items()]
    some = [from_line(line, i) for i, line in enumerate(sample)]
    restored = restore_method(MethodSpec.from_json(method))
    return EstimateFiles(_NOWHERE, of_scorer(prepare(restored, _reader(reader, place), rows, some)))


def student_recipe(folders: Sequence[Path], reader: Reader | None, *, placing: Mapping[str, Any]) -> WorkRecipe:
    """How another process loads the students in these folders, which it must see; errors as in `teacher_recipe`."""
    known = None if reader is None else described_reader(reader, placing)
    arguments = {"folders": [str(folder.absolute()) for folder in folders], "reader": known}
    return WorkRecipe("headwater.valuing.elsewhere:students", arguments, versions())


def students(place: Place, *, folders: Sequence[str], reader: Mapping[str, Any] | None) -> EstimateFiles:
    """Make the work that `student_recipe` describes."""
    settle(place)
    known = _reader(reader, place)
    return EstimateFiles(_NOWHERE, estimates_of([load_student(folder, reader=known) for folder in folders]))


def _reader(described: Mapping[str, Any] | None, place: Place) -> Reader | None:
    return None if described is None else reader_like(described, accelerators=place.accelerators)
