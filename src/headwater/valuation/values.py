"""A values file: for each row of the pool its value, the value's interval, and the row's metadata.

Parquet columns: `id`, `value`, `low`, `high`; with several targets also `value_T`, `low_T`, `high_T` for each; then the
row's metadata; then `characters` and `cluster` (near-duplicates share a number). No column holds a row's text. The
schema's metadata states method, model and pool, and the meaning of a value (`sign`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from numpy.typing import NDArray

from headwater.core.errors import DataError, NumericError
from headwater.core.statistics import interval_reach, mean_interval
from headwater.core.tables import Tabular


def intervals(
    scores: Float[np.ndarray, "rows parts"], targets: Sequence[str], weights: Sequence[int]
) -> Float[np.ndarray, "rows targets 3"]:
    """Value, low and high of every row on every target, with targets in order of first appearance.

    A target with a single part has no spread, so its low and high are NaN.

    Args:
        scores: one column a part.
        targets: the target of each part.
        weights: how many rows each part stands for.
    """
    names = list(dict.fromkeys(targets))
    found = np.full((len(scores), len(names), 3), np.nan)
    for place, name in enumerate(names):
        own = [i for i, target in enumerate(targets) if target == name]
        share = np.array([weights[i] for i in own], dtype=np.float64)
        share /= share.sum()
        parts = scores[:, own].astype(np.float64)
        value = parts @ share
        found[:, place, 0] = value
        if len(own) > 1:
            error = np.sqrt((parts - value[:, None]) ** 2 @ share / (len(own) - 1))
            reach = error * interval_reach(len(own))
            found[:, place, 1], found[:, place, 2] = value - reach, value + reach
    return found


def over_targets(estimates: Float[np.ndarray, "rows targets 3"]) -> Float[np.ndarray, "rows 3"]:
    """The unweighted mean over targets; the errors of different targets are assumed to be independent."""
    value = estimates[:, :, 0].mean(axis=1)
    reach = np.sqrt(((estimates[:, :, 2] - estimates[:, :, 0]) ** 2).sum(axis=1)) / estimates.shape[1]
    return np.stack([value, value - reach, value + reach], axis=1)


NOT_FOR_PRICES = "not for prices"
"""The entry of a file's notes that names the warnings for which nobody should be paid by its values."""

METADATA_KEY = b"headwater.values"
OURS = ("id", "value", "low", "high", "characters", "cluster")
_TARGET_COLUMNS = ("value_", "low_", "high_")


@dataclass(frozen=True)
class Values(Tabular):
    """Values in memory.

    Attributes:
        table: the columns, in the file's order.
        about: the method, target, model and pool; JSON-ready.
        path: the file, for messages.
    """

    table: pa.Table
    about: Mapping[str, Any] = field(default_factory=dict)
    path: str = "values"

    @property
    def signed(self) -> bool:
        """Whether rows above 0 help and rows below 0 harm."""
        return bool(self.about.get("signed", True))

    @property
    def meaning(self) -> str:
        """The meaning of a value, in one sentence."""
        return str(self.about.get("sign", "positive = the row helps"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The reasons to doubt the values that were found when they were computed, each a sentence."""
        return tuple(str(one) for one in self.about.get("notes", {}).get("warnings", ()))

    @property
    def unfit(self) -> tuple[str, ...]:
        """Those of the warnings for which nobody should be paid by the values."""
        return tuple(str(one) for one in self.about.get("notes", {}).get(NOT_FOR_PRICES, ()))

    def records(self) -> list[dict[str, Any]]:
        """One record a row, with all columns."""
        found: list[dict[str, Any]] = self.table.to_pylist()
        return found

    def to_pandas(self) -> Any:
        """The table as a pandas `DataFrame`, column types kept."""
        return self.table.to_pandas()

    @cached_property
    def ids(self) -> list[str]:
        """The rows' ids, in the pool's order."""
        ids: list[str] = self.table.column("id").to_pylist()
        return ids

    def numbers(self, column: str = "value") -> NDArray[np.float64]:
        """A numeric column as float64, missing values as NaN; raises `DataError` if it does not hold numbers."""
        found = self.column(column)
        if not (pa.types.is_floating(found.type) or pa.types.is_integer(found.type)):
            what = f"column '{column}' holds {found.type}, not numbers"
            raise DataError(what, where=self.path, remedy=f"columns: {', '.join(self.table.column_names)}")
        values: NDArray[np.float64] = found.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return values

    def finite(self, column: str = "value") -> NDArray[np.float64]:
        """A numeric column; raises `NumericError` naming the first row whose number is missing or not finite."""
        values = self.numbers(column)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            where = f"{self.path}, row '{self.ids[int(bad[0])]}'"
            remedy = "value the row again, or leave it out"
            raise NumericError(f"{column} is {values[bad[0]]}", where=where, remedy=remedy)
        return values

    def groups(self, column: str) -> list[str]:
        """A metadata column as text, missing values as `(none)`; raises `DataError` if there is no such column."""
        return ["(none)" if value is None else str(value) for value in self.column(column).to_pylist()]

    def column(self, name: str) -> pa.ChunkedArray:
        """A column by its name, or by its name in the pool; raises `DataError` listing the columns there are."""
        if name not in self.table.column_names:
            if name in self.about.get("renamed", {}):
                return self.column(self.about["renamed"][name])
            raise unknown_column(name, self.table.column_names, where=self.path)
        return self.table.column(name)


def unknown_column(name: str, columns: Sequence[str], *, where: str) -> DataError:
    """The error for a missing column; it lists the columns there are."""
    return DataError(f"no column '{name}'", where=where, remedy=f"columns: {', '.join(columns)}")


def read_values(path: str | Path) -> Values:
    """Read a values file, or any Parquet file with the columns `id` and `value`.

    Raises:
        DataError: no such file, or not a values file.
    """
    source = Path(path)
    if not source.is_file():
        raise DataError("no such file", where=str(path), remedy="headwater value writes one")
    try:
        table = pq.read_table(source)
    except pa.ArrowInvalid as error:
        raise DataError(f"this is not Parquet: {error}", where=str(path), remedy="headwater value writes one") from None
    for name in ("id", "value"):
        if name not in table.column_names:
            raise unknown_column(name, table.column_names, where=str(path))
    about = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    return Values(table, about, str(path))


def schema_of(metadata: Mapping[str, pa.DataType], targets: Sequence[str], about: Mapping[str, Any]) -> pa.Schema:
    """The schema of a values file; `metadata` gives the types of the rows' own columns under their final names."""
    several = targets if len(targets) > 1 else ()
    numbers = [*OURS[1:4], *(f"{prefix}{target}" for target in several for prefix in _TARGET_COLUMNS)]
    fields = [pa.field("id", pa.string(), nullable=False)]
    fields += [pa.field(name, pa.float64()) for name in numbers]
    fields += [pa.field(name, kind) for name, kind in metadata.items()]
    fields += [pa.field("characters", pa.int64()), pa.field("cluster", pa.int64())]
    described = json.dumps(dict(about), sort_keys=True, default=str).encode()
    return pa.schema(fields, metadata={METADATA_KEY: described})


def final_names(names: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """Map metadata names to column names: a name that a values file uses itself gets underscores until it is free."""
    ours = {*OURS, *(prefix + target for prefix in _TARGET_COLUMNS for target in targets)}
    found = {name: name for name in names if name not in ours}
    for name in names:
        if name in ours:
            free = f"{name}_"
            while free in ours or free in found.values():
                free += "_"
            found[name] = free
    return {name: found[name] for name in names}


def summarise(values: Values, *, by: str | None = None) -> dict[str, Any]:
    """Count, mean, spread and share of helpful rows: of all rows, and of each group of the column `by`.

    `low` and `high` are the ends of the 95 % interval of the mean over rows (Student's t). There is a share of helpful
    rows only if the values are signed.
    """
    numbers, signed = values.numbers(), values.signed
    summary = describe(numbers, signed=signed)
    if by is not None:
        groups = np.array(values.groups(by))
        named = {str(name): describe(numbers[groups == name], signed=signed) for name in np.unique(groups)}
        summary |= {"by": by, "groups": named}
    return summary


def describe(numbers: NDArray[np.float64], *, signed: bool) -> dict[str, Any]:
    """Count, mean with its 95 % interval, least, median and most of values; if they are `signed`, the share above 0."""
    mean, (low, high) = float(np.mean(numbers)), mean_interval(numbers)
    return {
        "rows": len(numbers),
        "mean": mean,
        "low": low,
        "high": high,
        "least": float(np.min(numbers)),
        "median": float(np.median(numbers)),
        "most": float(np.max(numbers)),
        **({"helpful": float(np.mean(numbers > 0))} if signed else {}),
    }
