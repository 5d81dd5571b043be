"""Rows that meet an SQL condition, for rows that are in no index: they are read as an index of them would be."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import lance
import pyarrow as pa

from headwater.core.errors import DataError
from headwater.data.rows import Row
from headwater.index.conditions import readable_condition, without_texts
from headwater.index.failures import storing
from headwater.index.rows import infer_schema, metadata_table


def rows_where(rows: Sequence[Row], condition: str, *, where: str) -> frozenset[str]:
    """The ids of the rows that meet the condition, over their texts and metadata as an index would store them.

    Args:
        rows: the rows.
        condition: as `poisoned = true AND provider = 'a'`.
        where: the option that gave the condition, for messages.

    Raises:
        StoreError: the condition cannot be used.
        DataError: the condition names a column whose values are of several types, so that it would not see some rows.
    """
    table = metadata_table(rows, infer_schema(rows, [], declared=()))
    condition = readable_condition(condition, table.schema, where) or ""
    with tempfile.TemporaryDirectory() as folder, storing(where, where=condition):
        dataset = lance.write_dataset(table, str(Path(folder) / "rows.lance"))
        _require_seen(table, condition, where)
        return frozenset(dataset.to_table(columns=["id"], filter=condition).column("id").to_pylist())


def _require_seen(table: pa.Table, condition: str, where: str) -> None:
    """Refuse a condition over a column that cannot hold the values of all rows."""
    named = set(re.findall(r"[A-Za-z_]\w*", without_texts(condition)))
    aside = {name for text in table.column("extra").to_pylist() if text for name in json.loads(text)}
    for name in sorted(aside):
        if name in named:
            what = f"the column '{name}' has values of several types, which the condition {condition!r} would not see"
            raise DataError(what, where=where, remedy="write all its values in one type")
