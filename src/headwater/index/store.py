"""The store: one Lance dataset per index. Blocks are appended by writing files and then committing them all at once.

After a kill at any moment the last committed version is intact. A writer on a local path locks a file inside the
index. Readers need no lock: an open index stays on its version until `refresh`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import lance
import pyarrow as pa

from headwater.core.errors import StoreError
from headwater.data.rows import Row
from headwater.index import manifest as manifests
from headwater.index.conditions import readable_condition
from headwater.index.failures import storing
from headwater.index.manifest import METADATA_KEY, Manifest
from headwater.index.noted import is_local, note_version
from headwater.index.rows import checksums, from_record, infer_schema, vector_fields

LOCK_NAME = ".writer.lock"
_READ_AHEAD = {"batch_readahead": 2, "fragment_readahead": 1, "io_buffer_size": 16 << 20}
"""Limits a scan's memory without slowing it. With more of both, a million rows of 1 KiB took 150 MiB more."""

_ABSENT, _MAKES = "there is no index here", "headwater index build makes one"

_LOOKUP_CHUNK = 4096
"""At most so many addresses or ids are put into one filter."""


class Index:
    """An open index: one version of its dataset, and its manifest.

    Attributes:
        path: local folder or object-store URI.
        dataset: the Lance dataset at the version that was opened.
        manifest: what the index is.
    """

    def __init__(self, path: str, dataset: lance.LanceDataset) -> None:
        self.path = path
        self.dataset = dataset
        self.manifest = _read_manifest(path, dataset)
        self._lock = filelock.FileLock(Path(path) / LOCK_NAME) if is_local(path) else None
        self._held = 0

    @property
    def count(self) -> int:
        """The number of rows, deleted ones not counted."""
        with self.reading():
            return int(self.dataset.count_rows())

    def count_where(self, condition: str | None) -> int:
        """The number of rows that meet an SQL condition; None counts all."""
        with self.reading(condition):
            return int(self.dataset.count_rows(filter=self.condition(condition)))

    @contextlib.contextmanager
    def reading(self, where: str | None = None) -> Iterator[None]:
        """Turn errors of the storage layer into `StoreError`; `where` is the user's condition, if there is one.

        Raises:
            StoreError: among others, a compaction has removed the version that this index is open at.
        """
        try:
            with storing(self.path, where=where):
                yield
        except StoreError as error:
            if "ot found" in error.what and self._is_removed():
                what = "the index was compacted while it was being read"
                raise StoreError(what, where=self.path, remedy="run the same command again") from error
            raise

    def _is_removed(self) -> bool:
        """Whether the version that this index is open at is gone, while there is a later one."""
        try:
            versions = [entry["version"] for entry in lance.dataset(locator(self.path)).versions()]
        except (OSError, ValueError):
            return False
        return self.dataset.version not in versions and max(versions, default=0) > self.dataset.version

    def condition(self, where: str | None) -> str | None:
        """A user's condition as Lance reads it over this index's columns."""
        return readable_condition(where, self.dataset.schema, self.path)

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the vector columns."""
        return tuple(column.name for column in self.manifest.columns)

    @property
    def rows_bytes(self) -> int:
        """The size of one row's vectors in bytes."""
        return sum(column.row_bytes for column in self.manifest.columns)

    @property
    def plain(self) -> list[str]:
        """Names of the columns that hold neither vectors nor their scales."""
        ours = {field.name for field in vector_fields(self.manifest.columns)}
        return [name for name in self.dataset.schema.names if name not in ours]

    def checksums(self, table: pa.Table | pa.RecordBatch) -> list[bytes]:
        """What the checksum of each row of the table should be; the table has all columns of the index."""
        return checksums(table, self.vectors, self.manifest.key(), widened=self.manifest.widened)

    def summed(self, table: pa.Table) -> pa.Table:
        """The table with its column `checksum` filled."""
        sums, place = pa.array(self.checksums(table), type=pa.binary(8)), table.schema.names.index("checksum")
        return table.set_column(place, table.schema.field(place), sums)

    def refresh(self) -> None:
        """Switch to the latest version."""
        with storing(self.path):
            self.dataset = lance.dataset(locator(self.path))
        self.manifest = _read_manifest(self.path, self.dataset)

    @property
    def fragments(self) -> list[int]:
        """The numbers of the dataset's fragments, in row order."""
        return [fragment.fragment_id for fragment in self.dataset.get_fragments()]

    def batches(
        self,
        columns: Sequence[str],
        *,
        where: str | None = None,
        rows: int = 8192,
        fragments: Collection[int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """The named columns and `_rowaddr` in row order, in batches of about `rows` rows.

        Only rows that meet the SQL condition `where` are read, and only those in `fragments`; None reads all. No batch
        has rows of two fragments, so that fragments which are read apart give the batches of one scan over all.
        """
        condition, every = self.condition(where), self.dataset.get_fragments()
        chosen = [one for one in every if fragments is None or one.fragment_id in fragments]
        groups = [[one] for one in chosen] if condition else [chosen]  # filtered batches would join fragments
        with self.reading(where):
            for group in groups if chosen else []:
                scanner = self.dataset.scanner(
                    columns=list(columns),
                    filter=condition,
                    batch_size=rows,
                    with_row_address=True,
                    scan_in_order=True,
                    fragments=group,
                    **_READ_AHEAD,
                )
                yield from scanner.to_batches()

    def ids(self) -> list[str]:
        """Every row's id, in row order."""
        return self._strings("id")

    def digests(self) -> list[str]:
        """Every row's digest, in row order."""
        return self._strings("digest")

    def take(self, positions: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows at these positions (0 is the first row), in the order given."""
        with self.reading():
            return self.dataset.take(list(positions), columns=None if columns is None else list(columns))

    def at(self, addresses: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows at these addresses (`_rowaddr`, as searches return it), in the order given, with repeats."""
        return self._lookup("_rowaddr", addresses, self.dataset.schema.names if columns is None else columns, str)

    def rows(self, addresses: Sequence[int]) -> list[Row]:
        """The rows at these addresses as they were read from their corpus, to show them or to run them again.

        Raises:
            StoreError: the index was built without text, or there is no row at an address.
        """
        return self._rows(self.at(addresses, self.plain))

    def fetch(self, ids: Sequence[str]) -> list[Row]:
        """The rows with these ids, in the order given; raises the same errors as `rows`."""
        return self._rows(self._lookup("id", ids, self.plain, quoted))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Switch to the latest version and hold the index for writing. Calls may be nested.

        An object store has no lock files. There, each step of a change first checks whether another process has
        committed since the change began; of two writers, the one that checks second gets the error.

        Raises:
            StoreError: another process is writing to the index.
        """
        if self._lock is None:
            self._require_unchanged()
            self._held += 1
            try:
                yield
            finally:
                self._held -= 1
            return
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise StoreError("another process is writing to the index", where=self.path, remedy="wait for it") from None
        try:
            if self._lock.lock_counter == 1:
                self.refresh()
            yield
        finally:
            self._lock.release()

    def set_manifest(self, changed: Manifest) -> None:
        """Commit a new manifest. Another thread may read or write files of the version before meanwhile."""
        with self.writing(), storing(self.path):
            latest = lance.dataset(locator(self.path), version=self.dataset.version)  # it is changed in place
            latest.update_schema_metadata({METADATA_KEY: changed.dumps()})
            self.dataset = latest
        self.manifest = changed
        note_version(self.path, self.dataset.version)

    def _require_unchanged(self) -> None:
        if not self._held:
            self.refresh()
            return
        with storing(self.path):
            latest = self.dataset.latest_version
        if latest != self.dataset.version:
            what = "another process has written to the index"
            raise StoreError(what, where=self.path, remedy="run one writer at a time")

    def _strings(self, name: str) -> list[str]:
        return [value for batch in self.batches([name]) for value in batch.column(name).to_pylist()]

    def _lookup(
        self, by: str, wanted: Sequence[Any], columns: Sequence[str], literal: Callable[[Any], str]
    ) -> pa.Table:
        """The rows whose column `by` holds the values `wanted`, in that order; `literal` writes a value as SQL."""
        distinct, pieces = sorted(set(wanted)), []
        for start in range(0, len(distinct), _LOOKUP_CHUNK):
            condition = f"{by} IN ({', '.join(map(literal, distinct[start : start + _LOOKUP_CHUNK]))})"
            with self.reading():
                scanner = self.dataset.scanner(columns=list(columns), filter=condition, with_row_address=True)
                pieces.append(scanner.to_table())
        if not pieces:
            return self.dataset.schema.empty_table().select(list(columns))
        found = pa.concat_tables(pieces)
        position = {value: i for i, value in enumerate(found.column(by).to_pylist())}
        missing = [value for value in wanted if value not in position]
        if missing:
            raise StoreError(f"no row with {by} {missing[0]!r}", where=self.path, remedy="it may have been deleted")
        return found.select(list(columns)).take([position[value] for value in wanted])

    def _rows(self, table: pa.Table) -> list[Row]:
        if not self.manifest.keeps_text:
            what = "the index was built without text, so its rows cannot be read back"
            remedy = "build it again with text, or look the ids up in the data"
            raise StoreError(what, where=self.path, remedy=remedy)
        return [
            from_record(record, ordinal=i, place=f"{self.path}#{record['id']}", vectors=self.vectors)
            for i, record in enumerate(table.to_pylist())
        ]


def locator(path: str) -> str:
    """The path as Lance needs it: absolute if local, because Lance takes a relative name with a colon for a URI."""
    return os.path.abspath(path) if is_local(path) else path


def quoted(text: str) -> str:
    """A string as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def open_index(path: str | Path, version: int | None = None) -> Index:
    """Open an index for reading and writing, at its latest version or, for reading alone, at an earlier one.

    Raises:
        StoreError: there is no index, it is not headwater's, is damaged, or was made by a newer headwater.
    """
    name = str(path)
    if is_local(name):
        _require_dataset(Path(name))
    try:
        with storing(name):
            dataset = lance.dataset(locator(name), version=version)
            dataset.schema  # noqa: B018 - with some damage only this raises
    except StoreError as error:
        if not is_local(name) and "was not found" in error.what:
            raise StoreError(_ABSENT, where=name, remedy=_MAKES) from error
        remedy = "restore it from a copy, or build it again"
        raise StoreError(f"the index is damaged: {error.what}", where=name, remedy=remedy) from error
    return Index(name, dataset)


def _require_dataset(path: Path) -> None:
    """Raise `StoreError` if a local path is plainly no index: nothing, a file, or a folder of other things."""
    if not (path / "_versions").exists():
        kind = "this folder is not an index" if path.is_dir() else "this is a file, and an index is a folder"
        raise StoreError(kind if path.exists() else _ABSENT, where=str(path), remedy=_MAKES)


def create_index(path: str | Path, manifest: Manifest, schema: pa.Schema | None = None) -> Index:
    """Make an empty index. Nothing that already exists is touched.

    Args:
        path: a local folder or an object-store URI.
        manifest: what the index is.
        schema: its columns, as `infer_schema` gives them for the first rows; None for an index without metadata.

    Raises:
        StoreError: something is at `path` already, or it cannot be written.
    """
    name = str(path)
    require_vacant(name, resume=False)
    columns = schema or infer_schema([], manifest.columns)
    empty = columns.with_metadata({METADATA_KEY: manifest.dumps()}).empty_table()
    with storing(name):
        if is_local(name):
            try:
                _create_by_renaming(Path(name), empty)
            except OSError as error:
                if error.errno in (None, errno.ENOSPC):
                    raise
                what = f"no index can be made here: {error.strerror}"
                raise StoreError(what, where=name, remedy="choose a folder that can be written to") from error
        else:
            lance.write_dataset(empty, name, mode="create")
    return open_index(name)


def require_vacant(path: str, *, resume: bool) -> None:
    """Raise `StoreError` if something is at the path, unless the build is to resume it."""
    if not resume and exists(path):
        raise StoreError("something is here already", where=path, remedy="go on with --resume or choose another name")


def discard(index: Index) -> None:
    """Remove a local index if it holds no row, so that its name is free again."""
    if is_local(index.path) and not index.count:
        shutil.rmtree(index.path, ignore_errors=True)


def exists(path: str) -> bool:
    """Whether anything is at the path (on an object store: whether a dataset is)."""
    if is_local(path):
        return Path(path).exists()
    try:
        lance.dataset(path)
    except (OSError, ValueError):
        return False
    return True


def _create_by_renaming(path: Path, empty: pa.Table) -> None:
    """Write under a temporary name and rename, so that after a kill there is either nothing at `path` or an index."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        lance.write_dataset(empty, str(work / "new"), mode="create")
        (work / "new").rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _read_manifest(path: str, dataset: lance.LanceDataset) -> Manifest:
    text = (dataset.schema.metadata or {}).get(METADATA_KEY.encode())
    if text is None:
        raise StoreError("this Lance dataset is not a headwater index", where=path)
    return manifests.loads(text.decode(), where=path)
