"""A method's name and options, its columns and its coverage, as they are stored as JSON in an index's manifest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Role = Literal["train", "query"]
"""`train` for rows of the index, `query` for what is traced. A method may read the two differently."""

Storage = Literal["float16", "float32", "int8", "sign", "int2", "int4", "factors"]
"""How a vector is stored: as numbers, or as a code (see `headwater.search.codes`)."""

LEVEL_BITS: Mapping[str, int] = {"sign": 1, "int2": 2, "int4": 4}
"""Bits for each coordinate of a random rotation, in the codes that store such coordinates."""

Sides = tuple[int, int]
"""Height and width of a matrix."""


@dataclass(frozen=True)
class Column:
    """One vector column of an index.

    `dtype` is the storage type; scores are summed in float32 in every case. `weight` multiplies the column's inner
    product when several columns make one score (checkpoints: the learning rate). `bits` is the length of a code of
    rotated coordinates. `matrices` says that the vector begins with the entries of these matrices, row by row, which
    `factors` stores as the two factors of their best approximation of rank `rank`. `share` says how much of the bits
    that a code names for a column this one gets.
    """

    name: str
    dim: int
    dtype: Storage = "float16"
    weight: float = 1.0
    bits: int = 0
    matrices: tuple[Sides, ...] = ()
    rank: int = 0
    share: float = 1.0

    @property
    def row_bytes(self) -> int:
        """Bytes one row takes in this column."""
        size = {"float16": 2, "factors": 2, "float32": 4}.get(self.dtype, 1)
        return size * self.width + (0 if self.scale is None else 4)

    @property
    def width(self) -> int:
        """Stored elements per row: numbers, or bytes of a code."""
        if self.dtype == "factors":
            return sum(self.rank * sum(sides) if self.factored(sides) else math.prod(sides) for sides in self.matrices)
        return self.bits // 8 if self.dtype in LEVEL_BITS else self.dim

    def factored(self, sides: Sides) -> bool:
        """Whether two factors of a matrix take fewer numbers than the matrix, which is stored whole otherwise."""
        return self.rank * sum(sides) < sides[0] * sides[1]

    @property
    def coded(self) -> bool:
        """Whether the vector is stored as a code, which loses accuracy."""
        return self.dtype not in ("float16", "float32")

    @property
    def code(self) -> str:
        """How the vector is stored, as `--code` says it: `none` for numbers."""
        if not self.coded:
            return "none"
        number = 8 * round(self.bits / self.share / 8) or self.rank  # a code names a multiple of 8 bits
        return f"{self.dtype}:{number}" if number else self.dtype

    @property
    def scale(self) -> str | None:
        """The name of the column that holds the scales of a code of whole numbers, one float32 a row; else None."""
        return f"{self.name}_scale" if self.dtype == "int8" or self.dtype in LEVEL_BITS else None


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


def code_of(columns: Sequence[Column]) -> str:
    """The code under which columns are stored, those that it would not make smaller apart; `none` if no column is."""
    return next((column.code for column in columns if column.coded), "none")


def column_from_json(raw: Mapping[str, Any]) -> Column:
    """The column that `as_json` wrote; fields of later versions have their defaults."""
    return Column(**{**raw, "matrices": tuple((high, wide) for high, wide in raw.get("matrices", ()))})


def as_json(value: Column | Coverage) -> dict[str, Any]:
    """A JSON-ready dictionary of a column or a coverage, without what only some columns have."""
    usual = {"matrices": (), "rank": 0, "share": 1.0}
    return {name: cell for name, cell in asdict(value).items() if name not in usual or cell != usual[name]}
