"""The life of an index: rows come, rows go, and what is there is checked.

add(session, corpus)      rows the index does not have yet
delete(index, ids=...)    rows out, by id, condition, or a file of the rows themselves
recompute(session, 16)    faults that show when rows are read again with the model
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headwater.core.errors import DataError, NumericError, StoreError, UsageError
from headwater.core.fingerprints import digest
from headwater.data.corpus import Corpus
from headwater.data.rows import Row
from headwater.data.seen import SeenIds
from headwater.data.tokens import TokenRow
from headwater.engines.blocks import Block, OnProgress, cut, run
from headwater.index.checks import Fault
from headwater.index.rows import from_record, text_fields
from headwater.index.store import Index
from headwater.index.upkeep import changing, delete_rows
from headwater.indexing.blocks import IndexRows, Progress
from headwater.indexing.session import Session
from headwater.search import codes

LEAST_COSINE = 0.999
"""Recomputed vectors may differ by rounding (other batches, other kernels), not more."""


@dataclass(frozen=True)
class Added:
    """What an addition did: rows computed and stored, and rows that were there already (or twice in the data)."""

    rows: int
    duplicates: int


def add(session: Session, corpus: Corpus, *, on_progress: OnProgress | None = None) -> Added:
    """Append the corpus's rows whose content is new, read as the index's own were; the same call goes on after a kill.

    Content is new when its digest (row, template, tokenizer) is. Duplicates are counted, not stored.

    Raises:
        DataError: a new row has the id of another row.
        StoreError: the index's build is unfinished, or another process is writing to it.
    """
    index, bound = session.index, session.bound
    progress = Progress(on_progress, corpus.count)
    added = 0

    def new_blocks() -> Iterator[Block[TokenRow]]:
        nonlocal added
        ids, known = _there(index)
        for block in cut(corpus, index.manifest.plan.block_rows):
            new = _new_rows(bound.reader.tokenization.encode(block.items), ids, known)
            added += len(new)
            if new:
                yield Block(block.number, block.start, new)
            progress.past(len(block.items) - len(new), 0)
            progress.within(0, 0)

    with changing(index, "adding", data=corpus.name):
        run(new_blocks(), IndexRows(index, bound, progress), progress.commit)
    return Added(added, progress.rows - added)


def delete(
    index: Index, *, ids: Sequence[str] | None = None, where: str | None = None, rows: Corpus | None = None
) -> int:
    """Take rows out of every search, by ids, by an SQL condition, or by their text, and return how many.

    `rows` deletes every row whose text fields equal those of one of these, whatever its id. Nothing is deleted when an
    id or a text is not in the index. `compact` then takes them out of the files.

    Raises:
        StoreError: an id or a text is not in the index, or it was built without text and `rows` is given.
        UsageError: not exactly one of the three is given.
    """
    if rows is None:
        return delete_rows(index, ids=ids, where=where)
    if ids is not None or where is not None:
        raise UsageError("rows to delete are given in more than one way", remedy="give ids, a condition, or rows")
    return delete_rows(index, ids=_ids_of_texts(index, rows))


def recompute(session: Session, sample: int) -> list[Fault]:
    """Faults found by reading up to `sample` rows, evenly spread, once more with the model.

    Kinds: `digest` (a row's text is not what its digest says), `recomputed` (a row's vector is not what the model
    gives).

    Raises:
        StoreError: the index was built without text.
    """
    index = session.index
    if not index.manifest.keeps_text:
        raise StoreError(
            "rows cannot be read again: the index was built without text",
            where=index.path,
            remedy="verify without model",
        )
    positions = np.unique(np.linspace(0, index.count - 1, min(sample, index.count)).round().astype(int)).tolist()
    table = index.take(positions)
    records = table.select(index.plain).to_pylist()
    rows = [from_record(r, ordinal=i, place=f"row '{r['id']}'", vectors=index.vectors) for i, r in enumerate(records)]
    bound = session.bound
    try:
        token_rows = bound.reader.tokenization.encode(rows)
        vectors, _ = bound.stored(token_rows, index.manifest.columns)
    except (DataError, NumericError) as error:
        return [Fault("recomputed", error.what, error.where)]
    faults = [
        Fault("digest", "the text is not what the digest says", row.row.place)
        for row, record in zip(token_rows, records, strict=True)
        if row.digest != record["digest"]
    ]
    for column in index.manifest.columns:
        apart = _apart(codes.stored_vectors(table, column), codes.decode(vectors, column))
        what = f"the vector in '{column.name}' is not what the model gives"
        faults.extend(Fault("recomputed", what, rows[i].place) for i in apart.nonzero().flatten().tolist())
    return faults


def _apart(stored: Float[Tensor, "rows dim"], again: Float[Tensor, "rows dim"]) -> Bool[Tensor, " rows"]:
    """Which rows differ by more than rounding: ‖a − b‖² > 2 (1 − cos) max(‖a‖, ‖b‖)², the cosine `LEAST_COSINE`."""
    scale = torch.maximum(stored.norm(dim=1), again.norm(dim=1))
    apart: Tensor = (stored - again).norm(dim=1) > (2 - 2 * LEAST_COSINE) ** 0.5 * scale
    return apart


def _there(index: Index) -> tuple[SeenIds, SeenIds]:
    """The ids and the digests of the index's rows, in bounded memory."""
    ids, digests = SeenIds(), SeenIds()
    for batch in index.batches(["id", "digest"]):
        for seen, name in ((ids, "id"), (digests, "digest")):
            for value in batch.column(name).to_pylist():
                seen.claim(value, 0)
    return ids, digests


def _new_rows(rows: Sequence[TokenRow], ids: SeenIds, known: SeenIds) -> list[TokenRow]:
    """The rows of new content; `ids` and `known` grow by theirs."""
    new = []
    for row in rows:
        if known.claim(row.digest, row.row.ordinal) is not None:
            continue
        if ids.claim(row.row.id, row.row.ordinal) is not None:
            raise DataError(
                f"the index has another row with the id '{row.row.id}'", where=row.row.place, remedy="make ids unique"
            )
        new.append(row)
    return new


def _ids_of_texts(index: Index, rows: Corpus) -> list[str]:
    """Ids of all rows of the index whose text is that of one of `rows`."""
    wanted = {digest(text_fields(row)): row for row in rows}
    found: dict[str, list[str]] = {}
    for key, row_id in _texts(index):
        if key in wanted:
            found.setdefault(key, []).append(row_id)
    missing: list[Row] = [row for key, row in wanted.items() if key not in found]
    if missing:
        raise StoreError(
            f"{len(missing):,} of {len(wanted):,} texts are not in the index, such as that of row '{missing[0].id}'",
            where=missing[0].place,
            remedy="nothing was deleted; leave these rows out",
        )
    return [row_id for ids in found.values() for row_id in ids]


def _texts(index: Index) -> Iterator[tuple[str, str]]:
    """Of each row: the digest of its text fields, and its id."""
    if not index.manifest.keeps_text:
        raise StoreError("rows cannot be found by their text: the index has none", where=index.path, remedy="give ids")
    for batch in index.batches(index.plain):
        for record in batch.drop_columns(["_rowaddr"]).to_pylist():
            row = from_record(record, ordinal=0, place="", vectors=index.vectors)
            yield digest(text_fields(row)), row.id
