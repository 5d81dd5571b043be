"""Weights of forget and retain rows: made from influence, and why a row got its weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from headwater.core.fingerprints import digest
from headwater.data.rows import Row
from headwater.unlearning import mapping
from headwater.unlearning.views import Influence, Views, make_views

PUBLISHED_K = 40


@dataclass(frozen=True)
class RowWeight:
    """One row's weight.

    `views` are its influence on forget rows and on retain rows; `score` is S of its group, `z` its robust z-score. All
    three are None for uniform weights. `digest` is that of the row's text, `why` a sentence for people.
    """

    id: str
    group: str
    weight: float
    score: float | None
    z: float | None
    views: tuple[float, float] | None
    digest: str
    why: str = ""


@dataclass(frozen=True)
class Weights:
    """Weights of all rows, forget rows first; `about` says how they were made, JSON-ready."""

    rows: tuple[RowWeight, ...]
    about: Mapping[str, Any]

    def of(self, group: str) -> list[float]:
        """The weights of one group, in order."""
        return [row.weight for row in self.rows if row.group == group]

    def shuffled(self, seed: int) -> Weights:
        """The same weights in random order within each group: a control that shows whether influence matters."""
        rng = np.random.default_rng(seed)
        permuted = {group: iter(rng.permutation(self.of(group)).tolist()) for group in ("forget", "retain")}
        why = "shuffled: the weight of another row of its group, as a control"
        rows = tuple(replace(row, weight=next(permuted[row.group]), why=why) for row in self.rows)
        return Weights(rows, {**self.about, "shuffled": seed})


def influence_weights(
    influence: Influence,
    forget: Sequence[Row],
    retain: Sequence[Row],
    *,
    compat: bool = False,
    mappings: tuple[mapping.Mapping, mapping.Mapping] = (mapping.FORGET, mapping.RETAIN),
) -> Weights:
    """RapidUn's weights; with `compat` as in the published code (k = 40, absolute floor, mean after the clip)."""
    views = make_views(influence, k=PUBLISHED_K, exclude_self=False) if compat else make_views(influence)
    of_forget, of_retain = (replace(m, compat=compat) for m in mappings)
    mapped = {
        "forget": mapping.map_scores(views.forget, of_forget),
        "retain": mapping.map_scores(views.retain, of_retain),
    }
    rows = _entries(views, mapped, {"forget": forget, "retain": retain})
    about = {
        "mapping": {"forget": asdict(of_forget), "retain": asdict(of_retain)},
        "diagnostics": {name: diagnostics(m) for name, m in mapped.items()},
    }
    return Weights(rows, about)


def uniform_weights(forget: Sequence[Row], retain: Sequence[Row]) -> Weights:
    """Weight 1 for every row."""
    rows = [(group, row) for group, of in (("forget", forget), ("retain", retain)) for row in of]
    why = "uniform: every row weighs the same"
    entries = tuple(RowWeight(row.id, group, 1.0, None, None, None, row_digest(row), why) for group, row in rows)
    return Weights(entries, {"mapping": "uniform"})


def diagnostics(mapped: mapping.Mapped) -> dict[str, float | int]:
    """A readable summary of a group's weights: how many lie at the bounds, their spread, the effective rows."""
    w = mapped.weights
    return {
        "rows": len(w),
        "at low bound": mapped.at_low,
        "at high bound": mapped.at_high,
        "lowest": float(w.min()),
        "highest": float(w.max()),
        "mean": float(w.mean()),
        "standard deviation": float(w.std()),
        "effective rows": mapped.effective_rows,
        "scale of scores": mapped.scale,
    }


def row_digest(row: Row) -> str:
    """Digest of a row's text; rows with the same text and other ids have the same digest."""
    return digest({**row.fields(), "messages": [dict(m) for m in row.messages or ()]})


def _entries(
    views: Views, mapped: Mapping[str, mapping.Mapped], rows: Mapping[str, Sequence[Row]]
) -> tuple[RowWeight, ...]:
    entries = []
    for group, *numbers in (("forget", views.ff, views.fr, views.forget), ("retain", views.rf, views.rr, views.retain)):
        for i, row in enumerate(rows[group]):
            to_forget, to_retain, score = (float(column[i]) for column in numbers)
            weight, z = float(mapped[group].weights[i]), float(mapped[group].z[i])
            pair = (to_forget, to_retain)
            entries.append(RowWeight(row.id, group, weight, score, z, pair, row_digest(row), reason(group, pair, z)))
    return tuple(entries)


TYPICAL = 1.0
"""A row whose robust z-score is nearer to 0 than this is like the others of its group."""


def reason(group: str, views: tuple[float, float], z: float) -> str:
    """Why a row weighs what it weighs, in a sentence: which group it is nearer to, and how it stands in its own."""
    to_forget, to_retain = views
    other = "retain" if group == "forget" else "forget"
    own, away = (to_forget, to_retain) if group == "forget" else (to_retain, to_forget)
    numbers = f"influence {own:.3g} on {group} rows, {away:.3g} on {other} rows"
    if abs(z) < TYPICAL:
        return f"like most {group} rows: {numbers}"
    if z > 0:
        return f"heavier, because it drives {group} rows more than most {group} rows do: {numbers}"
    mistaken = f", so it may be a {other} row by mistake" if own <= away else ""
    return f"lighter, because it drives {group} rows less than most {group} rows do{mistaken}: {numbers}"
