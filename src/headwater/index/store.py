"""The store: one Lance dataset per index, appended to block by block: files are written, then committed at once.

A kill at any moment leaves the last committed version. Writers on a local path take a lock file inside the index;
readers need none: a handle stays on the version it opened until `refresh`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata

from headwater.core.errors import HeadwaterError, StoreError
from headwater.data.rows import Row
from headwater.index import manifest as manifests
from headwater.index.manifest import METADATA_KEY, Manifest
from headwater.index.rows import checksums, from_record, infer_schema, vector_fields

LOCK_NAME = ".writer.lock"
_STORAGE_ERRORS = (OSError, ValueError, RuntimeError, NotImplementedError, pa.ArrowException)
"""What Lance raises; damaged files can also make it panic, which arrives as a `BaseException`."""

_READ_AHEAD = {"batch_readahead": 2, "fragment_readahead": 2, "io_buffer_size": 64 << 20}
"""Holds a scan to some 400 MiB (16 KiB a row, any number of rows; 650 with Lance's defaults), at the same speed."""

_ABSENT, _MAKES = "there is no index here", "headwater index build makes one"

_LONGEST_REASON = 400
"""Characters of a message of the storage layer that are passed on."""

_LOOKUP_CHUNK = 4096
"""Rows asked for by address or id in one filter."""


class Index:
    """An open index: a version of its dataset, and its manifest.

    Attributes:
        path: local folder or object-store URI.
        dataset: the Lance dataset at the version this handle reads.
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
        """Rows, without those deleted."""
        return int(self.dataset.count_rows())

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the vector columns."""
        return tuple(column.name for column in self.manifest.columns)

    @property
    def rows_bytes(self) -> int:
        """Bytes one row's vectors take."""
        return sum(column.row_bytes for column in self.manifest.columns)

    @property
    def plain(self) -> list[str]:
        """Names of the columns that are not vectors, nor scales of vectors."""
        ours = {field.name for field in vector_fields(self.manifest.columns)}
        return [name for name in self.dataset.schema.names if name not in ours]

    def refresh(self) -> None:
        """Read the latest version from now on."""
        with storing(self.path):
            self.dataset = lance.dataset(locator(self.path))
        self.manifest = _read_manifest(self.path, self.dataset)

    def batches(
        self, columns: Sequence[str], *, where: str | None = None, rows: int = 8192
    ) -> Iterator[pa.RecordBatch]:
        """The columns and `_rowaddr` of all rows in row order, in batches of at most `rows`.

        Args:
            columns: column names.
            where: an SQL condition over the columns.
            rows: most rows a batch.
        """
        scanner = self.dataset.scanner(
            columns=list(columns),
            filter=where,
            with_row_address=True,
            batch_size=rows,
            scan_in_order=True,
            **_READ_AHEAD,
        )
        with storing(self.path, where=where):
            yield from scanner.to_batches()

    def ids(self) -> list[str]:
        """Every row's id, in row order."""
        return self._strings("id")

    def digests(self) -> list[str]:
        """Every row's digest, in row order."""
        return self._strings("digest")

    def take(self, positions: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Rows by position in row order (0 is the first), in the order asked for."""
        with storing(self.path):
            return self.dataset.take(list(positions), columns=None if columns is None else list(columns))

    def at(self, addresses: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Rows by address (`_rowaddr`, as a search returns it), in the order asked for, repeats included."""
        names = self.dataset.schema.names if columns is None else list(columns)
        wanted = sorted(set(addresses))
        pieces = [
            self._where(f"_rowaddr IN ({', '.join(map(str, wanted[i : i + _LOOKUP_CHUNK]))})", names)
            for i in range(0, len(wanted), _LOOKUP_CHUNK)
        ]
        return self._ordered(pieces, "_rowaddr", addresses, names)

    def rows(self, addresses: Sequence[int]) -> list[Row]:
        """The rows at these addresses as they were read from their corpus, to show or to run again.

        Raises:
            StoreError: the index was built without text, or an address holds no row.
        """
        return self._rows(self.at(addresses, self.plain))

    def fetch(self, ids: Sequence[str]) -> list[Row]:
        """The rows with these ids, in the order asked for; same errors as `rows`."""
        wanted = sorted(set(ids))
        pieces = [
            self._where(f"id IN ({', '.join(map(quoted, wanted[i : i + _LOOKUP_CHUNK]))})", self.plain)
            for i in range(0, len(wanted), _LOOKUP_CHUNK)
        ]
        return self._rows(self._ordered(pieces, "id", ids, self.plain))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the index for writing, on its latest version; re-entrant.

        An object store has no lock files: there, each step of a change first looks whether anyone else has committed
        since the change began. Of two writers the one that looks second is refused.

        Raises:
            StoreError: another process is writing to it.
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
        """Commit another manifest."""
        with self.writing(), storing(self.path):
            self.dataset.update_schema_metadata({METADATA_KEY: changed.dumps()})
        self.manifest = changed

    def _require_unchanged(self) -> None:
        if not self._held:
            self.refresh()
            return
        with storing(self.path):
            latest = self.dataset.latest_version
        if latest != self.dataset.version:
            raise StoreError(
                "another process has written to the index", where=self.path, remedy="run one writer at a time"
            )

    def _strings(self, name: str) -> list[str]:
        return [value for batch in self.batches([name]) for value in batch.column(name).to_pylist()]

    def _where(self, condition: str, names: Sequence[str]) -> pa.Table:
        with storing(self.path):
            return self.dataset.scanner(columns=list(names), filter=condition, with_row_address=True).to_table()

    def _ordered(self, pieces: Sequence[pa.Table], by: str, wanted: Sequence[object], names: Sequence[str]) -> pa.Table:
        if not pieces:
            return self.dataset.schema.empty_table().select(list(names))
        found = pa.concat_tables(pieces)
        position = {value: i for i, value in enumerate(found.column(by).to_pylist())}
        missing = [value for value in wanted if value not in position]
        if missing:
            raise StoreError(f"no row with {by} {missing[0]!r}", where=self.path, remedy="it may have been deleted")
        return found.select(list(names)).take([position[value] for value in wanted])

    def _rows(self, table: pa.Table) -> list[Row]:
        if not self.manifest.keeps_text:
            raise StoreError(
                "the index was built without text, so its rows cannot be read back",
                where=self.path,
                remedy="build it again with text, or look the ids up in the data",
            )
        return [
            from_record(record, ordinal=i, place=f"{self.path}#{record['id']}", vectors=self.vectors)
            for i, record in enumerate(table.to_pylist())
        ]


def is_local(path: str) -> bool:
    """True for a path on this machine, False for an object-store URI."""
    return "://" not in path


def locator(path: str) -> str:
    """The path as Lance takes it: a local name with a colon in it would else be a URI."""
    return os.path.abspath(path) if is_local(path) else path


def quoted(text: str) -> str:
    """A string as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


@contextlib.contextmanager
def storing(path: str, *, where: str | None = None) -> Iterator[None]:
    """Turn what the storage layer raises into `StoreError`, with the place and what to do."""
    try:
        yield
    except HeadwaterError:
        raise
    except BaseException as error:
        if not isinstance(error, _STORAGE_ERRORS) and type(error).__name__ != "PanicException":
            raise
        reason = _brief(str(error))
        if where is not None and (isinstance(error, ValueError) or "Invalid user input" in reason):
            raise StoreError(f"the condition {where!r} cannot be used: {reason}", where=path) from error
        full = "No space left" in reason or "os error 28" in reason
        remedy = (
            "free some space and run the same command with --resume" if full else "headwater index verify says more"
        )
        raise StoreError("the disk is full" if full else reason, where=path, remedy=remedy) from error


def _brief(message: str) -> str:
    """Lance's message without the source lines it adds, in one line of bearable length."""
    words = " ".join(message.split(", /", 1)[0].split())
    return words if len(words) <= _LONGEST_REASON else f"{words[:_LONGEST_REASON]}…"


def open_index(path: str | Path) -> Index:
    """Open an index for reading and writing.

    Raises:
        StoreError: there is none, it is not one of ours, is damaged, or was made by a newer headwater.
    """
    name = str(path)
    if is_local(name) and not Path(name).exists():
        raise StoreError(_ABSENT, where=name, remedy=_MAKES)
    try:
        with storing(name):
            dataset = lance.dataset(locator(name))
            dataset.schema  # noqa: B018 - a damaged manifest may show only here
    except StoreError as error:
        if not is_local(name) and "was not found" in error.what:
            raise StoreError(_ABSENT, where=name, remedy=_MAKES) from error
        raise StoreError(f"this is not an index, or it is damaged: {error.what}", where=name) from error
    return Index(name, dataset)


def create_index(path: str | Path, manifest: Manifest, schema: pa.Schema | None = None) -> Index:
    """Make an empty index; what already exists is never touched.

    Args:
        path: a local folder or an object-store URI.
        manifest: what the index is.
        schema: its columns, as `infer_schema` finds them on the first rows; without the user's own unless given.

    Raises:
        StoreError: something is there already, or the place cannot be written.
    """
    name = str(path)
    require_vacant(name, resume=False)
    columns = schema or infer_schema([], manifest.columns)
    empty = columns.with_metadata({METADATA_KEY: manifest.dumps()}).empty_table()
    with storing(name):
        if is_local(name):
            _create_by_renaming(Path(name), empty)
        else:
            lance.write_dataset(empty, name, mode="create")
    return open_index(name)


def require_vacant(path: str, *, resume: bool) -> None:
    """Raise `StoreError` where something is at the path and the build is not to go on with it."""
    if not resume and exists(path):
        raise StoreError("something is here already", where=path, remedy="go on with --resume or choose another name")


def discard(index: Index) -> None:
    """Take away a local index that holds no row, so that its name is free again."""
    if is_local(index.path) and not index.count:
        shutil.rmtree(index.path, ignore_errors=True)


def exists(path: str) -> bool:
    """Whether anything is at the path (of an object store: a dataset)."""
    if is_local(path):
        return Path(path).exists()
    try:
        lance.dataset(path)
    except (OSError, ValueError):
        return False
    return True


def write_fragments(index: Index, table: pa.Table) -> list[dict[str, Any]]:
    """Write a table as files of the index that no version has yet, and return what `commit_fragments` needs of them.

    The table has all the index's columns; its `checksum` column is made here. What is returned is JSON-ready. Files
    that are never committed are removed by `headwater.index.upkeep.sweep`.
    """
    with storing(index.path):
        sums = pa.array(checksums(table, index.vectors, index.manifest.key()), type=pa.binary(8))
        place = table.schema.names.index("checksum")
        table = table.set_column(place, table.schema.field(place), sums)
        written = lance.fragment.write_fragments(table, index.dataset, mode="append")
    return [fragment.to_json() for fragment in written]


def commit_fragments(index: Index, fragments: Sequence[Mapping[str, Any]]) -> None:
    """Append written fragments to the index, in this order, as one commit."""
    with index.writing(), storing(index.path):
        append = lance.LanceOperation.Append([FragmentMetadata.from_json(json.dumps(f)) for f in fragments])
        index.dataset = lance.LanceDataset.commit(index.dataset, append, read_version=index.dataset.version)


def _create_by_renaming(path: Path, empty: pa.Table) -> None:
    """Write beside the path and rename, so that a kill leaves either nothing or an index under the name."""
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
