"""Weights files: a table with one line a row, to read, edit and give back.

Its columns are id, group (`forget` or `retain`), weight, why, score, z, the two views, and a digest of the row's text.
The digest makes sure that weights are never applied to other rows. `.csv` opens in any spreadsheet, `.jsonl` and
`.parquet` in programs. Files of earlier versions (`.json`) are read too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from headwater.core.errors import DataError, MismatchError, UsageError
from headwater.core.files import whole_file, write_text
from headwater.data.rows import Row
from headwater.unlearning.weights import RowWeight, Weights, row_digest

EARLIER = "headwater weights 1"
"""The format that files of earlier versions name."""
ENDINGS = (".csv", ".jsonl", ".parquet")
VIEWS = ("influence on forget rows", "influence on retain rows")


def save_weights(weights: Weights, path: str | Path) -> Path:
    """Write the weights as a table: `.csv`, `.jsonl` or `.parquet`.

    Raises:
        UsageError: another ending.
    """
    target, records = Path(path), [_record(row) for row in weights.rows]
    if target.suffix not in ENDINGS:
        what = f"weights are written as {', '.join(ENDINGS)}, not '{target.suffix}'"
        raise UsageError(what, where=str(target), remedy="give the file one of these endings")
    if target.suffix == ".jsonl":
        return write_text(target, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    table = pa.Table.from_pylist(records, schema=_SCHEMA)
    with whole_file(target) as part:
        if target.suffix == ".csv":
            pacsv.write_csv(table, part)
        else:
            pq.write_table(table, part)
    return target


def load_weights(path: str | Path, forget: Sequence[Row], retain: Sequence[Row]) -> Weights:
    """Read weights from a file, in the order of these rows; you may have edited the weights of the entries.

    Raises:
        DataError: no such file, not a weights file, a row with two weights, a weight that is not a finite number ≥ 0,
            or a group in which every weight is 0.
        MismatchError: the file is of other rows; names them.
    """
    source = Path(path)
    records = _read(source)
    found = {(record["group"], record["id"]): record for record in records}
    if len(found) != len(records):
        raise DataError("a row has two weights", where=str(source), remedy="keep one entry for each row")
    wanted = [(group, row) for group, of in (("forget", forget), ("retain", retain)) for row in of]
    _require_same(wanted, found, str(source))
    rows = tuple(_entry(found[group, row.id], str(source)) for group, row in wanted)
    for group in ("forget", "retain"):
        if not any(row.weight for row in rows if row.group == group) and any(row.group == group for row in rows):
            raise DataError(f"every {group} row has weight 0", where=str(source), remedy="give one a weight above 0")
    return Weights(rows, {"mapping": f"read from {source.name}"})


_SCHEMA = pa.schema(
    {
        **dict.fromkeys(("id", "group"), pa.string()),
        "weight": pa.float64(),
        "why": pa.string(),
        **dict.fromkeys(("score", "z", *VIEWS), pa.float64()),
        "digest": pa.string(),
    }
)


def _record(row: RowWeight) -> dict[str, Any]:
    to_forget, to_retain = row.views or (None, None)
    return {
        **{name: getattr(row, name) for name in ("id", "group", "weight", "why", "score", "z")},
        **dict(zip(VIEWS, (to_forget, to_retain), strict=True)),
        "digest": row.digest,
    }


def _read(source: Path) -> list[dict[str, Any]]:
    remedy = "name a weights file that `headwater unlearn` wrote"
    try:
        records = list(_records(source))
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise DataError(f"weights cannot be read: {error}", where=str(source), remedy=remedy) from error
    needed = {"id", "group", "weight", "digest"}
    missing = next((sorted(needed - record.keys()) for record in records if needed - record.keys()), None)
    if missing or not records:
        what = f"not a weights file: no column '{missing[0]}'" if missing else "not a weights file: it has no rows"
        raise DataError(what, where=str(source), remedy=remedy)
    return records


def _records(source: Path) -> Iterable[dict[str, Any]]:
    if source.suffix == ".parquet":
        return list(pq.read_table(source).to_pylist())
    if source.suffix == ".csv":
        text = pacsv.ConvertOptions(column_types={n: pa.string() for n in ("id", "group", "why", "digest")})
        return list(pacsv.read_csv(source, convert_options=text).to_pylist())
    text_of = source.read_text(encoding="utf-8")
    if source.suffix == ".jsonl":
        return [json.loads(line) for line in text_of.splitlines() if line.strip()]
    raw = json.loads(text_of)
    if not isinstance(raw, dict) or raw.get("format") != EARLIER:
        raise ValueError(f"it does not name the format '{EARLIER}'")
    return list(raw["rows"])


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
    weight = _as_number(record.get("weight"))
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        what = f"weight {weight!r} of row '{record['id']}' is not a finite number of 0 or more"
        raise DataError(what, where=where, remedy="correct it in the file")
    views = record.get("views") or [record.get(name) for name in VIEWS]
    pair = None if views[0] is None or views[1] is None else (float(views[0]), float(views[1]))
    about = {name: record.get(name) for name in ("score", "z")}
    return RowWeight(
        record["id"],
        record["group"],
        float(weight),
        **about,
        views=pair,
        digest=record["digest"],
        why=record.get("why") or "",
    )


def _as_number(cell: Any) -> Any:
    """The number that a text spells; a spreadsheet turns a whole column into text if one cell is no number."""
    try:
        return float(cell) if isinstance(cell, str) else cell
    except ValueError:
        return cell
