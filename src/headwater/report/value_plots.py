"""Figures of a values file: how values are distributed, what each provider's are, how fast the student learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.report import plots
from headwater.valuation.values import Values, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_GROUPS = 20
"""Providers drawn; the ones with most rows."""


def save_value_plots(values: Values, folder: str | Path, *, by: str | None = None) -> list[Path]:
    """Write `values.svg`, with `by` `values-by-COLUMN.svg`, and for a student `learning-curve.svg`."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    series = {"all rows": values.numbers()}
    made = []
    if by is not None:
        names = np.array(values.groups(by))
        groups = summarise(values, by=by)["groups"]
        shown = sorted(groups, key=lambda name: -groups[name]["rows"])[:MOST_GROUPS]
        series = {name: values.numbers()[names == name] for name in shown[:4]}
        made.append(plots.save(_bars(groups, shown), target / f"values-by-{_plain(by)}.svg", description=f"by {by}"))
    figure = plots.histogram(series, axis="value of a row (positive = it helps)")
    made.insert(0, plots.save(figure, target / "values.svg", description="distribution of values"))
    curve = values.about.get("notes", {}).get("learning curve")
    if curve:
        axis = values.about["notes"]["learning curve over"]
        made.append(
            plots.save(_curve(curve, axis), target / "learning-curve.svg", description="the student's learning")
        )
    return made


def _bars(groups: Mapping[str, Mapping[str, Any]], shown: Sequence[str]) -> Figure:
    labels = [f"{name} ({int(groups[name]['rows']):,})" for name in shown]
    mean, low, high = ([groups[name][key] for name in shown] for key in ("mean", "low", "high"))
    return plots.bars(labels, mean, low=low, high=high, axis="mean value of a row, 95 % interval over rows")


def _curve(points: Sequence[Sequence[int | float]], axis: str) -> Figure:
    x, y = zip(*points, strict=True)
    return plots.curves(x, {"student": y}, axes_names=(axis, "held-out Spearman with the teacher"))


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)
