"""Change an index after it is written: seal it, delete rows, compact it, remove the leftovers of a kill.

A change of several commits runs inside `changing`: until it is sealed, the manifest says which change is going on, so
an index whose change was interrupted never looks complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from lance.optimize import Compaction

from headwater.core.errors import StoreError, UsageError
from headwater.core.progress import tell
from headwater.index.conditions import mentions, with_dots
from headwater.index.failures import storing
from headwater.index.fragments import commit_fragments, fragment_numbers
from headwater.index.info import disk_bytes, unfinished
from headwater.index.manifest import Status, Tally
from headwater.index.receipts import require_no_receipts
from headwater.index.rows import TEXT_FIELDS
from headwater.index.store import Index, quoted

_AGES = timedelta(days=36500)
"""Longer than any version is old: a clean-up with this age removes only files that belong to no version."""


@dataclass(frozen=True)
class Compacted:
    """The result of a compaction: rows left, and bytes on disk before and after (None on an object store)."""

    rows: int
    bytes_before: int | None
    bytes_after: int | None


@contextlib.contextmanager
def changing(index: Index, status: Status, *, data: str | None = None, left_out: int = 0) -> Iterator[None]:
    """Hold the index for writing and mark it as unfinished; seal it when the `with` block ends without an error.

    `data` names the corpus that the change takes rows from; `left_out` of its rows cannot be used.

    After an error, an index to which nothing was committed is as complete as it was before.

    Raises:
        StoreError: another kind of change was interrupted and must be finished first.
    """
    with index.writing():
        require_free(index, status)
        before = index.manifest
        names = before.data if data is None else tuple(dict.fromkeys((*before.data, data)))
        begun_before = before.status == status  # then its rows that were left out are counted already
        unused = before.left_out + (0 if begun_before else left_out)
        changed = dataclasses.replace(before, status=status, data=names, left_out=unused)
        if changed != before:
            index.set_manifest(changed)
        begun = index.dataset.version
        try:
            yield
        except BaseException:
            if before.complete and index.dataset.version == begun:  # nothing was changed
                index.set_manifest(before)
            raise
        seal(index)


def require_free(index: Index, status: Status) -> None:
    """Raise `StoreError` if another kind of change than `status` was interrupted and must be finished first."""
    if index.manifest.status not in ("complete", status):
        raise StoreError(f"the index cannot be changed yet: {unfinished(index)}", where=index.path)


def seal(index: Index, *, filled: bool = False) -> None:
    """Mark the index as complete and record the tally of its rows, in one commit; `filled`: that ended its build."""
    manifest, found = index.manifest, tally(index)
    built = found.rows if filled else manifest.rows_built
    index.set_manifest(dataclasses.replace(manifest, status="complete", tally=found, rows_built=built, open_after=None))


def tally(index: Index) -> Tally:
    """Count the rows and digest their checksums; a row lost, added, restored or moved changes the result."""
    rows, combined = 0, hashlib.blake2b(digest_size=8)
    for batch in index.batches(["checksum"]):
        rows += batch.num_rows
        combined.update(b"".join(value or b"" for value in batch.column("checksum").to_pylist()))
    return Tally(rows, combined.hexdigest())


def delete_rows(index: Index, *, ids: Sequence[str] | None = None, where: str | None = None) -> int:
    """Delete rows by id or by an SQL condition, and return how many.

    No search finds them any more, but they stay in the files, and in earlier versions of the dataset, until `compact`.

    Raises:
        StoreError: an id is not in the index (nothing is deleted then), or the condition cannot be used.
        UsageError: not exactly one of `ids` and `where` is given.
    """
    if (ids is None) == (where is None):
        raise UsageError("rows to delete are given by their ids or by a condition", remedy="give one of the two")
    with index.writing():
        # Check the request before the index is marked as unfinished.
        present = index.count_where(where) if ids is None else _present(index, ids)
        condition = where or f"id IN ({', '.join(map(quoted, sorted(set(ids or ()))))})"
        amid = index.manifest.status == "adding"  # a takedown does not wait for an addition to be finished
        with contextlib.nullcontext() if amid else changing(index, "deleting"):
            if present:
                with storing(index.path):
                    index.dataset.delete(index.condition(condition))
    return present


def unseen_rows(index: Index, where: str) -> dict[str, int]:
    """By column that the condition names: how many rows hold a value there that the condition cannot see.

    A value that does not fit its column's type is stored as JSON in `extra`, where SQL does not look.
    """
    return {name: count for name, count in kept_aside(index).items() if mentions(where, name)}


def kept_aside(index: Index) -> dict[str, int]:
    """Metadata name to the number of rows whose value is in `extra` alone, where no condition sees it."""
    found: Counter[str] = Counter()
    columns = set(index.plain)
    for batch in index.batches(index.plain, where="extra IS NOT NULL"):
        for row in batch.to_pylist():
            found.update(n for n in json.loads(row["extra"]) if n not in columns or row[n] is None)
    return {with_dots(name): count for name, count in found.items() if name not in TEXT_FIELDS}


def compact(index: Index) -> Compacted:
    """Rewrite the index without its deleted rows and drop every earlier version.

    Afterwards no file of the index, vector indices included, holds a deleted row's text or vector. While it runs, the
    old and the rewritten part both need space. An `Index` that was opened before must be opened again.

    Raises:
        StoreError: a version carries a tag, which protects it.
    """
    require_no_receipts(index.path)
    with index.writing():
        before = disk_bytes(index.path)
        if index.manifest.status in ("complete", "compacting"):
            with changing(index, "compacting"):
                _compact(index)
            _drop_versions(index)  # the one whose manifest said that a compaction was going on
        else:  # the interrupted change stays to be finished
            _compact(index)
        return Compacted(index.count, before, disk_bytes(index.path))


def _compact(index: Index) -> None:
    _drop_open(index)
    options = {"materialize_deletions": True, "materialize_deletions_threshold": 0.0}
    with storing(index.path):
        tasks, rewritten = Compaction.plan(index.dataset, options).tasks, []
        for done, task in enumerate(tasks):
            tell("rewriting files", done, len(tasks), "parts")
            rewritten.append(task.execute(index.dataset))
        if rewritten:
            Compaction.commit(index.dataset, rewritten)
            index.refresh()
    _drop_versions(index)


def _drop_open(index: Index) -> None:
    """Remove the rows of an open block, which a rewriting would mix with others; the next run reads them again."""
    after = index.manifest.open_after
    if after is not None:
        commit_fragments(index, [], instead_of=[number for number in fragment_numbers(index) if number > after])
        index.set_manifest(dataclasses.replace(index.manifest, open_after=None))


def _drop_versions(index: Index) -> None:
    """Remove every version but the latest, and with them the files that only they have."""
    with storing(index.path):
        index.dataset.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
    index.refresh()


def sweep(index: Index) -> None:
    """Remove files that belong to no version, which a killed writer left uncommitted; versions stay.

    Raises:
        StoreError: shards of the index wait to be committed; their files belong to no version yet.
    """
    require_no_receipts(index.path)
    with index.writing(), storing(index.path):
        index.dataset.cleanup_old_versions(older_than=_AGES, delete_unverified=True)


def _present(index: Index, ids: Sequence[str]) -> int:
    """How many of the ids are in the index. All must be, unless an interrupted deletion may have deleted some."""
    missing = set(ids).difference(index.ids())
    if missing and index.manifest.status != "deleting":
        what = f"{len(missing):,} of {len(set(ids)):,} ids are not in the index, such as '{min(missing)}'"
        raise StoreError(what, where=index.path, remedy="nothing was deleted; leave these ids out")
    return len(set(ids)) - len(missing)
