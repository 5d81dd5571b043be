"""`headwater demo`: index, trace and report, on a tiny model that the demo trains itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.console import emit_json, emit_table, say
from headwater.cli.options import Json, Made, with_groups
from headwater.cli.progress import progress

if TYPE_CHECKING:
    from headwater.api.demo import Demo


@with_groups
def demo(
    out: Annotated[Path, typer.Option(help="Folder for model, rows, index and report.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="The same seed and number of threads give the same numbers.")] = 0,
    as_json: Json = False,
) -> Made:
    """Plant a backdoor in a tiny model, trace its odd answers to the rows that taught them, and write a report.

    Example:  headwater demo --out runs/demo
    """
    from headwater.api.demo import METRICS, run_demo
    from headwater.report import Table, write_report

    with progress("making the rows", kept="run it again: it begins anew") as bar:
        result = run_demo(out, seed=seed, on_progress=bar.share)
    report = out / "report.html"
    rows = tuple((m.name, *(str(m.metrics[name]) for name in METRICS)) for m in result.measured)
    note = _note(result)
    table = Table("How well each way of scoring finds the planted rows", ("scores", *METRICS), rows, note)
    write_report(report, result.trace, title="headwater demo: who taught the model science fiction?", tables=[table])
    if as_json:
        emit_json("demo", {**result.summary(), "report": str(report)})
        return Made(out)
    emit_table(table.title, table.columns, table.rows)
    say(note)
    say(f"report: {report}")
    return Made(out)


def _note(result: Demo) -> str:
    return (
        f"{result.rows:,} rows, {100 * result.prevalence:.1f} % planted (where random should be). The backdoor fires "
        f"on {100 * result.attack_success:.0f} % of triggered questions it has not seen and on "
        f"{100 * result.false_alarms:.0f} % of clean ones; the answers where it fired are traced. Intervals: 95 %, "
        "Student's t over queries."
    )
