"""How few bytes a row can take: quality against bytes, for narrower sketches, codes, and two stages.

    python benchmarks/small.py [--out runs/small] [--document small.md] [--only rise rapidin] [--models 32]

Every form of a method is measured on detection with anti-documents (Howdy, AP and P@50), separation (P@50) and LDS (two
domains). What a form keeps is its number over that of the method's full form, which is the first of its list; for LDS
and AP, of the part above chance. Models, banks and run files in the folder are used again, so an interrupted study
continues. `a=>b` are two stages: the codes choose a tenth of the rows, and full vectors order these.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.evaluation.result import Line, Result, read_result, write_result
from headwater.evaluation.runs import run_evaluation

FORMS: Mapping[str, Sequence[str]] = {
    "rise": (
        *("rise", "rise:code=int8", "rise:code=sign:16384", "rise:code=sign", "rise:code=sign:4096"),
        *("rise:code=sign:2048", "rise:preset=small", "rise:preset=small,code=sign:4096", "rise:code=sign=>rise"),
    ),
    "rapidin": (
        *("rapidin", "rapidin:code=int8", "rapidin:code=sign:65536", "rapidin:code=sign:16384", "rapidin:code=sign"),
        *("rapidin:code=sign:4096", "rapidin:preset=small", "rapidin:buckets=4096", "rapidin:code=sign=>rapidin"),
    ),
    "gradcos": (
        "gradcos",
        "gradcos:code=int8",
        "gradcos:code=sign:65536",
        "gradcos:code=sign:16384",
        "gradcos:code=sign",
    ),
    "less": ("less", "less:code=int8", "less:code=sign:16384", "less:code=sign"),
    "trackstar": ("trackstar", "trackstar:damping=1"),
    "logra": ("logra",),
    "rise-gram": ("rise-gram",),
}
TASKS: Mapping[str, tuple[Mapping[str, Any], Sequence[tuple[str, str, str, float]]]] = {
    "detection": (
        {"pool": "howdy", "rows": 1400, "queries": 20, "epochs": 8, "anti": True},
        (
            ("AP", "howdy, with anti-documents", "AP", 0.09),
            ("P@50", "howdy, with anti-documents", "P@50", 0.0),
        ),
    ),
    "separation": (
        {"rows": 400, "queries": 20, "pool": "two-domains"},
        (("separation P@50", "fine-tuned model (recall)", "P@50", 0.5),),
    ),
    "lds": ({"models": 32}, (("LDS", "", "LDS", 0.0),)),
}
"""Task, its settings, and what is shown: heading, group, metric, and its value by chance."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/small"))
    parser.add_argument("--document", type=Path)
    parser.add_argument("--only", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--models", type=int, default=32, help="retrainings for the LDS")
    given = parser.parse_args()
    text = "\n\n".join(study(name, given.tasks, given.out, given.models) for name in given.only) + "\n"
    print(text)
    if given.document:
        given.document.write_text(text, encoding="utf-8")


def study(name: str, tasks: Sequence[str], folder: Path, models: int) -> str:
    """The table of one method's forms."""
    results = {task: measured(task, name, folder, models) for task in tasks}
    shown = [(task, *column) for task in tasks for column in TASKS[task][1]]
    head = ["form", "bytes a row", *(column[1] for column in shown)]
    rows = [head, [":--"] + ["--:"] * (len(head) - 1)]
    full: dict[str, float] = {}
    for form in FORMS[name]:
        cells = []
        for task, heading, group, metric, chance in shown:
            line = line_of(results[task], form, group)
            value = line.metrics[metric].value
            best = full.setdefault(heading, value)
            share = (value - chance) / (best - chance) if best > chance else float("nan")
            cells.append(f"{value:.3f} ({share:.0%})")
        rows.append([f"`{form}`", f"{line_of(results[tasks[0]], form, shown[0][2]).cost.row_bytes:,}", *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def measured(task: str, name: str, folder: Path, models: int) -> Result:
    """The evaluation of all forms of a method, kept in the folder."""
    file = folder / "runs" / f"{task}-{name}.json"
    settings = {**TASKS[task][0], "methods": FORMS[name]} | ({"models": models} if task == "lds" else {})
    if file.exists():
        found = read_result(file)
        if tuple(found.settings["methods"]) == tuple(FORMS[name]):
            return found
    return read_result(write_result(file, run_evaluation(task, settings, folder)))


def line_of(result: Result, form: str, group: str) -> Line:
    """The line of a form in a group."""
    return next(line for line in result.lines if line.method == form and line.group == group)


if __name__ == "__main__":
    main()
