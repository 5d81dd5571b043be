"""Write chosen rows as they were in the input: every column of the original record, under its own name."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError, UsageError
from headwater.core.files import whole_file
from headwater.core.plain import json_ready
from headwater.core.tables import names_of, write_parquet
from headwater.data.corpus import Corpus
from headwater.data.rows import RowsDigest

KINDS = (".jsonl", ".jsonl.gz", ".csv", ".parquet")


def records_of(
    corpus: Corpus, ids: Sequence[str], *, rows: int | None = None, digest: str = ""
) -> list[Mapping[str, Any]]:
    """The original records of the rows with these ids, in the order of the ids.

    Args:
        corpus: the pool that was valued.
        ids: the rows to find.
        rows: how many rows were valued, from the start of the pool; None for all.
        digest: the `RowsDigest` of those rows; an empty one is not compared.

    Raises:
        DataError: the corpus lacks one of the ids, or its rows have another digest: the values are of another pool.
    """
    wanted, read = set(ids), RowsDigest()
    found: dict[str, Mapping[str, Any]] = {}
    for row, record in islice(corpus.with_records(), rows):
        read.add(row)
        if row.id in wanted:
            found[row.id] = record
    missing = [name for name in ids if name not in found]
    if missing:
        what = f"row '{missing[0]}' is not in this pool, nor are {len(missing) - 1:,} more of {len(ids):,}"
        raise DataError(what, where=corpus.name, remedy="give the pool that was valued, with --candidates")
    if digest and read.hexdigest() != digest:
        what = "these are not the rows that were valued: ids, order or texts differ"
        raise DataError(what, where=corpus.name, remedy="give the pool that was valued, or value this one")
    return [found[name] for name in ids]


def texts_of(corpus: Corpus, ids: Sequence[str], *, rows: int | None = None) -> list[str]:
    """The texts of the rows with these ids, in the order of the ids; raises `DataError` if one is missing."""
    wanted = set(ids)
    found = {row.id: " ".join(row.fields().values()) for row in islice(corpus, rows) if row.id in wanted}
    missing = [name for name in ids if name not in found]
    if missing:
        what = f"row '{missing[0]}' is not in this pool, nor are {len(missing) - 1:,} more of {len(ids):,}"
        raise DataError(what, where=corpus.name, remedy="give the pool that was valued, with --candidates")
    return [found[name] for name in ids]


def with_value(record: Mapping[str, Any], value: float) -> dict[str, Any]:
    """A record with its `value`; a column of its own with that name gets an underscore behind it."""
    own = "value_"
    while own in record:
        own += "_"
    return {**{own if name == "value" else name: cell for name, cell in record.items()}, "value": value}


def write_records(path: str | Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write records as `.jsonl`, `.jsonl.gz`, `.csv` or `.parquet`, by the path's ending; the whole file or none."""
    target = Path(path)
    write = _WRITERS[kind_of(target)]
    with whole_file(target) as part:
        write(part, records)
    return target


def kind_of(path: Path) -> str:
    """The ending of a path, one of `KINDS`; raises `UsageError` for any other."""
    for kind in KINDS:
        if path.name.lower().endswith(kind):
            return kind
    raise UsageError(f"'{path.name}' is not a kind of file that can be written", where="--out", remedy=", ".join(KINDS))


def _jsonl(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(_lines(records)), encoding="utf-8")


def _gzipped(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    # Without name and time in its header, the same rows give the same file.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.writelines(line.encode() for line in _lines(records))


def _lines(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    return (json.dumps(dict(record), ensure_ascii=False, default=json_ready) + "\n" for record in records)


def _csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names_of(records))
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in record.items()} for record in records)


def _cell(value: Any) -> Any:
    """A value as a CSV cell: lists and dictionaries, such as messages, as JSON; times as ISO text."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    nested = isinstance(value, list | tuple | dict)
    return json.dumps(value, ensure_ascii=False, default=json_ready) if nested else json_ready(value)


_WRITERS: dict[str, Callable[[Path, Sequence[Mapping[str, Any]]], None]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _gzipped,
    ".csv": _csv,
    ".parquet": write_parquet,
}
