"""A corpus: rows from any source and in any shape, as one stream that can be iterated more than once; ids seen once.

corpus = open_corpus("rows.jsonl", mapping={"prompt": "ask", "response": "reply"})
for row in corpus:
    print(row.id, row.place, row.prompt)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from headwater.core.errors import DataError, UsageError
from headwater.core.fingerprints import digest
from headwater.data.readers import Source, open_source
from headwater.data.rows import Row
from headwater.data.shapes import check_mapping, read_row

CACHE_BYTES = 16 * 2**20
"""Memory for the database's pages; further pages go to disk."""


class SeenIds:
    """Ids, each with the number of the first record that had it."""

    def __init__(self) -> None:
        # An empty name is a temporary database that SQLite keeps in its cache until that is full.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(f"PRAGMA cache_size = -{CACHE_BYTES // 1024}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, number INTEGER, repeats INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")  # never ended, because each commit would visit every page in memory

    def first(self, row_id: str) -> int | None:
        """The number of the first record with this id; None if there is none."""
        found = self._database.execute("SELECT number FROM ids WHERE id = ?", (row_id,)).fetchone()
        return None if found is None else int(found[0])

    def claim(self, row_id: str, number: int) -> int | None:
        """Note that this record has the id; returns the number of an earlier record with the same id, else None."""
        done = self._database.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, 1)", (row_id, number))
        return None if done.rowcount else self.first(row_id)

    def unused(self, stem: str) -> str:
        """`stem` if no record has that id yet, else the first unused one of `stem~2`, `stem~3`, ..."""
        found = self._database.execute("SELECT repeats FROM ids WHERE id = ?", (stem,)).fetchone()
        if found is None:
            return stem
        repeats = int(found[0]) + 1
        while self.first(f"{stem}~{repeats}") is not None:
            repeats += 1
        self._database.execute("UPDATE ids SET repeats = ? WHERE id = ?", (repeats, stem))
        return f"{stem}~{repeats}"


ID_DIGITS = 16
"""Hexadecimal digits of an id made from a row's content."""


@dataclass(frozen=True)
class Corpus:
    """Rows in a fixed order; every iteration reads the source again.

    A row is read when it is asked for. Only the ids of earlier rows are kept, to refuse an id that occurs twice, and
    at most 16 MiB of them in memory (`headwater.data.corpus`).

    Attributes:
        source: the records.
        mapping: role to column, for columns that do not have the name of their role.
        limit: how many rows to read at most; None for all.
        need_response: whether a row with only a prompt is refused.
    """

    source: Source
    mapping: Mapping[str, str]
    limit: int | None
    need_response: bool = True

    @property
    def name(self) -> str:
        """The paths or hub names as given; `memory` for rows given as objects."""
        return self.source.name

    @property
    def schemas(self) -> tuple[Any, ...]:
        """The Arrow schemas that the source declares, as Parquet files and datasets do."""
        return tuple(part.schema for part in self.source.parts if part.schema is not None)

    @property
    def origin(self) -> dict[str, Any]:
        """What opens the rows again, JSON-ready: `candidates` (a name, or a list of several) and `split`, if chosen."""
        names = self.source.names
        split = {} if self.source.split is None else {"split": self.source.split}
        return {"candidates": names[0] if len(names) == 1 else list(names), **split}

    @property
    def count(self) -> int | None:
        """The number of rows; None if it is not known before all have been read."""
        known = self.source.count
        return known if known is None or self.limit is None else min(known, self.limit)

    def __iter__(self) -> Iterator[Row]:
        seen = SeenIds()
        for ordinal, (number, record) in enumerate(islice(self.source.records(), self.limit)):
            place = self.source.place(number)
            row = read_row(record, self.mapping, place, ordinal, need_response=self.need_response)
            if not row.id:
                row = replace(row, id=seen.unused(_content_id(row)))
            if (first := seen.claim(row.id, number)) is not None:
                taken = f"id '{row.id}' is already that of {self.source.place(first)}"
                raise DataError(taken, where=place, remedy="ids are unique")
            yield row


def open_corpus(
    source: Any,
    *,
    mapping: Mapping[str, str] | None = None,
    limit: int | None = None,
    split: str | None = None,
    streaming: bool = False,
    need_response: bool = True,
) -> Corpus:
    """Rows of `source`, as a stream that can be iterated more than once.

    Args:
        source: a path: a file (`headwater.data.files` lists the kinds), a folder of such files as a snapshot of a hub
            dataset has them, a pattern (`part-*.jsonl`), or a folder that `datasets.save_to_disk` wrote; the name of a
            hub dataset (`owner/name` or `owner/name:configuration`); a list of these, which are read one after the
            other; a `datasets` dataset, a pandas or polars frame, an Arrow table, or any iterable of dictionaries (an
            iterator is read into memory). Files of a folder or pattern are read in natural order of their paths.
        mapping: role to column, as in `{"prompt": "ask", "response": "reply"}`; the first record must have the columns.
        limit: read no more than this many rows.
        split: which split of a source that has several; by default the only one, of a hub dataset `train`.
        streaming: read a hub dataset over the network instead of downloading it first.
        need_response: refuse a row with only a prompt, as queries have whose response is still to be generated.

    Raises:
        DataError: the source does not exist, has no rows, or lacks a column of the mapping; while iterating, a record
            cannot be read or has no text, or an id occurs twice (the message names the place).
        UsageError: an unknown role in `mapping`, a split of a source without splits, a file
            given twice, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} rows", where="limit", remedy="at least 1")
    opened = open_source(source, split=split, streaming=streaming)
    first = next(opened.records(), None)
    if first is None:
        raise DataError("no rows", where=opened.name, remedy="it is empty: check that it is the right one")
    columns = dict(mapping or {})
    check_mapping(columns, first[1], opened.name)
    return Corpus(opened, columns, limit, need_response)


def _content_id(row: Row) -> str:
    """An id made from the digest of the row's content; equal rows have the same."""
    if row.messages is not None:
        whole = digest([dict(message) for message in row.messages])
    else:
        whole = digest({"text": row.text, "prompt": row.prompt, "response": row.response})
    return whole[:ID_DIGITS]
