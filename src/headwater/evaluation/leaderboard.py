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

WEIGHTS = "parameters=|*.mlp.*"
"""All weights, or those of the feed-forward layers."""
TRACIN = "tracin:buckets=4096"
INDEXED = ("rise", "rise-gram", "rapidin", "graddot", "gradcos", TRACIN, "less", "trak", "trackstar", "logra")
STREAMED = ("ekfac", "datainf", "zoinf")
COMBINED = ("ekfac+0.5*bm25", "ekfac+0.5*embedding", "rapidin+bm25", "embedding+0.5*rise", "embedding=>ekfac")
METHODS = (*INDEXED, *STREAMED, *COMBINED)
TUNED = (
    *("rise", "rapidin", f"graddot:{WEIGHTS}", f"gradcos:{WEIGHTS}", TRACIN, "less"),
    *(f"{name}:damping=1|10|100|1000" for name in ("rise-gram", "trak", "trackstar")),
    f"logra:damping=1|10|100,{WEIGHTS}",
    f"ekfac:damping=0.01|0.1|1,{WEIGHTS}",
    *("datainf", "zoinf:neighbours=2|0", "linfik"),
    *COMBINED,
)
"""The methods of the LDS: damping, layers and neighbours are chosen on half of the queries."""

HOWDY = {"rows": 1400, "queries": 20, "epochs": 8}
"""The backdoor needs so many rows: with 600 rows it fires on only half of the new triggered questions."""
SWAP = {"rows": 600, "queries": 20, "epochs": 16}
CHECKED = ("rise", "rapidin", "logra", "ekfac")


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
    Entry("lds", {"methods": TUNED, "models": 64}, (("LDS", "", "LDS"),)),
    Entry(
        "detection",
        {"methods": METHODS, "pool": "howdy", **HOWDY},
        (("Howdy AP", "howdy", "AP"), ("masked AP", "howdy, trigger masked", "AP")),
    ),
    Entry(
        "detection",
        {"methods": METHODS, "pool": "entity-swap", **SWAP},
        (("swap AP", "entity swap, whole answer", "AP"), ("swap words AP", "entity swap, wrong words only", "AP")),
    ),
    Entry(
        "separation",
        {"methods": METHODS, "pool": "two-domains", "rows": 400, "queries": 20},
        (("recall P@50", "fine-tuned model (recall)", "P@50"), ("predict P@50", "untouched model (predict)", "P@50")),
    ),
    Entry(
        "removal", {"methods": ("rise", "rapidin", "ekfac", "logra"), "queries": 8}, (("removal, nats", "", "rise"),)
    ),
    Entry(
        "selection",
        {"pool": "mixed", "methods": ("linfik", "alinfik", "rise", "graddot"), "rows": 1500, "steps": 80},
        (("selection, nats", "", "loss taken off"),),
    ),
    Entry("forgetting", {"methods": ("rapidun", "ga", "graddiff"), "queries": 60, "seeds": (0,)}),
    Entry("sanity", {"methods": CHECKED, **HOWDY}),
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
