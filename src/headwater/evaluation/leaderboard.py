"""The leaderboard: every method on every task of this repository, small enough for a laptop, from one command.

    headwater eval leaderboard          (or make leaderboard)

Each task is an ordinary evaluation whose run file is kept. An interrupted leaderboard continues with the next task. A
task is run again if its run file has other settings or is from another version of headwater.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError
from headwater.evaluation.board import Board, BoardColumn, board
from headwater.evaluation.listener import SILENT, Listener
from headwater.evaluation.result import Result, read_result, write_result
from headwater.evaluation.runs import run_evaluation

COMBINED = ("embedding+0.5*rise", "rapidin+0.5*embedding")
METHODS = (
    *("concord", "concord:preset=full", "concord:strength=1"),
    *("ekfac-cos", "ekfac-cos:preset=full", "ekfac-cos:readings=halfway", "ekfac-cos:checkpoints="),
    *("rise", "rapidin", "gradcos", "graddot", "less", "lorif"),
    *("trackstar:damping=10", "logra:damping=10", "rise-gram:damping=10", "trak:damping=100"),
    *("ekfac", "datainf", "source", *COMBINED),
)
"""Methods with a Gram metric have the damping that was best on another task (two domains, 256 rows)."""

QUICK = tuple(label for label in METHODS if label != "source")
"""Without the method that reads every row at every checkpoint, anew for each set of queries."""

HOWDY = {"rows": 1400, "queries": 20, "epochs": 8}
"""The backdoor needs so many rows: with 600 rows it fires on only half of the new triggered questions."""
SWAP = {"rows": 600, "queries": 20, "epochs": 16}


@dataclass(frozen=True)
class Entry:
    """One evaluation of the leaderboard; `columns` of the summary are (heading, group, metric)."""

    task: str
    settings: Mapping[str, Any]
    columns: tuple[tuple[str, str, str], ...] = field(default=())

    def of(self, result: Result) -> list[BoardColumn]:
        """The columns of the summary, filled from this evaluation's result."""
        return [BoardColumn(heading, result, group, metric) for heading, group, metric in self.columns]


ENTRIES = (
    Entry(
        "lds",
        {"methods": (*METHODS, "source:preset=first-order"), "pool": "facts", "models": 64, "ceiling": True},
        (("LDS", "", "LDS"),),
    ),
    Entry(
        "detection",
        {"methods": QUICK, "pool": "howdy", "anti": True, **HOWDY},
        (("Howdy AP", "howdy", "AP"), ("with anti-documents", "howdy, with anti-documents", "AP")),
    ),
    Entry(
        "detection",
        {"methods": QUICK, "pool": "entity-swap", "anti": True, **SWAP},
        (
            ("swap AP", "entity swap, wrong words only", "AP"),
            ("with anti-documents", "entity swap, wrong words only, with anti-documents", "AP"),
        ),
    ),
    Entry(
        "removal",
        {"methods": ("rise", "rapidin", "concord", "ekfac"), "queries": 8},
        (("removal, nats", "", "rise"),),
    ),
)


def run_leaderboard(folder: Path, listener: Listener = SILENT, entries: Sequence[Entry] = ENTRIES) -> list[Result]:
    """The results of all entries, in order; an entry with a valid run file is not run again."""
    results = []
    for number, entry in enumerate(entries, 1):
        name = f"{entry.task}-{entry.settings['pool']}" if "pool" in entry.settings else entry.task
        file = folder / "runs" / f"{name}.json"
        found = _kept(file, entry)
        if found is None:
            part = listener.within(f"{number} of {len(entries)}, {name}")
            found = read_result(write_result(file, run_evaluation(entry.task, entry.settings, folder, part)))
        results.append(found)
    return results


def summary(results: Sequence[Result], entries: Sequence[Entry] = ENTRIES) -> Board:
    """The table of methods × tasks."""
    columns = [column for entry, result in zip(entries, results, strict=True) for column in entry.of(result)]
    return board(columns, results)


def _kept(file: Path, entry: Entry) -> Result | None:
    """The result in the run file, if it has these settings and is from this version."""
    if not file.exists():
        return None
    try:
        found = read_result(file)
    except DataError:
        return None
    asked = json.loads(json.dumps(dict(entry.settings)))
    same = all(json.loads(json.dumps(found.settings)).get(name) == value for name, value in asked.items())
    return found if same and found.about.get("headwater") == version("headwater") else None
