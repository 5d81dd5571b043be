"""Chosen rows in the input's own format: every column of the original record, under its own name."""

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
    """The original records of these rows, in the order of the ids.

    Raises:
        DataError: an id that the corpus does not have: the values are of another pool.
    """
    wanted = set(ids)
    found: dict[str, Mapping[str, Any]] = {}
    for row, (_, record) in zip(corpus, corpus.source.records(), strict=False):
        if row.id in wanted:
            found[row.id] = record
    missing = [name for name in ids if name not in found]
    if missing:
        what = f"row '{missing[0]}' is not there, nor are {len(missing) - 1:,} more of {len(ids):,}"
        raise DataError(what, where=corpus.name, remedy="give the pool the values are of with --candidates")
    return [found[name] for name in ids]


def write_records(path: str | Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Records as `.jsonl`, `.jsonl.gz`, `.csv` or `.parquet`, by the path's ending; there all at once or not at all."""
    target = Path(path)
    write = _WRITERS[kind_of(target)]
    with whole_file(target) as part:
        write(part, records)
    return target


def kind_of(path: Path) -> str:
    """The kind of file a path names; raises `UsageError` for one that is not written."""
    for kind in KINDS:
        if path.name.lower().endswith(kind):
            return kind
    raise UsageError(f"'{path.name}' is no kind of file that is written", where="--out", remedy=", ".join(KINDS))


def _jsonl(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(_lines(records)), encoding="utf-8")


def _gzipped(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:  # neither name nor time
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
