"""Results that are tables: they convert to pandas and Parquet, and notebooks display them."""

from __future__ import annotations

import html
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.core.files import whole_file
from headwater.core.plain import json_ready

SHOWN = 20
"""How many rows of a table a notebook shows."""

_CELL = 160
"""How many characters of a cell a notebook shows."""


class Tabular(ABC):
    """Base of results that are one table; a subclass defines `records`."""

    @abstractmethod
    def records(self) -> Sequence[Mapping[str, Any]]:
        """One JSON-ready dictionary per line of the table, all with the same keys."""

    def to_pandas(self) -> Any:
        """The table as a pandas `DataFrame`."""
        import pandas as pd

        return pd.DataFrame.from_records(list(self.records()))

    def to_parquet(self, path: str | Path) -> Path:
        """Write the table as a Parquet file, complete or not at all; columns of mixed type are written as JSON text.

        Raises:
            StoreError: the file cannot be written.
        """
        with whole_file(path) as part:
            write_parquet(part, list(self.records()))
        return Path(path)

    def _repr_html_(self) -> str:
        """The first lines as HTML, for notebooks."""
        records = list(self.records())
        names = names_of(records)
        head = "".join(f"<th>{html.escape(str(name))}</th>" for name in names)
        lines = [
            "<tr>" + "".join(f"<td>{html.escape(_shown(record.get(name)))}</td>" for name in names) + "</tr>"
            for record in records[:SHOWN]
        ]
        more = f"<p>{len(records) - SHOWN:,} more</p>" if len(records) > SHOWN else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>{more}"


def names_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """All keys of the records, in the order in which they first appear."""
    return list(dict.fromkeys(name for record in records for name in record))


def write_parquet(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records as a Parquet file with every key that any of them has; a column of mixed type becomes JSON text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: _column([record.get(name) for record in records], pa) for name in names_of(records)}
    pq.write_table(pa.table(columns), path)


def _column(values: list[Any], pa: Any) -> Any:
    try:
        made = pa.array(values)
        if pa.types.is_timestamp(made.type) and any(getattr(value, "nanosecond", 0) for value in values):
            made = pa.array(values, pa.timestamp("ns", made.type.tz))
        return made
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        as_text = [v if v is None or isinstance(v, str) else json.dumps(v, default=json_ready) for v in values]
        return pa.array(as_text, pa.string())


def _shown(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"
