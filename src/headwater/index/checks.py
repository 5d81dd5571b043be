"""Check an index without its model: find damage, edits by hand, rows of other indexes, and missing rows.

Every fault names the row or file it is in; a sound index has none. The remaining check, reading rows again with the
model, is `headwater.indexing.maintain.recompute`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import lance
import numpy as np
import pyarrow as pa

from headwater.core.errors import StoreError
from headwater.core.progress import tell
from headwater.index.failures import storing
from headwater.index.info import unfinished
from headwater.index.noted import lost_versions
from headwater.index.rows import vector_array, vector_fields
from headwater.index.store import Index, open_index
from headwater.index.upkeep import tally

_CHECKED_AT_ONCE = 256
"""Rows whose cells and vectors are held in memory to be checked."""

_SHOWN = 10
"""At most so many faults of one kind are listed; the rest are counted."""


@dataclass(frozen=True)
class Fault:
    """One fault: its kind (`open`, `unfinished`, `schema`, `storage`, `checksum`, ...), what is wrong, and where."""

    kind: str
    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.what}"


@dataclass
class _Seen:
    """What a pass over the rows has found so far: ids and their counts, and whether a fragment was unreadable."""

    ids: Counter[str] = field(default_factory=Counter)
    unreadable: bool = False


def check_index(path: str) -> list[Fault]:
    """Read the whole index at `path` once and return every fault that shows without its model.

    Kinds: `open` (no index, a damaged or edited manifest, a future format), `unfinished`, `schema` (the columns are not
    those of the manifest), `storage` (a file is missing or unreadable), `checksum` (a row is not what was written, or
    comes from another index), `finite` (NaN or infinity), `norm` (a vector of zeros), `duplicate` (an id twice),
    `tally` (something other than headwater removed, added or restored rows).
    """
    try:
        index = open_index(path)
    except StoreError as error:
        return [Fault("open", error.what, path)]
    try:
        with storing(path):
            return _all_faults(index)
    except StoreError as error:
        return [Fault("storage", error.what, path)]


def require_intact(index: Index, addresses: Sequence[int]) -> None:
    """Hold the rows at these addresses against their checksums.

    Raises:
        StoreError: a row is not what was written; names it.
    """
    for start in range(0, len(addresses), _CHECKED_AT_ONCE):
        _require_sums(index, index.at(addresses[start : start + _CHECKED_AT_ONCE]).combine_chunks())


def require_all_intact(index: Index) -> int:
    """Hold all rows against their checksums, and return how many there are; reads the whole index once.

    Raises:
        StoreError: a row is not what was written; names it.
    """
    done, count = 0, index.count
    for batch in index.batches(index.dataset.schema.names, rows=_CHECKED_AT_ONCE):
        _require_sums(index, pa.Table.from_batches([batch]))
        done += batch.num_rows
        tell("verifying rows", done, count)
    return done


def _require_sums(index: Index, table: pa.Table) -> None:
    stored = table.column("checksum").to_pylist()
    for i, expected in enumerate(index.checksums(table)):
        if stored[i] != expected:
            row = table.column("id")[i].as_py()
            remedy = "headwater index verify lists all damage; delete the row, or build the index again"
            raise StoreError("the row is not what was written", where=f"{index.path}, row '{row}'", remedy=remedy)


def _all_faults(index: Index) -> list[Fault]:
    warning = unfinished(index)
    faults = [Fault("unfinished", warning, index.path)] if warning else []
    with index.reading():
        lost = lost_versions(index.path, int(index.dataset.latest_version))
    faults += [Fault("tally", lost, index.path)] if lost else []
    schema = list(_schema_faults(index))
    if schema:
        return faults + schema
    seen = _Seen()
    faults.extend(_summarised(_row_faults(index, seen), index.path))
    faults.extend(_tally_faults(index, seen))
    return faults


def _schema_faults(index: Index) -> Iterator[Fault]:
    schema = index.dataset.schema
    for expected in vector_fields(index.manifest.columns):
        found = schema.field(expected.name).type if expected.name in schema.names else None
        if found != expected.type:
            yield Fault("schema", f"column '{expected.name}' should be {expected.type}, it is {found}", index.path)
    for name in ("id", "digest", "tokens", "loss", "checksum"):
        if name not in schema.names:
            yield Fault("schema", f"there is no column '{name}'", index.path)


def _row_faults(index: Index, seen: _Seen) -> Iterator[Fault]:
    """Faults of single rows. Each fragment is read separately, so that a damaged one does not hide faults in others."""
    fragments = index.dataset.get_fragments()
    if len({fragment.fragment_id for fragment in fragments}) < len(fragments):
        yield Fault("storage", "two fragments have the same number, so their rows cannot be distinguished", index.path)
    for fragment in fragments:
        yield from _fragment_faults(index, fragment, seen)
    for row_id, times in seen.ids.items():
        if times > 1:
            yield Fault("duplicate", f"{times} rows have this id", f"row '{row_id}'")


def _fragment_faults(index: Index, fragment: lance.LanceFragment, seen: _Seen) -> Iterator[Fault]:
    rows = min(8192, max(64, (64 << 20) // max(index.rows_bytes, 1)))
    try:
        with storing(index.path):
            for batch in fragment.to_batches(batch_size=rows):
                yield from _batch_faults(index, batch, seen)
    except StoreError as error:
        seen.unreadable = True
        files = ", ".join(file.path for file in fragment.metadata.files)
        yield Fault("storage", error.what, f"{index.path}/data/{files}")


def _batch_faults(index: Index, batch: pa.RecordBatch, seen: _Seen) -> Iterator[Fault]:
    ids = [str(value) for value in batch.column("id").to_pylist()]
    seen.ids.update(ids)
    stored = batch.column("checksum").to_pylist()
    for i, expected in enumerate(index.checksums(batch)):
        if stored[i] != expected:
            yield Fault("checksum", "the row is not what was written, or is from another index", f"row '{ids[i]}'")
    for column in index.manifest.columns:
        name = column.scale or column.name  # a code is zero or not finite exactly when its scale is
        values = vector_array(batch.column(name)) if column.scale is None else batch.column(name).to_numpy()[:, None]
        for i in np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist():
            yield Fault("finite", f"the vector in '{name}' has values that are not finite", f"row '{ids[i]}'")
        for i in np.flatnonzero(~values.any(axis=1)).tolist():
            yield Fault("norm", f"the vector in '{name}' is zero", f"row '{ids[i]}'")


def _tally_faults(index: Index, seen: _Seen) -> Iterator[Fault]:
    expected = index.manifest.tally
    if expected is None or seen.unreadable or not index.manifest.complete:
        return
    found = tally(index)
    if found.rows != expected.rows:
        yield Fault("tally", f"{expected.rows:,} rows were written, {found.rows:,} are there", index.path)
    elif found != expected:
        yield Fault("tally", "the rows are not those that were written, or not in that order", index.path)


def _summarised(faults: Iterator[Fault], path: str) -> Iterator[Fault]:
    """The first `_SHOWN` faults of each kind, then for each kind how many more there are."""
    met: Counter[str] = Counter()
    for fault in faults:
        met[fault.kind] += 1
        if met[fault.kind] <= _SHOWN:
            yield fault
    for kind, times in met.items():
        if times > _SHOWN:
            yield Fault(kind, f"{times - _SHOWN:,} more rows with this fault", path)
