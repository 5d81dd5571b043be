"""The report of an unlearning run: the model's answers and losses before and after, and the weights of rows."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from headwater.core.files import write_text
from headwater.report import plots
from headwater.report.page import render, with_alignment
from headwater.report.tables import Cell, Table, cell_text, number_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from headwater.unlearning.account import Account

KINDS = {
    "forget": "Prompts of rows to forget",
    "retain": "Prompts of retain rows that were kept aside",
    "asked": "Prompts asked for this report",
}


_SHOWN_ABOVE = ("forget loss", "retain loss")
"""What the table of losses shows, and so the list of facts does not."""
_KEPT_ASIDE = "retain rows kept aside"
_NAMES = {"guard rows": _KEPT_ASIDE, "retain perplexity ratio": f"perplexity of {_KEPT_ASIDE}, after ÷ before"}


def write_unlearning_report(path: str | os.PathLike[str], account: Account) -> Path:
    """Write the page, all at once; raises `StoreError` if the file cannot be written."""
    return write_text(Path(path), render_unlearning_report(account))


def render_unlearning_report(account: Account) -> str:
    """The whole page. Every number has one name on it, and three significant digits."""
    about = account.summary
    adapter = f" with the adapter {about['adapter']}" if about.get("adapter") else ""
    return render(
        "unlearning.html.j2",
        title=f"What the model says before and after unlearning ({about['method']})",
        lead=f"{about['model']}{adapter}: {about['forget rows']} rows unlearned, outcome “{about['outcome']}”.",
        tables=with_alignment([*_answers(account), _numbers(account)]),
        figures=_figures(account),
        about={_NAMES.get(name, name): _fact(value) for name, value in about.items() if _is_listed(name, value)},
        warnings=about.get("warnings", []),
    )


def _is_listed(name: str, value: object) -> bool:
    return not isinstance(value, dict | list) and not name.startswith(_SHOWN_ABOVE)


def _fact(value: Any) -> str:
    return number_text(value, digits=3, padded=True) if isinstance(value, float) else cell_text(value)


def _answers(account: Account) -> list[Table]:
    groups = {title: [s for s in account.samples if s.kind == kind] for kind, title in KINDS.items()}
    return [
        Table(title, ("prompt", "before", "after"), tuple((s.prompt, s.before, s.after) for s in samples))
        for title, samples in groups.items()
        if samples
    ]


def _numbers(account: Account) -> Table:
    about = account.summary

    def line(label: str, name: str) -> tuple[Cell, ...]:
        return (label, _fact(about[f"{name} before"]), _fact(about[f"{name} after"]))

    rows = (line("rows to forget", "forget loss"), line(_KEPT_ASIDE, "retain loss"))
    target = _fact(about["forget loss of unseen rows (target)"])
    note = f"Unlearning is complete when the first line reaches the loss of unseen rows, {target}."
    return Table("Mean loss, nats a token", ("rows", "before", "after"), rows, note)


def _figures(account: Account) -> list[Markup]:
    figures = []
    if len(account.readings) > 1:
        steps, forget, guard = zip(*account.readings, strict=True)
        losses = {"rows to forget": forget, _KEPT_ASIDE: guard}
        drawn = plots.curves(steps, losses, axes_names=("step", "loss, nats a token"))
        figures.append(_drawn(drawn, "Losses while unlearning"))
    for group, rows in account.weights.items():
        if rows:
            figures.append(_drawn(_weights(group, rows), f"Weights of {group} rows"))
    return figures


def _weights(group: str, rows: Sequence[tuple[float, float, float]]) -> Figure:
    """The distributions of a group's two views and of its log weights."""
    to_forget, to_retain, weights = zip(*rows, strict=True)
    shown = {
        "influence on forget rows": _scaled(to_forget),
        "influence on retain rows": _scaled(to_retain),
        "log weight": [math.log(max(w, 1e-6)) for w in weights],
    }
    return plots.histogram(shown, bins=30, axis=f"{group} rows: views in standard deviations, and log weight")


def _scaled(values: Sequence[float]) -> list[float]:
    """The values in standard deviations from their mean."""
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values)) or 1.0
    return [(v - mean) / spread for v in values]


def _drawn(figure: Figure, description: str) -> Markup:
    return Markup(plots.svg(figure, description=description))
