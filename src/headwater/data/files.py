"""Reading one file of records, as a stream that can be read more than once.

| ending | what is in it |
|---|---|
| `.jsonl`, `.ndjson` | one JSON object a line |
| `.json` | one list of objects, or one object a line |
| `.csv`, `.tsv` | cells under a header line |
| `.parquet`, `.arrow` | a table |

Text files may be compressed: `.gz`, `.bz2`, `.xz` or `.zst` behind the ending. Every kind but the `.json` list is read
piece by piece, so a file may be larger than memory.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError
from headwater.data.cells import Read, readers_of, text_record

Record = tuple[int, Mapping[str, Any] | DataError]
"""A record, or why it cannot be read though those after it can; with its number: its line in a text file, else its
position, both counted from 1."""

TEXT_KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
TABLE_KINDS = (".parquet", ".arrow")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

KNOWN_KINDS = f"{', '.join((*TEXT_KINDS, *TABLE_KINDS))}; text files also with {', '.join(COMPRESSED)} behind"
"""The kinds of file that can be read, for messages."""

PARQUET_BUFFER = 2**20
"""Bytes of a column read at once. Without it a whole row group, which may be the whole file, is read at once."""

TABLE_BATCH = 1024
"""Rows of a Parquet file in memory at once."""

TEXT_BUFFER = 2**20
"""Bytes of decompressed text in memory at once."""

CSV_FIELD_LIMIT = 2**31 - 1
"""Longest cell of a CSV file in characters; the csv module's default (131,072) is shorter than many documents."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


def file_kind(name: str) -> str | None:
    """The ending of a file's name that says what is in it, without that of its compression; None if it says nothing."""
    bare = name.lower()
    packed = next((ending for ending in COMPRESSED if bare.endswith(ending)), "")
    kinds = TEXT_KINDS if packed else (*TEXT_KINDS, *TABLE_KINDS)
    return next((kind for kind in kinds if bare.endswith(kind + packed)), None)


def read_file(path: Path) -> tuple[int | None, Callable[[], Iterator[Record]], Any]:
    """The number of records of a file (None if it is not known before all are read), and what starts a new pass.

    The third is the Arrow schema that the file declares, or None.

    Raises:
        DataError: the file's ending is not known; it is damaged, or on a pass, a record cannot be read.
    """
    kind = file_kind(path.name)
    if kind in (".jsonl", ".ndjson"):
        return None, partial(_read_lines, path), None
    if kind == ".json":
        if _holds_lines(path):
            return None, partial(_read_lines, path), None
        records = _read_list(path)
        return len(records), partial(iter, records), None
    if kind in (".csv", ".tsv"):
        return None, partial(_read_csv, path, "\t" if kind == ".tsv" else ","), None
    if kind == ".parquet":
        with _parquet_file(path) as file:
            return file.metadata.num_rows, partial(_read_parquet, path), file.schema_arrow
    if kind == ".arrow":
        with _arrow_batches(path) as (schema, _):
            return None, partial(_read_arrow, path), schema
    raise DataError("not a kind of file that can be read", where=str(path), remedy=f"known: {KNOWN_KINDS}")


def as_record(record: Any, where: str) -> Mapping[str, Any] | DataError:
    """The record, if it is a dictionary; else the error that names its place."""
    if not isinstance(record, Mapping):
        return DataError(f"a row of type {type(record).__name__}", where=where, remedy="every row is an object")
    return record


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The decompressed bytes of a file; a damaged file is a `DataError`."""
    packed = path.suffix.lower().removeprefix(".")
    try:
        with _decompressed(path, packed) as file:
            yield file
    except _DAMAGED as error:
        raise DataError(f"damaged {packed} file: {error}", where=str(path), remedy="write the file again") from None
    except OSError as error:  # the decompressors of bz2 and zstd raise this class, which has a number from the system
        if error.errno is not None or f".{packed}" not in COMPRESSED:
            raise
        raise DataError(f"damaged {packed} file: {error}", where=str(path), remedy="write the file again") from None


def _decompressed(path: Path, packed: str) -> Any:
    if packed == "gz":
        return gzip.open(path, "rb")
    if packed == "bz2":
        return bz2.open(path, "rb")
    if packed == "xz":
        return lzma.open(path, "rb")
    if packed == "zst":
        import pyarrow

        stream: Any = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
        return io.BufferedReader(stream, TEXT_BUFFER)
    return path.open("rb")


def _read_lines(path: Path) -> Iterator[Record]:
    with _opened(path) as lines:
        for number, raw in enumerate(lines, start=1):
            line = raw.removeprefix(_BYTE_ORDER_MARK).strip() if number == 1 else raw.strip()
            if line:
                yield number, _parse_line(line, f"{path}:{number}")


def _parse_line(line: bytes, where: str) -> Mapping[str, Any] | DataError:
    try:
        return as_record(_parse_json(line, where, "one JSON object a line"), where)
    except DataError as error:
        return error


def _parse_json(raw: bytes, where: str, remedy: str) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", where=where, remedy="save it as UTF-8") from None
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column {error.colno}"
        raise DataError(f"not JSON: {error.msg} at {at}", where=where, remedy=remedy) from None


def _holds_lines(path: Path) -> bool:
    """Whether the first line of a `.json` file that is not empty is a whole object."""
    with _opened(path) as file:
        for raw in file:
            if line := raw.removeprefix(_BYTE_ORDER_MARK).strip():
                with contextlib.suppress(ValueError):
                    return isinstance(json.loads(line), dict)
                return False
    return False


def _read_list(path: Path) -> list[Record]:
    remedy = "a .json file is one list of objects, or has one object a line"
    with _opened(path) as file:
        whole = _parse_json(file.read().removeprefix(_BYTE_ORDER_MARK), str(path), remedy)
    if not isinstance(whole, list):
        raise DataError(f"a JSON {type(whole).__name__}, not a list", where=str(path), remedy=remedy)
    return [(number, as_record(record, f"{path}:{number}")) for number, record in enumerate(whole, start=1)]


def _read_csv(path: Path, delimiter: str) -> Iterator[Record]:
    readers = _csv_readers(path, delimiter)
    for number, cells in _csv_records(path, delimiter):
        yield number, cells if isinstance(cells, DataError) else text_record(cells, readers)


def _csv_readers(path: Path, delimiter: str) -> dict[str, Read]:
    """What reads the cells of the columns; a fault is left for the pass that comes to it."""

    def records() -> Iterator[dict[str, str]]:
        with contextlib.suppress(DataError):
            yield from (cells for _, cells in _csv_records(path, delimiter) if not isinstance(cells, DataError))

    return readers_of(records())


def _csv_records(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, str] | DataError]]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    with _opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True, delimiter=delimiter)
        try:
            header = next(reader, [])
            for number, row in _rows_from(reader):
                if len(row) != len(header):
                    remedy = "quote cells that contain commas or line breaks"
                    what = f"{len(row)} cells under a header of {len(header)}"
                    yield number, DataError(what, where=f"{path}:{number}", remedy=remedy)
                else:
                    yield number, dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise DataError(f"not CSV: {error}", where=f"{path}:{reader.line_num}", remedy="check the quotes") from None
        except UnicodeDecodeError as error:
            where = f"{path}:{reader.line_num + 1}"
            raise DataError(f"not UTF-8: {error.reason}", where=where, remedy="save it as UTF-8") from None


def _rows_from(reader: Any) -> Iterator[tuple[int, list[str]]]:
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
    import pyarrow

    with _parquet_file(path) as file:
        try:
            batches = file.iter_batches(batch_size=TABLE_BATCH)
            yield from enumerate((record for batch in batches for record in batch.to_pylist()), start=1)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"damaged Parquet: {error}", where=str(path), remedy="write the file again") from None


def _read_arrow(path: Path) -> Iterator[Record]:
    with _arrow_batches(path) as (_, batches):
        pieces = (batch.slice(i, TABLE_BATCH) for batch in batches for i in range(0, batch.num_rows, TABLE_BATCH))
        yield from enumerate((record for piece in pieces for record in piece.to_pylist()), start=1)


@contextlib.contextmanager
def _arrow_batches(path: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Schema and batches of an Arrow file, in either of its two forms (with an index at its end, or a stream)."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        try:
            indexed = source.read(6) == b"ARROW1"
            source.seek(0)
            reader = pyarrow.ipc.open_file(source) if indexed else pyarrow.ipc.open_stream(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if indexed else iter(reader)
            yield reader.schema, batches
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"not Arrow: {error}", where=str(path), remedy="write the file again") from None
