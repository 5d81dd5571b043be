"""How few bytes a row can take: quality against bytes, for narrower sketches, codes, factors, and two stages.

    python benchmarks/small.py [--out runs/small] [--document small.md] [--figure small.svg] [--only rise rapidin]

Every form of a method is measured on detection with anti-documents (the backdoor, and altered facts), separation and
LDS (two domains). `--tasks removal` measures the forms of `RETRAINED` alone, because it trains a model for each query
of each form. What a form keeps is its number over that of the method's full form, which is the first of its list, of
the part above chance, with a 95 % interval over the same queries. Models, banks and run files in the folder are used
again: an interrupted study continues, and a new form is measured without measuring the others again. `a=>b` are two
stages: the codes choose a tenth of the rows, and full vectors order these.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core.statistics import crossed_interval
from headwater.evaluation.result import Line, Result, read_result, write_result
from headwater.evaluation.runs import run_evaluation
from headwater.report.plots import curves, save


def codes(name: str, *sizes: int, kinds: Sequence[str] = ("sign", "int2", "int4"), also: str = "") -> Iterator[str]:
    """The method with each kind of code in each size, in bytes."""
    for size in sizes:
        yield from (f"{name}:{also}code={kind}:{8 * size}" for kind in kinds)


FORMS: Mapping[str, Sequence[str]] = {
    "rise": (
        *("rise:preset=full", "rise:preset=full,code=int8", "rise:preset=full,code=int4:131072"),
        *codes("rise", 8192, kinds=["int2"], also="preset=full,"),
        *codes("rise", 4096, kinds=["sign", "int2"], also="preset=full,"),
        *codes("rise", 2048, 1024, also="preset=full,"),
        *codes("rise", 512, 256, kinds=["sign"], also="preset=full,"),
        *("rise:width_r=64,width_h=64,width_g=32,code=none", "rise:width_r=32,width_h=32,width_g=16,code=none"),
        *codes("rise", 1024, kinds=["sign", "int2"], also="width_r=64,width_h=64,width_g=32,"),
        *("rise:preset=small,code=none", "rise:preset=small,code=sign:4096"),
        *("rise:preset=full,code=sign=>rise:preset=full", "rise:preset=full,code=sign:2048=>rise:preset=full"),
    ),
    "rapidin": (
        *("rapidin:preset=full", "rapidin:preset=full,code=int8"),
        *codes("rapidin", 8192, 4096, 2048, 1024, 512, kinds=["sign"], also="preset=full,"),
        *codes("rapidin", 2048, kinds=["int2", "int4"], also="preset=full,"),
        *("rapidin:preset=small,code=none", "rapidin:buckets=4096,code=none", "rapidin:buckets=1024,code=none"),
        *("rapidin:sketch=two-sided,code=none", "rapidin:sketch=two-sided,code=factors"),
        *codes("rapidin", 2048, kinds=["sign"], also="sketch=two-sided,"),
        "rapidin:preset=full,code=sign=>rapidin:preset=full",
    ),
    "logra": (
        *("logra:preset=full", "logra:preset=full,code=int8", "logra:preset=full,code=factors"),
        *("logra:preset=full,code=factors:2", "logra:rank=32,code=none", "logra:rank=32,code=factors"),
        *codes("logra", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
        *("logra:preset=full,code=sign", "logra:rank=8,code=none"),
    ),
    "gradcos": (
        "gradcos:preset=full",
        *codes("gradcos", 8192, 4096, 2048, 1024, kinds=["sign"], also="preset=full,"),
        *("gradcos:preset=full,code=int2:16384", "gradcos:buckets=1024,code=none"),
    ),
    "trackstar": (
        *("trackstar:preset=full", "trackstar:preset=full,code=int8", "trackstar:preset=full,code=factors"),
        *codes("trackstar", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
        "trackstar:preset=full,code=sign",
    ),
    "less": (
        "less:preset=full",
        *codes("less", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
        *("less:preset=full,code=sign", "less:dim=65536,code=sign:16384"),
        *("less:preset=full,code=int8", "less:preset=full,code=sign:32768", "less:preset=full,code=int4:32768"),
    ),
    "trak": (
        *("trak:preset=full", "trak:preset=full,code=int8"),
        *codes("trak", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
        "trak:preset=full,code=int4:16352",
    ),
    "ekfac-cos": (
        *("ekfac-cos:preset=full", "ekfac-cos:code=sign:65536", "ekfac-cos:code=sign:32768", "ekfac-cos"),
        *("ekfac-cos:code=int2:16384", "ekfac-cos:code=sign:8192"),
    ),
    "concord": ("concord:preset=full", "concord:code=sign:34816", "concord", "concord:code=sign:8704"),
    "rise-gram": (
        *("rise-gram:preset=full", "rise-gram:preset=full,code=int8"),
        *codes("rise-gram", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
        *("rise-gram:preset=full,code=sign", "rise-gram:width=26,code=none"),
    ),
    "relatif": (
        *("relatif:preset=full", "relatif:preset=full,code=int8"),
        *codes("relatif", 2048, kinds=["sign", "int2", "int4"], also="preset=full,"),
    ),
    "graddot": (
        "graddot:preset=full",
        *codes("graddot", 8192, 4096, 2048, 1024, kinds=["sign"], also="preset=full,"),
        *codes("graddot", 16384, kinds=["sign", "int2"], also="preset=full,"),
        *("graddot:preset=full,code=int4:262144", "graddot:preset=full,code=int8"),
    ),
    "tracin": ("tracin:preset=full", *codes("tracin", 8192, 4096, 2048, 1024, kinds=["sign"], also="preset=full,")),
}
"""Every method's forms, the full one first."""

RETRAINED: Mapping[str, Sequence[str]] = {
    "rise": ("rise:preset=full", "rise", "rise:preset=full,code=sign:2048", "rise:preset=small,code=none"),
    "rapidin": ("rapidin:preset=full", "rapidin", "rapidin:preset=full,code=sign:16384"),
    "gradcos": ("gradcos:preset=full", "gradcos", "gradcos:preset=full,code=sign:16384"),
    "logra": ("logra:preset=full", "logra", "logra:preset=full,code=factors"),
    "rise-gram": ("rise-gram:preset=full", "rise-gram", "rise-gram:preset=full,code=sign"),
}
"""The forms whose highest rows are taken out to train again: the full one, the default, and smaller ones."""

Shown = tuple[str, str, str, float]
"""A column's heading, its group and metric in the result, and the metric's value by chance."""

TASKS: Mapping[str, tuple[str, Mapping[str, Any], Sequence[Shown]]] = {
    "backdoor": (
        "detection",
        {"pool": "howdy", "rows": 1400, "queries": 40, "epochs": 8, "anti": True},
        (
            ("backdoor AP", "howdy, with anti-documents", "AP", 0.09),
            ("backdoor P@50", "howdy, with anti-documents", "P@50", 0.09),
        ),
    ),
    "facts": (
        "detection",
        {"pool": "entity-swap", "rows": 1400, "queries": 40, "anti": True},
        (("altered words AP", "entity swap, wrong words only, with anti-documents", "AP", 0.01),),
    ),
    "separation": (
        "separation",
        {"rows": 400, "queries": 40, "pool": "two-domains"},
        (("separation AP", "fine-tuned model (recall)", "AP", 0.505),),
    ),
    "lds": ("lds", {"models": 64}, (("LDS", "", "LDS", 0.0),)),
    "removal": ("removal", {"queries": 16, "k": 32, "draws": 8}, (("removal", "", "rise", 0.0),)),
}
"""The evaluation behind each task, its settings, and what is shown."""


@dataclass(frozen=True)
class Cell:
    """A form's number, and the share of the full form's that it keeps, with an interval.

    The share is NaN where the full form itself is not certainly better than chance, so that there is nothing to keep.
    """

    value: float
    kept: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.kept):
            return "–"
        return f"{100 * self.kept:.0f} [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/small"))
    parser.add_argument("--document", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--only", nargs="+", choices=FORMS, default=list(FORMS))
    usual = [name for name in TASKS if name != "removal"]
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=usual, help="removal stands alone")
    parser.add_argument("--forms", nargs="+", help="these forms of one method, the full one first")
    given = parser.parse_args()
    if "removal" in given.tasks and len(given.tasks) > 1:
        parser.error("removal is measured on fewer forms than other tasks: give it alone")
    of_method = RETRAINED if given.tasks == ["removal"] else FORMS
    named = {name: of_method[name] for name in given.only if name in of_method}
    forms = {given.forms[0]: given.forms} if given.forms else named
    tables, drawn = [], {}
    for name, some in forms.items():
        rows = study(name, some, given.tasks, given.out)
        tables.append(as_markdown(rows, given.tasks))
        drawn[name] = rows
        print(tables[-1], flush=True)
    if given.document:
        given.document.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    if given.figure:
        draw(drawn, given.figure)


Row = tuple[str, int, list[Cell]]
"""A form, its bytes a row, and its cells."""


def study(name: str, forms: Sequence[str], tasks: Sequence[str], folder: Path) -> list[Row]:
    """All forms of one method."""
    results = {task: measured(task, name, forms, folder) for task in tasks}
    columns = [(task, *column) for task in tasks for column in TASKS[task][2]]
    full = {heading: line_of(results[task], forms[0], group) for task, heading, group, _, _ in columns}
    rows = []
    for form in forms:
        cells = [
            kept(line_of(results[task], form, group), full[heading], metric, chance)
            for task, heading, group, metric, chance in columns
        ]
        cost = line_of(results[tasks[0]], form, columns[0][2]).cost
        rows.append((form, cost.row_bytes or 0, cells))
    return rows


def kept(line: Line, full: Line, metric: str, chance: float) -> Cell:
    """The line's number beside the full form's, cell by cell of their tables `[models or draws, queries]`."""
    value, best = line.metrics[metric].value, full.metrics[metric].value
    if (full.metrics[metric].low or best) <= chance:
        return Cell(value, *[float("nan")] * 3)
    lost = np.atleast_2d(line.samples[metric]) - np.atleast_2d(full.samples[metric])
    low, high = ((best - chance + end) / (best - chance) for end in crossed_interval(lost))
    return Cell(value, (value - chance) / (best - chance), low, high)


def measured(task: str, name: str, forms: Sequence[str], folder: Path) -> Result:
    """The evaluation of all forms of a method; the forms that the run file does not hold yet are measured and added."""
    evaluation, settings, _ = TASKS[task]
    file = folder / "runs" / f"{task}-{name.replace(':', '-')}.json"
    found = read_result(file) if file.exists() else None
    if found and any(found.settings[key] != value for key, value in settings.items()):
        found = None
    there = tuple(found.settings["methods"]) if found else ()
    missing = tuple(form for form in forms if form not in there)
    if not missing:
        return found
    made = run_evaluation(evaluation, {**settings, "methods": missing}, folder)
    if found:
        lines = [line for line in made.lines if line.method in missing]
        made = replace(made, lines=(*found.lines, *lines), settings={**made.settings, "methods": [*there, *missing]})
    return read_result(write_result(file, made))


def line_of(result: Result, form: str, group: str) -> Line:
    """The line of a form in a group."""
    return next(line for line in result.lines if line.method == form and line.group == group)


def as_markdown(rows: Sequence[Row], tasks: Sequence[str]) -> str:
    """The table of one method's forms: the numbers of the full form, then what per cent of them the others keep."""
    head = ["form", "bytes a row", *(column[0] for task in tasks for column in TASKS[task][2])]
    lines = [head, [":--"] + ["--:"] * (len(head) - 1)]
    for number, (form, size, cells) in enumerate(rows):
        shown = [str(cell) if number else f"{cell.value:.3f}" for cell in cells]
        lines.append([f"`{form}`", f"{size:,}", *shown])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(studies: Mapping[str, Sequence[Row]], file: Path) -> None:
    """The least share kept over the tasks, by bytes: for each method, of the best form of so many bytes or fewer."""
    sizes = sorted({size for rows in studies.values() for form, size, _ in rows if "=>" not in form})
    series = {}
    for name, rows in studies.items():
        best = [
            max(
                (np.nanmin([c.kept for c in cells]) for f, s, cells in rows if s <= size and "=>" not in f),
                default=np.nan,
            )
            for size in sizes
        ]
        series[name] = [min(value, 1.0) for value in best]
    figure = curves(sizes, series, axes_names=("bytes a row", "share kept on the worst task"))
    figure.axes[0].set_xscale("log", base=2)
    ticks = {256: "256", 1024: "1 KiB", 4096: "4 KiB", 16384: "16 KiB", 65536: "64 KiB"}
    figure.axes[0].set_xticks(list(ticks), list(ticks.values()))
    save(figure, file, description="Quality kept by bytes a row, one line a method")


if __name__ == "__main__":
    main()
