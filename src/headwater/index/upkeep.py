"""The life of an index after it is written: sealing, deletion, compaction, sweeping up after a kill.

A change of several commits is bracketed by `changing`: the manifest says what is going on until the change is sealed,
so an index that was interrupted never looks whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from headwater.core.errors import StoreError, UsageError
from headwater.index.info import disk_bytes, unfinished
from headwater.index.manifest import Status, Tally
from headwater.index.store import Index, quoted, storing

_AGES = timedelta(days=36500)
"""Older than any version: cleaning up `older_than` it takes files that belong to no version, and nothing else."""


@dataclass(frozen=True)
class Compacted:
    """What a compaction did: rows left, bytes on disk before and after (None on an object store)."""

    rows: int
    bytes_before: int | None
    bytes_after: int | None


@contextlib.contextmanager
def changing(index: Index, status: Status, *, data: str | None = None) -> Iterator[None]:
    """Hold the index for writing and mark it as unfinished; seal it when the block ends without an error.

    `data` names the corpus the change takes rows from.

    Raises:
        StoreError: another kind of change was interrupted and must be finished first.
    """
    with index.writing():
        if index.manifest.status not in ("complete", status):
            raise StoreError(f"the index cannot be changed yet: {unfinished(index)}", where=index.path)
        names = index.manifest.data if data is None else tuple(dict.fromkeys((*index.manifest.data, data)))
        changed = dataclasses.replace(index.manifest, status=status, data=names)
        if changed != index.manifest:
            index.set_manifest(changed)
        yield
        seal(index)


def seal(index: Index) -> None:
    """Declare the index whole, with a tally of what it holds, in one commit."""
    index.set_manifest(dataclasses.replace(index.manifest, status="complete", tally=tally(index)))


def tally(index: Index) -> Tally:
    """The rows there are and their checksums in one; a row lost, added, brought back or out of order changes it."""
    rows, whole = 0, hashlib.blake2b(digest_size=8)
    for batch in index.batches(["checksum"]):
        rows += batch.num_rows
        whole.update(b"".join(value or b"" for value in batch.column("checksum").to_pylist()))
    return Tally(rows, whole.hexdigest())


def delete_rows(index: Index, *, ids: Sequence[str] | None = None, where: str | None = None) -> int:
    """Take rows out, by id or by an SQL condition, and return how many.

    They are out of every search at once, and out of the files after `compact`; until then an earlier version of the
    dataset still has them.

    Raises:
        StoreError: an id is not in the index (nothing is deleted then), or the condition cannot be used.
        UsageError: not exactly one of `ids` and `where` is given.
    """
    if (ids is None) == (where is None):
        raise UsageError("rows to delete are given by their ids or by a condition", remedy="give one of the two")
    with index.writing():
        # Whether the request makes sense is settled before the index is marked as being changed.
        present = _count(index, where) if ids is None else _present(index, ids)
        with changing(index, "deleting"):
            if present:
                condition = where or f"id IN ({', '.join(map(quoted, sorted(set(ids or ()))))})"
                with storing(index.path):
                    index.dataset.delete(condition)
    return present


def compact(index: Index) -> Compacted:
    """Rewrite the index without its deleted rows and drop every earlier version.

    Afterwards no file of the index holds a deleted row's text or vector, secondary indices included. Needs space for
    the rewritten part beside the old one. Handles that read an earlier version must be opened again.

    Raises:
        StoreError: a version carries a tag, which protects it.
    """
    with index.writing():
        before = disk_bytes(index.path)
        with storing(index.path):
            index.dataset.optimize.compact_files(materialize_deletions=True, materialize_deletions_threshold=0.0)
            index.dataset.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
        index.refresh()
        return Compacted(index.count, before, disk_bytes(index.path))


def sweep(index: Index) -> None:
    """Remove files that belong to no version: what a killed writer had not committed. Versions stay."""
    with index.writing(), storing(index.path):
        index.dataset.cleanup_old_versions(older_than=_AGES, delete_unverified=True)


def _present(index: Index, ids: Sequence[str]) -> int:
    """How many of the ids are rows; all must be, unless an interrupted deletion may already have taken them out."""
    missing = set(ids).difference(index.ids())
    if missing and index.manifest.status != "deleting":
        raise StoreError(
            f"{len(missing):,} of {len(set(ids)):,} ids are not in the index, such as '{min(missing)}'",
            where=index.path,
            remedy="nothing was deleted; leave these ids out",
        )
    return len(set(ids)) - len(missing)


def _count(index: Index, where: str | None) -> int:
    with storing(index.path, where=where):
        return int(index.dataset.count_rows(filter=where))
