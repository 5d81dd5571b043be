"""The leaderboard as a document: one table of methods × tasks, then every task's own, from the results alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headwater.evaluation.result import Result
from headwater.report.markdown import markdown_table
from headwater.report.page import write_page
from headwater.report.results import COSTS, Section, results_markdown, sections, write_results
from headwater.report.tables import Table

MADE = "<!-- Everything below is made by `make leaderboard`. -->"

_READING = (
    "Means over queries with 95 % bootstrap intervals over queries. `random`, `length`, `loss`, `bm25` and `embedding` "
    "are the controls. *LDS*: Spearman of summed scores with what retraining on random halves did. *AP*: average "
    "precision of the planted rows; resemblance goes a long way there, so read it beside LDS. *masked*: the same "
    "queries without the trigger. *P@50*: share of the query's own domain among its top 50 (chance is a half). `a+b` "
    "adds standardised scores, `a=>b` lets b rank anew the tenth of the rows that a puts first."
)


def write_leaderboard(
    path: Path, page: Path, results: Sequence[Result], headings: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Write the document (Markdown) to `path` and the page (HTML, with plots) to `page`.

    Of a document that is there, what stands above the line `MADE` is kept: what people make of the tables.
    """
    columns = ("method", *headings, *COSTS)
    shown = tuple(tuple(_short(cell) for cell in row) for row in rows)
    table = markdown_table(columns, shown)
    parts = [(result, sections(result)) for result in results]
    text = "\n\n".join(
        [
            f"{_head(path)}{MADE}",
            "Made by `make leaderboard`, offline, on this repository's own tiny tasks and models.",
            _READING,
            table,
            *(_chapter(result, some) for result, some in parts),
        ]
    )
    write_page(path, text.rstrip() + "\n")
    about = {"made by": "make leaderboard", **(results[0].about if results else {})}
    first = Section(Table("Methods × tasks", columns, shown))
    write_results(page, "headwater leaderboard", [first, *(s for _, some in parts for s in some)], about)


def _head(path: Path) -> str:
    """What a document that is there says before the tables, else a title."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    return before[: before.index(MADE)] if MADE in before else "# Leaderboard\n\n"


def _chapter(result: Result, some: Sequence[Section]) -> str:
    about = result.about
    made = (
        f"headwater {about['headwater']}, torch {about['torch']}, {about['machine']}, {about['seconds']:.0f} s, "
        f"{about['made']}"
    )
    notes = "".join(f"\n\n{note}" for note in result.notes)
    bare = [Section(Table(s.table.title, s.table.columns, s.table.rows)) for s in some]
    return f"## {result.title}{notes}\n\nMade with {made}.\n\n{results_markdown(bare, level=3).rstrip()}"


def _short(cell: Any) -> Any:
    return float(f"{cell:.2g}") if isinstance(cell, float) else cell
