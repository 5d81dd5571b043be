"""Weights of forget and retain rows: made from influence, and kept in a file that people may read and edit.

A file holds one entry a row: its id, group (`forget` or `retain`), weight, score, z and a digest of its text. The
digest makes sure that weights are never applied to other rows. `.json` is for editing by hand, `.parquet` for programs
that read Arrow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headwater.core.errors import DataError, MismatchError, UsageError
from headwater.core.files import whole_file, write_text
from headwater.core.fingerprints import digest
from headwater.data.rows import Row
from headwater.unlearning import mapping
from headwater.unlearning.views import Influence, Views, make_views

FORMAT = "headwater weights 1"
PUBLISHED_K = 40


@dataclass(frozen=True)
class RowWeight:
    """One row's weight.

    `views` are its influence on forget rows and on retain rows; `score` is S of its group, `z` its robust z-score. All
    three are None for uniform weights. `digest` is that of the row's text.
    """

    id: str
    group: str
    weight: float
    score: float | None
    z: float | None
    views: tuple[float, float] | None
    digest: str


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
        rows = tuple(replace(row, weight=next(permuted[row.group])) for row in self.rows)
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
    entries = tuple(RowWeight(row.id, group, 1.0, None, None, None, row_digest(row)) for group, row in rows)
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


def save_weights(weights: Weights, path: str | Path) -> Path:
    """Write the weights as `.json` or `.parquet`.

    Raises:
        UsageError: another ending.
    """
    target = Path(path)
    records = [asdict(row) for row in weights.rows]
    if target.suffix == ".json":
        head = json.dumps({"format": FORMAT, "about": weights.about}, ensure_ascii=False, indent=1, default=str)
        lines = ",\n".join("  " + json.dumps(record, ensure_ascii=False) for record in records)
        write_text(target, f'{head[:-2]},\n "rows": [\n{lines}\n ]\n}}\n')
    elif target.suffix == ".parquet":
        about = {"format": FORMAT, "about": json.dumps(weights.about, default=str)}
        with whole_file(target) as part:
            pq.write_table(pa.Table.from_pylist(records, schema=_SCHEMA).replace_schema_metadata(about), part)
    else:
        raise UsageError(f"weights are written as .json or .parquet, not '{target.suffix}'", where=str(target))
    return target


def load_weights(path: str | Path, forget: Sequence[Row], retain: Sequence[Row]) -> Weights:
    """Read weights from a file, in the order of these rows; you may have edited the weights of the entries.

    Raises:
        DataError: no such file, not a weights file, a row with two weights, a weight that is not a finite number ≥ 0,
            or a group in which every weight is 0.
        MismatchError: the file is of other rows; names them.
    """
    source = Path(path)
    about, records = _read(source)
    found = {(record["group"], record["id"]): record for record in records}
    if len(found) != len(records):
        raise DataError("a row has two weights", where=str(source), remedy="keep one entry for each row")
    wanted = [(group, row) for group, of in (("forget", forget), ("retain", retain)) for row in of]
    _require_same(wanted, found, str(source))
    rows = tuple(_entry(found[group, row.id], str(source)) for group, row in wanted)
    for group in ("forget", "retain"):
        if not any(row.weight for row in rows if row.group == group) and any(row.group == group for row in rows):
            raise DataError(f"every {group} row has weight 0", where=str(source), remedy="give one a weight above 0")
    return Weights(rows, about)


_SCHEMA = pa.schema(
    {
        **dict.fromkeys(("id", "group"), pa.string()),
        **dict.fromkeys(("weight", "score", "z"), pa.float64()),
        **{"views": pa.list_(pa.float64()), "digest": pa.string()},
    }
)


def _entries(
    views: Views, mapped: Mapping[str, mapping.Mapped], rows: Mapping[str, Sequence[Row]]
) -> tuple[RowWeight, ...]:
    entries = []
    for group, *numbers in (("forget", views.ff, views.fr, views.forget), ("retain", views.rf, views.rr, views.retain)):
        for i, row in enumerate(rows[group]):
            to_forget, to_retain, score = (float(column[i]) for column in numbers)
            weight, z = float(mapped[group].weights[i]), float(mapped[group].z[i])
            entries.append(RowWeight(row.id, group, weight, score, z, (to_forget, to_retain), row_digest(row)))
    return tuple(entries)


def _read(source: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    remedy = "name a weights file that `headwater unlearn` wrote"
    try:
        if source.suffix == ".parquet":
            table = pq.read_table(source)
            return json.loads((table.schema.metadata or {}).get(b"about", b"{}")), table.to_pylist()
        raw = json.loads(source.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise DataError("not a weights file", where=str(source), remedy=remedy)
        return raw["about"], list(raw["rows"])
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise DataError(f"weights cannot be read: {error}", where=str(source), remedy=remedy) from error


def _require_same(wanted: list[tuple[str, Row]], found: Mapping[tuple[str, str], Any], where: str) -> None:
    """Raise `MismatchError` unless the file has exactly these rows, with these texts."""
    keys = {(group, row.id) for group, row in wanted}
    faults = [
        f"{group} row '{row.id}' " + ("has another text" if (group, row.id) in found else "has no weight")
        for group, row in wanted
        if found.get((group, row.id), {}).get("digest") != row_digest(row)
    ]
    faults += [f"{group} row '{name}' is not among the rows" for group, name in found if (group, name) not in keys]
    if faults:
        shown = "; ".join(faults[:3]) + ("; ..." if len(faults) > 3 else "")
        what = f"weights of other rows, {len(faults)} differences: {shown}"
        raise MismatchError(what, fields=tuple(faults), where=where, remedy="make weights for these rows")


def _entry(record: Mapping[str, Any], where: str) -> RowWeight:
    weight = record.get("weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        what = f"weight {weight!r} of row '{record['id']}' is not a finite number of 0 or more"
        raise DataError(what, where=where, remedy="correct it in the file")
    views = record.get("views")
    pair = None if views is None else (float(views[0]), float(views[1]))
    score, z = record.get("score"), record.get("z")
    return RowWeight(record["id"], record["group"], float(weight), score, z, pair, record["digest"])
