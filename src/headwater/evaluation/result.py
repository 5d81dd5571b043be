"""The result of an evaluation: one line a method, every number with its interval, and the settings to run it again.

A result is written as one JSON document, the run file. `headwater eval replay` runs it again from its settings, tables
and pages are made from it alone, and `headwater eval leaderboard --merge` joins several. All evaluations, those of this
package's tasks and those of your own data, write the same shape.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from headwater.core.errors import DataError
from headwater.core.files import write_text
from headwater.core.tables import Tabular
from headwater.evaluation.metrics import Estimate, estimate

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


Table = tuple[tuple[float, ...], ...]
"""What a mean was taken over, `[models, queries]`: one row if no models were retrained; seeds stand for queries."""


@dataclass(frozen=True)
class Line:
    """The numbers of one method.

    Attributes:
        method: its label.
        metrics: each metric with its interval.
        cost: what the scores cost.
        group: the table within the result (`trigger masked`).
        samples: by metric, the single values that its mean was taken over. Two methods are compared value by value, on
            the same queries and models. Older run files do not have them.
    """

    method: str
    metrics: Mapping[str, Estimate]
    cost: Cost = field(default_factory=Cost)
    group: str = ""
    samples: Mapping[str, Table] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        method: str,
        values: Mapping[str, ArrayLike],
        shown: Sequence[str],
        *,
        cost: Cost | None = None,
        within: tuple[float, float] | None = None,
        **rest: Any,
    ) -> Line:
        """The line of a method whose metrics are means of these values; those of the `shown` metrics are kept.

        `values` has one number a query or seed, or a table `[models, queries]`; `within` as in `estimate`.
        """
        tables = {name: np.atleast_2d(np.asarray(found, dtype=np.float64)) for name, found in values.items()}
        kept = {name: as_table(tables[name]) for name in shown if name in tables}
        metrics = {name: estimate(t, within=within) for name, t in tables.items()}
        return cls(method, metrics, cost or Cost(), samples=kept, **rest)


def as_table(values: ArrayLike) -> Table:
    """The values as they are kept in a line, with six digits behind the point."""
    return tuple(tuple(row) for row in np.round(np.atleast_2d(np.asarray(values, np.float64)), 6).tolist())


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
        data: what was measured on: `name`, `digest` of rows, queries and ground truth, numbers of `rows` and `queries`,
            and the `model`'s name and fingerprint. Methods of two results are comparable if the digest is the same.
        about: versions, machine, date, seconds; `run_evaluation` fills it in.
    """

    task: str
    title: str
    settings: Mapping[str, Any]
    shown: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its files: the task, and the pool, the shape or the own data if the task has several."""
        kind = self.settings.get("pool") or self.settings.get("shape")
        pool = kind if not self.settings.get("own") else self.data["name"]
        return f"{self.task}-{pool}" if pool else self.task

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups, in the order of the lines."""
        return tuple(dict.fromkeys(line.group for line in self.lines))

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
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "headwater eval writes one, a JSON file, for each evaluation"
        raise DataError("this is not a run file of an evaluation", where=str(path), remedy=remedy) from error


def _from_json(raw: Mapping[str, Any]) -> Result:
    lines = tuple(
        Line(
            method=line["method"],
            metrics={name: Estimate(**numbers) for name, numbers in line["metrics"].items()},
            cost=Cost(**line["cost"]),
            group=line["group"],
            samples={name: tuple(map(tuple, rows)) for name, rows in line.get("samples", {}).items()},
        )
        for line in raw["lines"]
    )
    kept = {name: raw[name] for name in ("task", "title", "settings", "about")}
    return Result(**kept, shown=tuple(raw["shown"]), lines=lines, notes=tuple(raw["notes"]), data=raw.get("data", {}))
