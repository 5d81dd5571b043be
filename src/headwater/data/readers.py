"""Reading records from files, saved or hub datasets, and memory, each as a stream that can be read more than once.

Each source yields `(number, record)`. The number is the record's place for messages: its line in a JSONL or CSV file,
else its position, both counted from 1. The record is a dictionary of columns. JSONL, CSV, Parquet and saved datasets
are read piece by piece, so a file may be larger than memory; a `.json` list is read whole.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError, UsageError

Record = tuple[int, Mapping[str, Any]]
"""A record with its number."""

FILE_KINDS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
"""The endings of files that can be read."""

PARQUET_BUFFER = 2**20
"""Bytes of a column read at once. Without it a whole row group, which may be the whole file, is read at once."""

PARQUET_BATCH = 1024
"""Rows of a Parquet file in memory at once."""

CSV_FIELD_LIMIT = 2**31 - 1
"""Longest cell of a CSV file in characters; the csv module's default (131,072) is shorter than many documents."""

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
"""A dataset's name on the hub, with an optional configuration: `openai/gsm8k:main`."""


@dataclass(frozen=True)
class Source:
    """Named records: `records()` starts a new pass; `count` is None if it is not known before all have been read."""

    name: str
    count: int | None
    records: Callable[[], Iterator[Record]]


def open_source(source: Any, *, split: str, streaming: bool) -> Source:
    """The records of a path, a hub dataset's name or an iterable of dictionaries; see `open_corpus`."""
    if not isinstance(source, (str, Path)):
        rows = _frame_rows(source)
        return _memory("memory", _choose_split("memory", source, split) if rows is None else rows)
    name, path = str(source), Path(source)
    if path.is_dir():
        return _memory(name, _choose_split(name, _load_saved(path), split))
    kind = next((ending for ending in FILE_KINDS if name.lower().endswith(ending)), None)
    if path.is_file():
        if split != "train":
            raise UsageError(f"a file has no split '{split}'", where=name, remedy="leave the split out")
        return _file(name, path, kind)
    if kind is not None or isinstance(source, Path) or not HUB_NAME.fullmatch(name):
        raise DataError("no such file", where=name, remedy="check the path")
    return _memory(name, _load_hub(name, split, streaming))


def _frame_rows(source: Any) -> list[Mapping[str, Any]] | None:
    """The rows of a pandas or polars frame or an Arrow table; None for anything else."""
    if not hasattr(source, "columns") and not hasattr(source, "column_names"):
        return None
    if hasattr(source, "to_pylist"):  # Arrow
        return list(source.to_pylist())
    if hasattr(source, "to_dicts"):  # polars
        return list(source.to_dicts())
    if hasattr(source, "itertuples"):  # pandas; Arrow makes None of its missing values, which are NaN
        import pyarrow as pa

        if len(set(source.columns)) < len(source.columns):
            raise DataError("two columns have the same name", where="data frame", remedy="rename one of them")
        frame = source.reset_index() if source.index.name else source
        try:
            return list(pa.Table.from_pandas(frame, preserve_index=False).to_pylist())
        except (pa.ArrowException, OverflowError):  # a column of mixed types: take the objects as they are
            return list(frame.astype(object).where(frame.notna(), None).to_dict("records"))
    return None


def _file(name: str, path: Path, kind: str | None) -> Source:
    if kind in (".jsonl", ".jsonl.gz"):
        return Source(name, None, partial(_read_jsonl, path))
    if kind == ".csv":
        return Source(name, None, partial(_read_csv, path))
    if kind == ".parquet":
        return Source(name, _parquet_file(path).metadata.num_rows, partial(_read_parquet, path))
    if kind == ".json":
        return _memory(name, _read_json(path))
    raise DataError("not a kind of file that can be read", where=name, remedy=f"known: {', '.join(FILE_KINDS)}")


def _memory(name: str, records: Iterable[Any]) -> Source:
    """A source made of any iterable; an iterator, which can be read only once, is first read into a list."""
    again = list(records) if isinstance(records, Iterator) else records
    return Source(name, len(again) if isinstance(again, Sized) else None, partial(_numbered, name, again))


def _numbered(name: str, records: Iterable[Any]) -> Iterator[Record]:
    for number, record in enumerate(records, start=1):
        yield number, _require_record(record, f"{name}:{number}")


def _require_record(record: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(record, Mapping):
        raise DataError(f"a row of type {type(record).__name__}", where=where, remedy="every row is an object")
    return record


def _read_jsonl(path: Path) -> Iterator[Record]:
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rb") as lines:
            for number, raw in enumerate(lines, start=1):
                line = raw.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else raw.strip()
                if line:
                    where = f"{path}:{number}"
                    yield number, _require_record(_parse_json(line, where, "one JSON object a line"), where)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"damaged gzip file: {error}", where=str(path), remedy="write the file again") from None


def _parse_json(raw: bytes, where: str, remedy: str) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", where=where, remedy="save it as UTF-8") from None
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column {error.colno}"
        raise DataError(f"not JSON: {error.msg} at {at}", where=where, remedy=remedy) from None


def _read_json(path: Path) -> list[Any]:
    remedy = "a .json file is one list of objects; name it .jsonl if it has one object a line"
    whole = _parse_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), str(path), remedy)
    if not isinstance(whole, list):
        raise DataError(f"a JSON {type(whole).__name__}, not a list", where=str(path), remedy=remedy)
    return whole


def _read_csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            for number, row in _lines_from(reader):
                if len(row) != len(header):
                    remedy = "quote cells that contain commas or line breaks"
                    what = f"{len(row)} cells under a header of {len(header)}"
                    raise DataError(what, where=f"{path}:{number}", remedy=remedy)
                yield number, dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise DataError(f"not CSV: {error}", where=f"{path}:{reader.line_num}", remedy="check the quotes") from None
        except UnicodeDecodeError as error:
            where = f"{path}:{reader.line_num + 1}"
            raise DataError(f"not UTF-8: {error.reason}", where=where, remedy="save it as UTF-8") from None


def _lines_from(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Rows, each with the line it starts at; empty lines are skipped."""
    start = reader.line_num + 1
    for row in reader:
        if row:
            yield start, row
        start = reader.line_num + 1


def _parquet_file(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path, buffer_size=PARQUET_BUFFER)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"not Parquet: {error}", where=str(path), remedy="write the file again") from None


def _read_parquet(path: Path) -> Iterator[Record]:
    with _parquet_file(path) as file:
        batches = file.iter_batches(batch_size=PARQUET_BATCH)
        yield from enumerate((record for batch in batches for record in batch.to_pylist()), start=1)


def _load_saved(folder: Path) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(folder))
    except FileNotFoundError:
        remedy = f"give a folder written by `save_to_disk`, or a file: {', '.join(FILE_KINDS)}"
        raise DataError("not a saved dataset", where=str(folder), remedy=remedy) from None


def _load_hub(name: str, split: str, streaming: bool) -> Any:
    import datasets

    path, _, config = name.partition(":")
    try:
        return datasets.load_dataset(path, config or None, split=split, streaming=streaming)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "check the path, or the hub name, its configuration (name:configuration) and split"
        raise DataError(f"neither a file nor a dataset that loads: {reason}", where=name, remedy=remedy) from error


def _choose_split(name: str, dataset: Any, split: str) -> Iterable[Any]:
    """The chosen split of a dictionary of splits; a dataset without splits counts as `train`."""
    if isinstance(dataset, Mapping):
        if split not in dataset:
            raise DataError(f"no split '{split}'", where=name, remedy=f"splits: {', '.join(map(str, dataset))}")
        chosen: Iterable[Any] = dataset[split]
        return chosen
    if not isinstance(dataset, Iterable):
        kinds = "a path, a hub dataset's name or an iterable of dictionaries"
        raise UsageError(f"rows from a {type(dataset).__name__}", where=name, remedy=f"give {kinds}")
    if split != "train":
        raise UsageError(f"these rows have no split '{split}'", where=name, remedy="leave the split out")
    return dataset
