"""Receipts of an index that is built in shards: a Lance dataset beside it, to which each shard's process appends.

    mine.lance            the index, still empty; the shards write their fragments into it
    mine.lance.receipts   one row a block that is computed, and one a shard that is finished

Appending is atomic on a local disk and on an object store, and shards may do it at the same time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import lance
import pyarrow as pa

from headwater.core.errors import StoreError
from headwater.index.failures import storing
from headwater.index.noted import is_local
from headwater.index.store import exists, locator

_SCHEMA = pa.schema(
    [pa.field(name, pa.int64()) for name in ("shard", "of", "block")]
    + [pa.field(name, pa.string()) for name in ("plan", "library", "body")]
)
_ATTEMPTS = 20


@dataclass(frozen=True)
class ShardNote:
    """What a shard's process writes down: the receipt of a block, or, with `block` −1, that the shard is finished.

    Attributes:
        shard, of: the shard's number, from 1, and the number of shards.
        block: the block's number.
        plan: digest of everything that the vectors depend on, as in the index's manifest.
        library: the version of headwater.
        body: the receipt; of a finished shard the numbers of `blocks` and `rows` of all data, and the data's `digest`.
    """

    shard: int
    of: int
    block: int
    plan: str
    library: str
    body: Mapping[str, Any]


def place_of(index: str) -> str:
    """Where the receipts of an index are."""
    return f"{index.rstrip('/')}.receipts"


def has_receipts(index: str) -> bool:
    """Whether there are receipts beside the index, of shards that have not been committed."""
    return exists(place_of(index))


def append_notes(index: str, notes: Sequence[ShardNote]) -> None:
    """Append notes in one commit; shards that append at the same time wait for one another."""
    rows = [{**asdict(note), "body": json.dumps(note.body)} for note in notes]
    table, place = pa.Table.from_pylist(rows, schema=_SCHEMA), place_of(index)
    with storing(place):
        for attempt in range(_ATTEMPTS):
            mode = "append" if exists(place) else "create"
            try:
                lance.write_dataset(table, locator(place), mode=mode)
            except (OSError, ValueError, RuntimeError) as error:  # another shard was first to make the dataset
                told = str(error).lower()
                if attempt == _ATTEMPTS - 1 or not any(word in told for word in ("exist", "conflict", "retry")):
                    raise
            else:
                return


def read_notes(index: str) -> list[ShardNote]:
    """All notes beside an index, in the order they were written; none if there are none."""
    place = place_of(index)
    if not exists(place):
        return []
    with storing(place):
        rows = lance.dataset(locator(place)).to_table().to_pylist()
    return [ShardNote(**{**row, "body": json.loads(row["body"])}) for row in rows]


def drop_notes(index: str) -> None:
    """Remove the receipts beside an index."""
    place = place_of(index)
    with storing(place):
        if is_local(place):
            shutil.rmtree(place)
        else:
            lance.LanceDataset.drop(place)


def require_no_receipts(index: str) -> None:
    """Raise `StoreError` if shards' files, which belong to no version of the index yet, must not be removed."""
    if has_receipts(index):
        what = "shards of this index wait to be committed"
        raise StoreError(what, where=index, remedy=f"headwater index commit {index} finishes it")
