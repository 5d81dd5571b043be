"""What columns rows need: which text fields they have, and the type of each metadata field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from headwater.data.columns import ColumnType
from headwater.data.rows import Row

REJECTED = "rejected"
"""The text field of a preference pair that is one row: its rejected answer."""


@dataclass
class FoundColumns:
    """What is found in rows that are added one after the other.

    Attributes:
        texts: names of the text fields that rows have: those of `Row.fields`, `messages`, `hotwords` and `rejected`.
        kinds: metadata name to the types of its values.
    """

    texts: set[str] = field(default_factory=set)
    kinds: dict[str, ColumnType] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> FoundColumns:
        """What is found in these rows, which are read once."""
        found = cls()
        for row in rows:
            found.add(row)
        return found

    def add(self, row: Row) -> None:
        """Take in one more row."""
        others = {"messages": row.messages, "hotwords": row.hotwords or None, REJECTED: row.rejected}
        self.texts.update(row.fields(), (name for name, value in others.items() if value is not None))
        for name, value in row.metadata.items():
            self.kinds.setdefault(name, ColumnType()).add(value)
