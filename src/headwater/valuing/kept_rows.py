"""Rows as JSON: beside a run's output, so that they can be read again without the pool, and on their way to workers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater.core.plain import json_ready
from headwater.data.rows import Row


def to_line(row: Row) -> str:
    """A row as one line of JSON; metadata that JSON has no form for becomes text."""
    fields: dict[str, Any] = {"id": row.id, "place": row.place, **row.fields()}
    if row.messages is not None:
        fields["messages"] = [dict(message) for message in row.messages]
    if row.hotwords:
        fields["hotwords"] = list(row.hotwords)
    return json.dumps({**fields, "metadata": dict(row.metadata)}, default=json_ready)


def from_line(line: str, ordinal: int) -> Row:
    """The row that `to_line` wrote, at this position."""
    fields: Mapping[str, Any] = json.loads(line)
    rest = {name: value for name, value in fields.items() if name not in ("messages", "hotwords")}
    messages = fields.get("messages")
    return Row(
        ordinal=ordinal,
        messages=None if messages is None else tuple(messages),
        hotwords=tuple(fields.get("hotwords", ())),
        **rest,
    )


@dataclass(frozen=True)
class KeptRows:
    """A pool's rows in a file of JSON lines."""

    name: str
    path: Path
    count: int | None

    def __iter__(self) -> Iterator[Row]:
        with self.path.open(encoding="utf-8") as file:
            for ordinal, line in enumerate(file):
                yield from_line(line, ordinal)
