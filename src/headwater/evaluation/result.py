"""The result of an evaluation: one line a method, every number with its interval, and the settings to run it again.

A result is written as one JSON document, the run file. `headwater eval replay` runs it again from its settings, and
tables and pages are made from it alone.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError
from headwater.core.files import write_text
from headwater.core.tables import Tabular
from headwater.evaluation.metrics import Estimate

FORMAT = 1
"""This number grows when the format changes so that older run files cannot be read."""


@dataclass(frozen=True)
class Cost:
    """The cost of a method's scores; None if it was not measured.

    Attributes:
        build_seconds: time to read all rows; for a method without index, the time of the whole pass.
        row_bytes: bytes of one row in the index; 0 without index.
        query_seconds: time of one query over the finished index; 0 without index.
    """

    build_seconds: float | None = None
    row_bytes: int | None = None
    query_seconds: float | None = None


@dataclass(frozen=True)
class Line:
    """The numbers of one method; `group` names the table within the result (`trigger masked`)."""

    method: str
    metrics: Mapping[str, Estimate]
    cost: Cost = field(default_factory=Cost)
    group: str = ""


@dataclass(frozen=True)
class Result(Tabular):
    """A finished evaluation.

    Attributes:
        task: its name on the command line.
        title: a sentence for people.
        settings: the settings it was run with, JSON-ready; they are enough to run it again.
        shown: the metrics of the tables; lines are ordered and plotted by the first.
        lines: one a method and group.
        notes: what the numbers depend on.
        about: versions, machine, date, seconds; `run_evaluation` fills it in.
    """

    task: str
    title: str
    settings: Mapping[str, Any]
    shown: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its files: the task, and the pool or shape if the task has several."""
        pool = self.settings.get("pool") or self.settings.get("shape")
        return f"{self.task}-{pool}" if pool else self.task

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups, in the order of the lines."""
        return tuple(dict.fromkeys(line.group for line in self.lines))

    def ranked(self, group: str = "") -> list[Line]:
        """A group's lines by the first metric, the highest first; equal ones keep their order."""
        mine = [line for line in self.lines if line.group == group]
        return sorted(mine, key=lambda line: -line.metrics[self.shown[0]].value)

    def records(self) -> list[dict[str, Any]]:
        """One record a method and group: each metric with its interval, and the costs."""
        records = []
        for line in self.lines:
            record: dict[str, Any] = {"group": line.group, "method": line.method}
            for name, found in line.metrics.items():
                record |= {name: found.value, f"{name} low": found.low, f"{name} high": found.high}
            records.append({**record, **asdict(line.cost)})
        return records

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {"format": FORMAT, **asdict(self)}


def environment(seconds: float) -> dict[str, Any]:
    """Versions, machine, date (UTC) and the time a run took."""
    return {
        **{name: version(name) for name in ("headwater", "torch", "transformers")},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }


def write_result(path: str | Path, result: Result) -> Path:
    """Write the run file, all at once."""
    return write_text(path, json.dumps(result.to_json(), indent=2, ensure_ascii=False) + "\n")


def read_result(path: str | Path) -> Result:
    """Read the result in a run file.

    Raises:
        DataError: there is no such file, or it is not a run file.
    """
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            remedy = f"this version reads format {FORMAT}"
            raise DataError(f"a run file of format {raw['format']}", where=str(path), remedy=remedy)
        return _from_json(raw)
    except FileNotFoundError:
        remedy = "headwater eval writes one for each evaluation"
        raise DataError("there is no run file", where=str(path), remedy=remedy) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"not a run file: {error!r}", where=str(path)) from None


def _from_json(raw: Mapping[str, Any]) -> Result:
    lines = tuple(
        Line(
            method=line["method"],
            metrics={name: Estimate(**numbers) for name, numbers in line["metrics"].items()},
            cost=Cost(**line["cost"]),
            group=line["group"],
        )
        for line in raw["lines"]
    )
    kept = {name: raw[name] for name in ("task", "title", "settings", "about")}
    return Result(**kept, shown=tuple(raw["shown"]), lines=lines, notes=tuple(raw["notes"]))
