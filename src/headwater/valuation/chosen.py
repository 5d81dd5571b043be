"""Write chosen rows as they were in the input: every column of the original record, under its own name."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.core.errors import DataError, UsageError
from headwater.core.files import whole_file
from headwater.data.corpus import Corpus

KINDS = (".jsonl", ".jsonl.gz", ".csv", ".parquet")


def records_of(corpus: Corpus, ids: Sequence[str]) -> list[Mapping[str, Any]]:
    """The original records of the rows with these ids, in the order of the ids.

    Raises:
        DataError: the corpus does not have one of the ids, so the values are of another pool.
    """
    wanted = set(ids)
    found: dict[str, Mapping[str, Any]] = {}
    for row, (_, record) in zip(corpus, corpus.source.records(), strict=False):
        if row.id in wanted:
            found[row.id] = record
    missing = [name for name in ids if name not in found]
    if missing:
        what = f"row '{missing[0]}' is not in this pool, nor are {len(missing) - 1:,} more of {len(ids):,}"
        raise DataError(what, where=corpus.name, remedy="give the pool that was valued, with --candidates")
    return [found[name] for name in ids]


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
    return (json.dumps(dict(record), ensure_ascii=False, default=str) + "\n" for record in records)


def _csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for record in records for name in record))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(records)


def _parquet(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist([dict(record) for record in records]), path)


_WRITERS: dict[str, Callable[[Path, Sequence[Mapping[str, Any]]], None]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _gzipped,
    ".csv": _csv,
    ".parquet": _parquet,
}
