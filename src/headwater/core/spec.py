"""A method's name and options, its columns and its coverage, as they are stored as JSON in an index's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Role = Literal["train", "query"]
"""`train` for rows of the index, `query` for what is traced. A method may read the two differently."""

Storage = Literal["float16", "float32", "int8", "sign"]
"""How a vector is stored: as numbers, or as a code with one float32 `scale` per row (see `headwater.search.codes`)."""


@dataclass(frozen=True)
class Column:
    """One vector column of an index.

    `dtype` is the storage type; scores are summed in float32 in every case. `weight` multiplies the column's inner
    product when several columns make one score (checkpoints: the learning rate). `bits` is the length of a sign code.
    """

    name: str
    dim: int
    dtype: Storage = "float16"
    weight: float = 1.0
    bits: int = 0

    @property
    def row_bytes(self) -> int:
        """Bytes one row takes in this column."""
        sizes = {"float16": 2 * self.dim, "float32": 4 * self.dim, "int8": self.dim + 4, "sign": self.bits // 8 + 4}
        return sizes[self.dtype]

    @property
    def width(self) -> int:
        """Stored elements per row: numbers, or bytes of a code."""
        return self.bits // 8 if self.dtype == "sign" else self.dim

    @property
    def scale(self) -> str | None:
        """The name of the column that holds a code's scales; None for plain numbers."""
        return f"{self.name}_scale" if self.dtype in ("int8", "sign") else None


@dataclass(frozen=True)
class Coverage:
    """The share of a model's parameters that enter the scores, in numbers and in tensors.

    `tensors_total` is 0 where tensors were not counted, as in older indexes.
    """

    seen: int
    total: int
    note: str = ""
    tensors_seen: int = 0
    tensors_total: int = 0

    def __str__(self) -> str:
        share = 100 * self.seen / max(self.total, 1)
        counted = f" in {self.tensors_seen:,} of {self.tensors_total:,} tensors" if self.tensors_total else ""
        said = f"{self.seen:,} of {self.total:,} parameters ({share:.1f} %){counted}"
        return said + (f"; {self.note}" if self.note else "")


@dataclass(frozen=True)
class MethodSpec:
    """A method's name with every option resolved, which is enough to build it again."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {"name": self.name, "options": dict(self.options)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> MethodSpec:
        """The inverse of `to_json`."""
        return cls(str(raw["name"]), dict(raw["options"]))


def as_json(value: Column | Coverage) -> dict[str, Any]:
    """A JSON-ready dictionary of a column or a coverage."""
    return asdict(value)
