"""Results of evaluations as tables: a self-contained HTML page with plots, a Markdown file, and the run file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from headwater.core.files import write_text
from headwater.evaluation.board import Board
from headwater.evaluation.metrics import Estimate
from headwater.evaluation.result import Line, Result, write_result
from headwater.evaluation.standing import standings
from headwater.report import plots
from headwater.report.page import render
from headwater.report.tables import Cell, Table, markdown_table, numeric_columns

MADE = "<!-- Everything below is made by `make leaderboard`. -->"

READING = (
    "Means with 95 % intervals by Student's t: over queries, or over seeds; of LDS and removal over queries and "
    "retrained models together, since all queries share the models. *place*: 1 + the number of methods that are "
    "certainly better in the first column, by the interval of the paired difference on the same queries and models; "
    "`=` marks methods that are level with another. In every column `°` marks the best and all that are level with it. "
    "`random`, `length`, `loss`, `bm25` and `embedding` are the controls. `a+b` adds standardised scores; with `a=>b`, "
    "b re-ranks the tenth of the rows that a ranks highest."
)
"""How to read a leaderboard, whatever its tasks."""

_TASKS = (
    "*LDS*: Spearman of summed scores with what retraining on random halves did. *AP*: average precision of the "
    "planted rows; similar words help a lot there, so read it together with LDS. *masked*: the same queries without "
    "the trigger. *P@50*: share of the query's own domain among its top 50 (chance is a half)."
)


def write_leaderboard(path: Path, page: Path, results: Sequence[Result], board: Board, *, own: bool = False) -> None:
    """Write the document (Markdown) to `path` and the page (HTML, with plots) to `page`.

    If the document exists, its text above the line `MADE` is kept; people write their comments there. `own` says that
    the results are merged ones, and not those of this repository's tasks.
    """
    columns = ("place", "method", *board.headings, *COSTS)
    shown = tuple(tuple(_short(cell) for cell in row) for row in board.rows)
    parts = [(result, sections(result)) for result in results]
    made_by = "Made by `make leaderboard`, offline, on this repository's own tiny tasks and models."
    explained = [f"Merged from {len(results)} results.", READING] if own else [made_by, f"{READING} {_TASKS}"]
    chapters = [_chapter(result, some) for result, some in parts]
    text = "\n\n".join([f"{_head(path)}{MADE}", *explained, markdown_table(columns, shown), *chapters])
    write_text(path, text.rstrip() + "\n")
    about = {"made by": "headwater eval leaderboard", **(results[0].about if results else {})}
    first = Section(Table("Methods × tasks", columns, shown))
    write_results(page, "headwater leaderboard", [first, *(s for _, some in parts for s in some)], about)


def _head(path: Path) -> str:
    """The text before the tables: that of the existing document, else a title."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    return before[: before.index(MADE)] if MADE in before else "# Leaderboard\n\n"


def _chapter(result: Result, some: Sequence[Section]) -> str:
    about = result.about
    versions = f"headwater {about['headwater']}, torch {about['torch']}, {about['machine']}"
    data = f" Data {result.data['digest'][:12]}." if result.data else ""
    made = f"Made with {versions}, {about['seconds']:.0f} s, {about['made']}.{data}"
    notes = "".join(f"\n\n{note}" for note in result.notes)
    bare = [Section(Table(s.table.title, s.table.columns, s.table.rows)) for s in some]
    return f"## {result.title}{notes}\n\n{made}\n\n{results_markdown(bare, level=3).rstrip()}"


def _short(cell: Any) -> Any:
    return float(f"{cell:.2g}") if isinstance(cell, float) else cell


COSTS = ("build s", "bytes a row", "query s")
"""Headings of a method's costs: the time to read all rows, the size of a row in the index, the time of a query."""


@dataclass(frozen=True)
class Section:
    """A table of results; `bars` are (label, value, low, high), drawn above it, and `axis` names what they measure."""

    table: Table
    bars: Sequence[tuple[str, float, float, float]] = ()
    axis: str = ""


def render_results(title: str, sections: Sequence[Section], about: Mapping[str, object]) -> str:
    """The whole page."""
    shown = [(s.table, numeric_columns(s.table.columns, s.table.rows), _figure(s)) for s in sections]
    return render("results.html.j2", title=title, sections=shown, about=about)


def write_results(
    path: str | os.PathLike[str], title: str, sections: Sequence[Section], about: Mapping[str, object]
) -> Path:
    """Write the page, all at once; raises `StoreError` if the file cannot be written."""
    return write_text(Path(path), render_results(title, sections, about))


def results_markdown(sections: Sequence[Section], *, level: int = 2) -> str:
    """The tables in Markdown, each under its title."""
    parts = []
    for section in sections:
        table = section.table
        parts += [f"{'#' * level} {table.title}", markdown_table(table.columns, table.rows)]
        parts += [table.note] if table.note else []
    return "\n\n".join(parts) + "\n"


def sections(result: Result) -> list[Section]:
    """A result's tables, one a group, with the best line first and a plot of the first metric above each."""
    return [_section(result, group) for group in result.groups]


def publish(result: Result, folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Write `<name>.json`, `.md` and `.html` into the folder, and return the paths by kind."""
    parts, stem = sections(result), Path(folder) / result.name
    text = f"# {result.title}\n\n{results_markdown(parts)}"
    about = {**{"settings": dict(result.settings)}, **result.about}
    return {
        "json": write_result(stem.with_suffix(".json"), result),
        "markdown": write_text(stem.with_suffix(".md"), text),
        "html": write_results(stem.with_suffix(".html"), result.title, parts, about),
    }


def _section(result: Result, group: str) -> Section:
    """The group's table; the first table has the notes, and cost columns without numbers are left out.

    *place* and *against the one above* are those of paired comparisons (`headwater.evaluation.standing`).
    """
    found, first = standings(result, group), result.shown[0]
    lines = [standing.line for standing in found]
    cells = [(s.place_text, *_cells(s.line, result.shown), s.step_text) for s in found]
    names = ("place", "method", *result.shown, *COSTS, "against the one above")
    kept = [i for i, name in enumerate(names) if name not in COSTS or any(row[i] is not None for row in cells)]
    rows = tuple(tuple(row[i] for i in kept) for row in cells)
    note = " ".join(result.notes) if group == result.groups[0] else ""
    table = Table(group or result.title, tuple(names[i] for i in kept), rows, note)
    marks = [(line, line.metrics[first]) for line in lines]
    return Section(table, [_bar(line.method, mark) for line, mark in marks], first)


def _bar(label: str, mark: Estimate) -> tuple[str, float, float, float]:
    """A bar; the interval of a number that has none is a point."""
    ends = [mark.value if end is None else end for end in (mark.low, mark.high)]
    return label, mark.value, ends[0], ends[1]


def _cells(line: Line, shown: Sequence[str]) -> tuple[Cell, ...]:
    numbers = [str(line.metrics[name]) if name in line.metrics else None for name in shown]
    cost = line.cost
    return (line.method, *numbers, _seconds(cost.build_seconds), cost.row_bytes, _seconds(cost.query_seconds))


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.2g}")


def _figure(section: Section) -> Markup:
    if not section.bars:
        return Markup("")
    labels, values, low, high = zip(*section.bars, strict=True)
    figure = plots.bars(labels, values, low=low, high=high, axis=section.axis)
    return Markup(plots.svg(figure, description=f"{section.table.title}: {section.axis} by method, with intervals"))
