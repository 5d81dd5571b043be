"""The leaderboard: kept runs are used while they hold, and the summary joins tasks by method."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version

import pytest

from headwater.evaluation import leaderboard
from headwater.evaluation.board import Board
from headwater.evaluation.lds import alternatives
from headwater.evaluation.leaderboard import ENTRIES, Entry, run_leaderboard, summary
from headwater.evaluation.metrics import Estimate
from headwater.evaluation.result import Cost, Line, Result
from headwater.evaluation.runs import EVALUATIONS
from headwater.evaluation.stage import with_controls
from headwater.report.results import MADE, write_leaderboard

TWO = (
    Entry("lds", {"models": 8, "methods": ("rise",)}, (("LDS", "", "LDS"),)),
    Entry("detection", {"pool": "howdy"}, (("Howdy AP", "howdy", "AP"),)),
)


def result(entry: Entry, metric: str, group: str, values: dict[str, float]) -> Result:
    lines = tuple(
        Line(m, {metric: Estimate(v, v - 0.1, v + 0.1)}, Cost(1.234, 100, 0.01), group) for m, v in values.items()
    )
    about = {"headwater": version("headwater"), "torch": "2", "machine": "x", "seconds": 1.0, "made": "today"}
    return Result(entry.task, entry.task, dict(entry.settings), (metric,), lines, about=about)


@pytest.fixture
def ran(monkeypatch):
    """Counts what is run in earnest."""
    calls = []

    def run(task, settings, folder, advance):
        calls.append(task)
        metric, group = ("LDS", "") if task == "lds" else ("AP", "howdy")
        values = {"rise": 0.5, "bm25": 0.7} if task == "lds" else {"rise": 0.9, "random": 0.1}
        return result(next(e for e in TWO if e.task == task), metric, group, values)

    monkeypatch.setattr(leaderboard, "run_evaluation", run)
    return calls


def test_kept_runs_are_used_and_changed_ones_made_anew(tmp_path, ran):
    first = run_leaderboard(tmp_path, entries=TWO)
    assert run_leaderboard(tmp_path, entries=TWO) == first
    assert ran == ["lds", "detection"]
    changed = (replace(TWO[0], settings={"models": 9, "methods": ("rise",)}), TWO[1])
    run_leaderboard(tmp_path, entries=changed)
    assert ran == ["lds", "detection", "lds"]
    (tmp_path / "runs" / "detection-howdy.json").write_text("torn")
    run_leaderboard(tmp_path, entries=TWO)
    assert ran[3:] == ["detection"]


def test_the_summary_joins_tasks_by_method_best_first(tmp_path, ran):
    results = run_leaderboard(tmp_path, entries=TWO)
    found = summary(results, TWO)
    assert found.headings == ("LDS", "Howdy AP")
    assert [row[:2] for row in found.rows] == [("1", "bm25"), ("2", "rise"), ("", "random")]
    assert found.rows[1][2:] == ("0.500 [0.400, 0.600]", "0.900 [0.800, 1.000]°", 1.234, 100, 0.01)
    assert found.rows[2][2] is None
    write_leaderboard(tmp_path / "board.md", tmp_path / "board.html", results, found)
    text = (tmp_path / "board.md").read_text()
    assert text.index("| bm25") < text.index("| rise")
    assert "headwater" in (tmp_path / "board.html").read_text()
    assert text.startswith(f"# Leaderboard\n\n{MADE}")
    (tmp_path / "board.md").write_text(text.replace(MADE, f"BM25 leads.\n\n{MADE}"))
    fewer = Board(found.headings[:1], (("1", "rise", "0.5", None, None, None),))
    write_leaderboard(tmp_path / "board.md", tmp_path / "board.html", results[:1], fewer)
    again = (tmp_path / "board.md").read_text()
    assert again.startswith(f"# Leaderboard\n\nBM25 leads.\n\n{MADE}"), "what people wrote above the tables is kept"
    assert "Howdy" not in again


def test_every_entry_can_run():
    for entry in ENTRIES:
        settings = EVALUATIONS[entry.task].settings(**entry.settings)
        assert asdict(settings)
        with_controls([one for label in entry.settings["methods"] for one in alternatives(label)])
