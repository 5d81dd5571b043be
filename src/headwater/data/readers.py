"""Opening whatever rows come from: files, folders and patterns, saved and hub datasets, frames, and memory.

Each source yields `(number, record)`, as many times as it is asked. A record is a dictionary of columns. Its number,
with `Source.place`, says where it was read: the file, and the line in it or the position.

Several files are read one after the other, those of a folder or a pattern in natural order of their paths
(`headwater.data.folders`), several sources in the order given.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError, UsageError
from headwater.core.plain import as_python
from headwater.data.cells import TextRecord
from headwater.data.files import KNOWN_KINDS, Record, as_record, file_kind, read_file
from headwater.data.folders import by_pattern, in_folder
from headwater.data.records import as_record as row_as_record
from headwater.data.rows import Row

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
"""A dataset's name on the hub, with an optional configuration: `openai/gsm8k:main`."""

_PART_BITS = 40
"""The lower bits of a record's number count in its part, the higher bits count the parts."""


@dataclass(frozen=True)
class SourcePart:
    """One file, dataset or list: `records()` starts a new pass; `count` is None if it is not known before all are read.

    Numbers are those of the part alone, from 1. `schema` is the Arrow schema that the part declares, or None.
    """

    name: str
    count: int | None
    records: Callable[[], Iterator[Record]]
    schema: Any = None


@dataclass(frozen=True)
class Source:
    """Records from one part or several.

    Attributes:
        names: what the source was opened with, one name for each thing given.
        parts: where the records are, in order.
        split: the split that was asked for, if any.
    """

    names: tuple[str, ...]
    parts: tuple[SourcePart, ...]
    split: str | None = None

    @property
    def name(self) -> str:
        """The names in one line, for messages."""
        return ", ".join(self.names)

    @property
    def count(self) -> int | None:
        """The number of records; None if it is not known before all are read."""
        known = [part.count for part in self.parts]
        return None if None in known else sum(count or 0 for count in known)

    def records(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """All records, in order; raises the `DataError` of one that cannot be read. `place` explains their numbers."""
        for number, record in self.attempts():
            if isinstance(record, DataError):
                raise record
            yield number, record

    def attempts(self) -> Iterator[Record]:
        """All records, in order, each that cannot be read as its error; `place` explains their numbers."""
        for index, part in enumerate(self.parts):
            for number, record in part.records():
                yield index << _PART_BITS | number, record if isinstance(record, TextRecord) else as_python(record)

    def place(self, number: int) -> str:
        """Where a record was read, from its number: `part-2.jsonl:17`."""
        return f"{self.parts[number >> _PART_BITS].name}:{number & ((1 << _PART_BITS) - 1)}"


def open_source(source: Any, *, split: str | None = None, streaming: bool = False) -> Source:
    """The records of a path or hub name, of a list of such, or of an iterable of dictionaries; see `open_corpus`."""
    if isinstance(source, str | Path):
        return Source((str(source),), _named_parts(source, split, streaming), split)
    if isinstance(source, Sequence) and source and all(isinstance(one, str | Path) for one in source):
        parts = tuple(part for one in source for part in _named_parts(one, split, streaming))
        _require_once(parts)
        return Source(tuple(map(str, source)), parts, split)
    rows = _frame_rows(source)
    part = _memory("memory", _choose_split("memory", source, split) if rows is None else rows)
    if hasattr(source, "to_pylist"):  # Arrow
        part = replace(part, schema=source.schema)
    return Source(("memory",), (part,), split)


def _named_parts(source: str | Path, split: str | None, streaming: bool) -> tuple[SourcePart, ...]:
    """The parts of one path, pattern or hub name."""
    name = str(source)
    if (parts := _local_parts(source, split)) is None:
        return (_memory(name, _load_hub(name, split or "train", streaming)),)
    if streaming:
        remedy = "leave --streaming out; local files are never held in memory as a whole"
        raise UsageError("only a hub data set can be streamed", where=name, remedy=remedy)
    return parts


def _local_parts(source: str | Path, split: str | None) -> tuple[SourcePart, ...] | None:
    """The parts of a path or pattern; None for a hub name."""
    name, path = str(source), Path(source)
    if path.is_file():
        if split not in (None, "train"):
            raise UsageError(f"a file has no split '{split}'", where=name, remedy="leave the split out")
        return (_file(path),)
    folder, _, config = name.rpartition(":")
    if path.is_dir() or (folder and Path(folder).is_dir()):
        return _folder(path if path.is_dir() else Path(folder), name, "" if path.is_dir() else config, split)
    if glob.has_magic(name):
        if split is not None:
            raise UsageError(f"a pattern has no split '{split}'", where=name, remedy="put the split in the pattern")
        return tuple(map(_file, by_pattern(name)))
    if file_kind(name) is not None or isinstance(source, Path) or not HUB_NAME.fullmatch(name):
        raise DataError("no such file", where=name, remedy="check the path")
    return None


def _file(path: Path) -> SourcePart:
    return SourcePart(str(path), *read_file(path))


def _folder(folder: Path, name: str, config: str, split: str | None) -> tuple[SourcePart, ...]:
    if not config and any((folder / file).is_file() for file in ("state.json", "dataset_dict.json")):
        return (_memory(name, _choose_split(name, _load_saved(folder), split)),)
    splits = in_folder(folder, name, config)
    chosen = _one_split(name, splits, split, "--split NAME (split=), or give a pattern of files")
    return tuple(map(_file, splits[chosen]))


def _require_once(parts: Sequence[SourcePart]) -> None:
    """A file given twice would have every row twice."""
    seen = set()
    for part in parts:
        place = str(Path(part.name).resolve())
        if place in seen:
            raise UsageError("this is given twice", where=part.name, remedy="leave one out")
        seen.add(place)


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
            table = pa.Table.from_pandas(frame, preserve_index=False)
            return _with_own_times(list(table.to_pylist()), frame)
        except (pa.ArrowException, OverflowError):  # a column of mixed types: take the objects as they are
            return list(frame.astype(object).where(frame.notna(), None).to_dict("records"))
    return None


def _with_own_times(rows: list[dict[str, Any]], frame: Any) -> list[Mapping[str, Any]]:
    """The rows with the dates and times that a frame holds as objects, which Arrow makes dates if the first is."""
    for name in (name for name in frame.columns if frame[name].dtype == object):
        values = list(frame[name])
        if any(isinstance(value, date) for value in values):
            for row, value in zip(rows, values, strict=True):
                row[str(name)] = None if row[str(name)] is None else value
    return list(rows)


def _memory(name: str, records: Iterable[Any]) -> SourcePart:
    """A part made of any iterable; an iterator, which can be read only once, is first read into a list."""
    again = list(records) if isinstance(records, Iterator) else records
    schema = getattr(getattr(records, "features", None), "arrow_schema", None)
    return SourcePart(name, len(again) if isinstance(again, Sized) else None, partial(_numbered, name, again), schema)


def _numbered(name: str, records: Iterable[Any]) -> Iterator[Record]:
    for number, record in enumerate(records, start=1):
        given = row_as_record(record) if isinstance(record, Row) else record
        yield number, as_record(given, f"{name}:{number}")


def _load_saved(folder: Path) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(folder))
    except FileNotFoundError:
        remedy = f"give a folder that `save_to_disk` wrote, or one with files of rows: {KNOWN_KINDS}"
        raise DataError("not a whole saved dataset", where=str(folder), remedy=remedy) from None


def _load_hub(name: str, split: str, streaming: bool) -> Any:
    import datasets

    path, _, config = name.partition(":")
    try:
        return datasets.load_dataset(path, config or None, split=split, streaming=streaming)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "check the path, or the hub name, its configuration (name:configuration) and split"
        raise DataError(f"neither a file nor a dataset that loads: {reason}", where=name, remedy=remedy) from error


def _choose_split(name: str, dataset: Any, split: str | None) -> Iterable[Any]:
    """The chosen split of a dictionary of splits, or the only one; a dataset without splits counts as `train`."""
    if isinstance(dataset, Mapping):
        chosen: Iterable[Any] = dataset[_one_split(name, dataset, split, "--split NAME (split=)")]
        return chosen
    if not isinstance(dataset, Iterable):
        kinds = "a path, a hub dataset's name or an iterable of dictionaries"
        raise UsageError(f"rows from a {type(dataset).__name__}", where=name, remedy=f"give {kinds}")
    if split not in (None, "train"):
        raise UsageError(f"these rows have no split '{split}'", where=name, remedy="leave the split out")
    return dataset


def _one_split(name: str, splits: Mapping[str, Any], split: str | None, how: str) -> str:
    """The split that is asked for, or the only one there is."""
    listed = ", ".join(map(str, splits))
    if split is None and len(splits) == 1:
        return str(next(iter(splits)))
    if split is None:
        raise DataError(f"there are several splits: {listed}", where=name, remedy=f"choose one with {how}")
    if split not in splits:
        raise DataError(f"no split '{split}'", where=name, remedy=f"splits: {listed}")
    return split
