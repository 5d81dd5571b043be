"""Maintain an index: add rows, delete rows, and check rows against the model.

add(session, corpus)      append the rows that the index does not have yet
delete(index, ids=...)    delete rows by id, by a condition, or by their text
recompute(session, 16)    read rows again with the model and return the faults that this shows
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headwater.core.errors import DataError, NumericError, StoreError, UsageError
from headwater.core.fingerprints import digest
from headwater.data.corpus import Corpus, SeenIds
from headwater.data.records import as_given
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.engines.blocks import Block, Engine, OnProgress, cut
from headwater.engines.local import Local
from headwater.index.checks import Fault
from headwater.index.growth import make_room
from headwater.index.rows import columnless, from_record
from headwater.index.store import Index
from headwater.index.upkeep import changing, delete_rows, require_free
from headwater.indexing.blocks import IndexRows, Progress
from headwater.indexing.open_block import name_of, read_open
from headwater.indexing.session import Session
from headwater.search import codes

LEAST_COSINE = 0.999
"""A recomputed vector may differ from the stored one by rounding (other batches, other kernels), but not by more."""


@dataclass(frozen=True)
class Added:
    """The result of an addition: rows that were stored, and rows that were not, because the index or the data had them.

    Attributes:
        rows: how many rows were computed and stored.
        duplicates: how many rows the index had already, or came a second time in the data.
        left_out: how many rows were left out because they cannot be used.
        aside: metadata name to the number of added rows whose value no column of the index holds; it is in `extra`.
    """

    rows: int
    duplicates: int
    left_out: int = 0
    aside: Mapping[str, int] = field(default_factory=dict)


def add(
    session: Session,
    corpus: Corpus,
    *,
    engine: Engine | None = None,
    loading: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> Added:
    """Append the rows of the corpus that the index does not have, read in the same way as its own.

    A row is new if its id is, whether its text is known or not: building and adding give the rows that one build of all
    the data gives. Rows that the index has, with their id, are counted and not stored. Metadata that the index has no
    column for gets one. After a kill, the same call continues. `engine` and `loading` as in
    `headwater.indexing.build.build`.

    Raises:
        DataError: a row has the id of another row of the index, with another text.
        StoreError: the index's build is unfinished, or another process is writing to it.
    """
    index, bound = session.index, session.bound
    progress = Progress(on_progress, corpus.count)
    added, aside = 0, Counter[str]()

    def new_blocks() -> Iterator[Block[TokenRow]]:
        nonlocal added
        for block in cut(corpus, index.manifest.plan.block_rows):
            rows = bound.reader.tokenization.encode(block.items)
            begun = set(opened.places) if opened and opened.within(rows) else set()
            new = _new_rows(rows, ids, known, set(begun))
            added += len(new) - len(begun)
            aside.update(columnless([row.row for row in new], index.dataset.schema, index.vectors))
            if new:
                yield Block(block.number, block.start, new)
            progress.past(len(block.items) - len(new), 0)
            progress.within(0, 0)

    with index.writing():
        require_free(index, "adding")
        ids, known = _ids_and_rows(index)
        opened = read_open(index)
        make_room(index, (row for row in corpus if ids.first(row.id) is None))
        with changing(index, "adding", data=corpus.name, left_out=len(corpus.left_out)):
            work = IndexRows(index, bound, progress, loading or {}, opened)
            (engine or Local()).run(new_blocks(), work, progress.commit)
    return Added(added, progress.rows - added, len(corpus.left_out), dict(aside))


def delete(
    index: Index, *, ids: Sequence[str] | None = None, where: str | None = None, rows: Corpus | None = None
) -> int:
    """Delete rows by ids, by an SQL condition, or by their text, and return how many.

    `rows` deletes every row that has the same text fields as one of `rows`, whatever its id. If an id or a text is not
    in the index, nothing is deleted. No search finds deleted rows; `compact` then removes them from the files.

    Raises:
        StoreError: an id or a text is not in the index, or `rows` is given and the index was built without text.
        UsageError: not exactly one of the three is given.
    """
    if rows is None:
        return delete_rows(index, ids=ids, where=where)
    if ids is not None or where is not None:
        raise UsageError("rows to delete are given in more than one way", remedy="give ids, a condition, or rows")
    return delete_rows(index, ids=_ids_of_texts(index, rows))


def recompute(session: Session, sample: int) -> list[Fault]:
    """Read up to `sample` rows, evenly spread, again with the model, and return the faults that this shows.

    Kinds: `digest` (a row's text does not match its digest), `recomputed` (a row's vector is not what the model gives).

    Raises:
        StoreError: the index was built without text.
    """
    index = session.index
    if not index.manifest.keeps_text:
        what = "rows cannot be read again: the index was built without text"
        raise StoreError(what, where=index.path, remedy="verify without model")
    if not index.count:
        return []
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


def _ids_and_rows(index: Index) -> tuple[SeenIds, SeenIds]:
    """The ids of the index's rows, and their ids together with their digests, in bounded memory."""
    ids, known = SeenIds(), SeenIds()
    for batch in index.batches(["id", "digest"]):
        for row_id, row_digest in zip(*(batch.column(name).to_pylist() for name in ("id", "digest")), strict=True):
            ids.claim(row_id, 0)
            known.claim(row_digest + row_id, 0)
    return ids, known


def _new_rows(rows: Sequence[TokenRow], ids: SeenIds, known: SeenIds, begun: set[str]) -> list[TokenRow]:
    """The rows whose id is not in `ids`, which are then added to it; `known` holds each row's digest and id.

    The rows `begun` are in the index, and nevertheless new: their block is open.
    """
    new = []
    for row in rows:
        if (name := name_of(row)) in begun:
            begun.remove(name)
            new.append(row)
            continue
        if known.claim(name, row.row.ordinal) is not None:
            continue
        if ids.claim(row.row.id, row.row.ordinal) is not None:
            what = f"the index has another row with the id '{row.row.id}'"
            raise DataError(what, where=row.row.place, remedy="give the new row an id of its own")
        new.append(row)
    return new


def _ids_of_texts(index: Index, rows: Corpus) -> list[str]:
    """The ids of all rows of the index that have the same text as one of `rows`.

    Raises:
        DataError: there are no such rows to look for.
    """
    if not index.manifest.keeps_text:
        raise StoreError("rows cannot be found by their text: the index has none", where=index.path, remedy="give ids")
    wanted = {digest(as_given(row)): row for row in rows}
    if not wanted:
        raise DataError("there are no rows to look for", where=rows.name, remedy="give a file that has rows")
    found: dict[str, list[str]] = {}
    for batch in index.batches(index.plain):
        for record in batch.drop_columns(["_rowaddr"]).to_pylist():
            row = from_record(record, ordinal=0, place="", vectors=index.vectors)
            if (key := digest(as_given(row))) in wanted:
                found.setdefault(key, []).append(row.id)
    missing: list[Row] = [row for key, row in wanted.items() if key not in found]
    if missing:
        what = f"{len(missing):,} of {len(wanted):,} texts are not in the index, such as that of row '{missing[0].id}'"
        raise StoreError(what, where=missing[0].place, remedy="nothing was deleted; leave these rows out")
    return [row_id for ids in found.values() for row_id in ids]
