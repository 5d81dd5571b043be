"""A corpus: rows from any source and in any shape, as one stream that can be iterated more than once; ids seen once.

corpus = open_corpus("rows.jsonl", mapping={"prompt": "ask", "response": "reply"})
for row in corpus:
    print(row.id, row.place, row.prompt)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.core.errors import DataError, UsageError, unknown_name
from headwater.core.fingerprints import digest
from headwater.data.pairs import Parts, as_pair, check_pairs, is_pair, split_pair
from headwater.data.readers import Source, open_source
from headwater.data.rows import Row
from headwater.data.shapes import check_mapping, read_row, unused_name

if TYPE_CHECKING:
    from headwater.data.found_columns import FoundColumns

CACHE_BYTES = 16 * 2**20
"""Memory for the database's pages; further pages go to disk."""

_REPEATED = "make ids unique; `--ids row`, where a command has it, makes them from the rows"


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

    def take(self, stem: str) -> str:
        """The unused id that `stem` gives, which is used from then on."""
        row_id = self.unused(stem)
        self.claim(row_id, 0)
        return row_id


IDS = ("column", "row")
"""Where rows' ids come from: a column, or the rows' content."""

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
        limit: how many records to read at most; None for all.
        need_response: whether a row with only a prompt is refused.
        pairs: how preference pairs are read (`headwater.data.pairs`); None refuses them.
        ids: whether ids are read from a column (`column`; rows without one get an id made from their content), or made
            from the content of every row (`row`).
        skip_unusable: leave out rows that cannot be used, instead of raising their error.
        unusable_file: where `headwater.data.inspection` lists the rows that cannot be used; None for nowhere.
        left_out: numbers of records that are left out, because an inspection found that they cannot be used.
        found: the columns that its rows need, if an inspection went through them.
        counted: the number of its rows, if an inspection counted them.
    """

    source: Source
    mapping: Mapping[str, str]
    limit: int | None
    need_response: bool = True
    pairs: str | None = None
    ids: str = "column"
    skip_unusable: bool = False
    unusable_file: Path | None = None
    left_out: frozenset[int] = frozenset()
    found: FoundColumns | None = field(default=None, compare=False)
    counted: int | None = field(default=None, compare=False)

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
        """What opens the rows again, JSON-ready: `candidates` (a name, or a list of several), and what else was chosen.

        That is `split`, `ids`, and `left_out`, the numbers of the records that are left out.
        """
        names = self.source.names
        chosen: dict[str, Any] = {"split": self.source.split, "ids": None if self.ids == IDS[0] else self.ids}
        chosen |= {"left_out": sorted(self.left_out) or None}
        given = {name: value for name, value in chosen.items() if value is not None}
        return {"candidates": names[0] if len(names) == 1 else list(names), **given}

    def like(self, origin: Mapping[str, Any]) -> Corpus:
        """The corpus with the ids, and without the records, that the `origin` of an earlier opening names.

        If the origin names a number of `rows`, and the corpus has no limit, it ends after so many.
        """
        left = frozenset(origin.get("left_out", ()))
        limit = origin["rows"] + len(left) if self.limit is None and "rows" in origin else self.limit
        return replace(self, ids=origin.get("ids", self.ids), left_out=left, limit=limit, counted=None)

    @property
    def count(self) -> int | None:
        """The number of rows; None if it is not known before all have been read.

        Rows that are left out count only if an inspection found them.
        """
        if self.counted is not None:
            return self.counted
        known = None if self.pairs == "rows" else self.source.count
        if known is None:
            return None
        return (known if self.limit is None else min(known, self.limit)) - len(self.left_out)

    def __iter__(self) -> Iterator[Row]:
        return (row for row, _ in self.with_records())

    def with_records(self) -> Iterator[tuple[Row, Mapping[str, Any]]]:
        """The rows, each with the record it was made from."""
        for _, found, record in self.attempts():
            if isinstance(found, Row):
                yield found, record
            elif not self.skip_unusable:
                raise found

    def attempts(self) -> Iterator[tuple[int, Row | DataError, Mapping[str, Any]]]:
        """Of each record that is not left out: its number, its row or why it cannot be used, and the record itself."""
        seen, ordinal = SeenIds(), 0
        for number, record, mapping in islice(self._parts(), self.limit):
            if number in self.left_out:
                continue
            try:
                row = self._row(number, record, mapping, ordinal=ordinal, seen=seen)
            except DataError as error:
                yield number, error, {}
            else:
                ordinal += 1
                yield number, row, record if isinstance(record, Mapping) else {}

    def _row(
        self,
        number: int,
        record: Mapping[str, Any] | Parts | DataError,
        mapping: Mapping[str, str],
        *,
        ordinal: int,
        seen: SeenIds,
    ) -> Row:
        if isinstance(record, DataError):
            raise record
        place = self.source.place(number)
        if isinstance(record, Mapping):
            row = read_row(record, mapping, place, ordinal, need_response=self.need_response)
        else:
            row = as_pair(*(read_row(side, ours, place, ordinal) for side, ours in record))
        if self.ids == "row" and row.id:
            row = replace(row, id="", metadata={**row.metadata, unused_name("id_", row.metadata): row.id})
        if not row.id:
            row = replace(row, id=seen.unused(_content_id(row)))
        if (first := seen.claim(row.id, number)) is not None:
            taken = f"id '{row.id}' is already that of {self.source.place(first)}"
            raise DataError(
                taken,
                where=place,
                remedy="make ids unique; `--ids row`, where a command has it, makes them from the rows",
            )
        return row

    def _parts(self) -> Iterator[tuple[int, Mapping[str, Any] | Parts | DataError, Mapping[str, str]]]:
        """What becomes a row each, with its number and mapping: a record, one side of a preference pair, or both."""
        names = SeenIds()
        for number, record in self.source.attempts():
            place = self.source.place(number)
            if isinstance(record, DataError) or not (self.pairs and is_pair(record, self.mapping)):
                alone = self.pairs == "dpo" and not isinstance(record, DataError)
                yield number, _no_pair(place) if alone else record, self.mapping
                continue
            try:
                sides = split_pair(record, self.mapping, place, unused=names.take)
            except DataError as error:
                yield number, error, self.mapping
            else:
                whole = [(number, sides, self.mapping)]
                yield from whole if self.pairs == "dpo" else ((number, side, mapping) for side, mapping in sides)


def open_corpus(
    source: Any,
    *,
    mapping: Mapping[str, str] | None = None,
    limit: int | None = None,
    split: str | None = None,
    streaming: bool = False,
    need_response: bool = True,
    pairs: str | None = None,
    ids: str = IDS[0],
    skip_unusable: bool = False,
    unusable_file: str | Path | None = None,
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
        pairs: `rows` reads a preference pair (prompt, chosen, rejected) as two rows, `dpo` as one; None refuses pairs.
        ids: `column` reads ids from the column `id`, and makes those that are missing from the rows' content; `row`
            makes all of them from the rows' content and keeps the column as metadata, `id_`.
        skip_unusable: leave out rows that cannot be used, and count them, instead of raising an error.
        unusable_file: a file to list the rows in that cannot be used, one JSON object a line.

    Raises:
        DataError: the source does not exist, has no rows, or lacks a column of the mapping; while iterating, a record
            cannot be read or has no text, or an id occurs twice (the message names the place).
        UsageError: an unknown role in `mapping`, a split of a source without splits, a file given twice, another way
            to get ids, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} rows", where="limit", remedy="at least 1")
    check_pairs(pairs)
    if ids not in IDS:
        raise unknown_name("way to get ids", ids, IDS, where="--ids")
    opened = open_source(source, split=split, streaming=streaming)
    found = next(opened.attempts(), None)
    if found is None:
        raise DataError("no rows", where=opened.name, remedy="it is empty: check that it is the right one")
    columns = dict(mapping or {})
    first = next((record for _, record in opened.attempts() if not isinstance(record, DataError)), None)
    if first is not None:
        check_mapping(columns, first, opened.name)
    listed = None if unusable_file is None else Path(unusable_file)
    return Corpus(opened, columns, limit, need_response, pairs, ids, skip_unusable, listed)


def _no_pair(place: str) -> DataError:
    remedy = "leave it out, or put rows with one answer into an index of their own"
    return DataError("not a preference pair: no chosen and rejected answer", where=place, remedy=remedy)


def _content_id(row: Row) -> str:
    """An id made from the digest of the row's content; equal rows have the same."""
    if row.messages is not None:
        whole = digest([dict(message) for message in row.messages])
    else:
        whole = digest({"text": row.text, "prompt": row.prompt, "response": row.response})
    return whole[:ID_DIGITS]
