"""Figures of values, learning curves and trade-offs, as inline SVG or PNG; the same numbers give the same bytes.

Each function returns a matplotlib `Figure`; `svg` and `save` write it. matplotlib is imported when the first figure is
drawn. The colours are those of Okabe and Ito (2008), which people with any common colour blindness can distinguish. In
SVG, lines and text of the axes take the colour of the page's text, so that a figure can be read on a dark page too.
"""

from __future__ import annotations

import html
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headwater.core.errors import DataError, UsageError
from headwater.core.files import whole_file, write_text
from headwater.valuation.values import Values, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_GROUPS = 20
"""Most groups that a figure shows; they are the ones with the most rows."""


def save_value_plots(values: Values, folder: str | Path, *, by: str | None = None) -> list[Path]:
    """Write `values.svg`, with `by` also `values-by-COLUMN.svg`, and for values of a student `learning-curve.svg`."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    series = {"all rows": values.numbers()}
    made = []
    if by is not None:
        names = np.array(values.groups(by))
        groups = summarise(values, by=by)["groups"]
        shown = sorted(groups, key=lambda name: -groups[name]["rows"])[:MOST_GROUPS]
        series = {name: values.numbers()[names == name] for name in shown[:4]}
        plain = "".join(c if c.isalnum() else "-" for c in by)
        made.append(save(_bars(groups, shown), target / f"values-by-{plain}.svg", description=f"by {by}"))
    figure = histogram(series, axis="value of a row (positive = it helps)")
    made.insert(0, save(figure, target / "values.svg", description="distribution of values"))
    curve = values.about.get("notes", {}).get("learning curve")
    if curve:
        x, y = zip(*curve, strict=True)
        axis = values.about["notes"]["learning curve over"]
        figure = curves(x, {"student": y}, axes_names=(axis, "held-out Spearman with the teacher"))
        made.append(save(figure, target / "learning-curve.svg", description="the student's learning"))
    return made


def _bars(groups: Mapping[str, Mapping[str, Any]], shown: Sequence[str]) -> Figure:
    labels = [f"{name} ({int(groups[name]['rows']):,})" for name in shown]
    mean, low, high = ([groups[name][key] for name in shown] for key in ("mean", "low", "high"))
    return bars(labels, mean, low=low, high=high, axis="mean value of a row, 95 % interval over rows")


def save_selection_curves(measured: str | Path, out: str | Path) -> Path:
    """Draw the learning curves in a file that `run_selection` wrote."""
    raw = json.loads(Path(measured).read_text(encoding="utf-8"))
    arms = {name: np.array(losses) for name, losses in raw["arms"].items()}
    figure = curves(
        raw["steps"],
        {name: losses.mean(axis=0) for name, losses in arms.items()},
        bands={name: (losses.min(axis=0), losses.max(axis=0)) for name, losses in arms.items()},
        axes_names=("training step", "held-out target loss, nats a token"),
    )
    return save(figure, out, description="held-out target loss of every arm while it trains")


PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
_INK = "#454b54"
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "headwater",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a price in dollars is not a formula
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}

Numbers = Sequence[int | float] | NDArray[Any]
"""A column of numbers, one a point."""
Series = Mapping[str, Numbers]
"""Columns of numbers by their names in the legend."""


def bars(
    labels: Sequence[str], values: Numbers, *, low: Numbers | None = None, high: Numbers | None = None, axis: str = ""
) -> Figure:
    """Horizontal bars, the first on top; `low` and `high` are the ends of the intervals, in the unit of `values`."""
    ends = {"low": values if low is None else low, "high": values if high is None else high}
    _same_length(labels=labels, values=values, **ends)
    with _axes(axis, "", height=0.9 + 0.32 * len(labels)) as (figure, axes):
        places = range(len(labels))
        axes.barh(places, values, color=PALETTE[0], height=0.65)
        for place, start, end in [] if low is None or high is None else zip(places, low, high, strict=True):
            axes.plot([start, end], [place, place], color=_INK, linewidth=1.4, marker="|", markersize=6)
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        axes.axvline(0, color=_INK, linewidth=0.8)
    return figure


def histogram(series: Series, *, bins: int = 40, axis: str = "") -> Figure:
    """Distributions over common bins; each is a share of its own series, so that groups of any size can be compared."""
    edges = np.histogram_bin_edges(np.concatenate([np.asarray(v, dtype=float) for v in series.values()]), bins)
    with _axes(axis, "share of rows") as (figure, axes):
        for (name, values), colour in zip(series.items(), _colours(len(series)), strict=True):
            share = np.full(len(values), 1 / max(len(values), 1))
            axes.hist(values, edges, weights=share, label=name, color=colour, alpha=0.25)
            axes.hist(values, edges, weights=share, color=colour, histtype="step", linewidth=1.5)
        _legend(axes, series)
    return figure


def curves(
    x: Numbers,
    series: Series,
    *,
    bands: Mapping[str, tuple[Numbers, Numbers]] | None = None,
    axes_names: tuple[str, str] = ("", ""),
) -> Figure:
    """Lines over `x`; `bands` gives the low and high ends of a shaded band around a series."""
    with _axes(*axes_names) as (figure, axes):
        for number, (name, values) in enumerate(series.items()):
            _same_length(x=x, values=values)
            colour, style = _colours(number + 1)[number], ("-", "--", "-.", ":")[number % 4]
            axes.plot(x, values, style, label=name, color=colour, marker="o", markersize=3, linewidth=1.6)
            if bands and name in bands:
                axes.fill_between(x, *bands[name], color=colour, alpha=0.18, linewidth=0)
        _legend(axes, series)
    return figure


def tradeoff(
    points: Mapping[str, tuple[int | float, int | float]], *, axes_names: tuple[str, str], best: str = ""
) -> Figure:
    """One labelled point a name, at (x, y); `best` is a note that says which corner is the best."""
    with _axes(*axes_names) as (figure, axes):
        for (name, (x, y)), colour in zip(points.items(), _colours(len(points)), strict=True):
            axes.scatter([x], [y], color=colour, s=45, zorder=3)
            axes.annotate(name, (x, y), xytext=(6, 4), textcoords="offset points", color=_INK)
        axes.margins(0.15)
        axes.set_title(best, loc="right", fontsize=9, color=_INK)
    return figure


def svg(figure: Figure, *, description: str) -> str:
    """An `<svg>` element for a page; `description` is what a screen reader reads out."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", buffer.getvalue()[buffer.getvalue().index("<svg") :], flags=re.S)
    name = html.escape(description, quote=True)
    return text.replace(_INK, "currentColor").replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def save(figure: Figure, path: str | os.PathLike[str], *, description: str = "") -> Path:
    """Write the figure as `.svg` or `.png` (160 dots an inch, white background); `UsageError` for another ending."""
    import matplotlib as mpl

    target = Path(path)
    if target.suffix == ".svg":
        write_text(target, svg(figure, description=description))
    elif target.suffix == ".png":
        with mpl.rc_context(_STYLE), whole_file(target) as part:
            figure.savefig(part, format="png", dpi=160, metadata={"Software": None})
    else:
        raise UsageError(f"figures are written as .svg or .png, not '{target.suffix}'", where=str(target))
    return target


@contextmanager
def _axes(x: str, y: str, *, height: float = 3.6) -> Iterator[tuple[Figure, Any]]:
    """A new figure and its axes, drawn in our style; matplotlib's global state stays as it is."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        yield figure, axes


def _colours(count: int) -> list[str]:
    return [PALETTE[number % len(PALETTE)] for number in range(count)]


def _legend(axes: Any, series: Series) -> None:
    if len(series) > 1:
        axes.legend()


def _same_length(**columns: Sequence[Any] | NDArray[Any]) -> None:
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"columns of different lengths: {sizes}", where="plot", remedy="give one number a point")
