"""A corpus: rows of any source and shape as one stream that can be read again.

corpus = open_corpus("rows.jsonl", mapping={"prompt": "ask", "response": "reply"})
for row in corpus:
    print(row.id, row.place, row.prompt)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from headwater.core.errors import DataError, UsageError
from headwater.core.fingerprints import digest
from headwater.data.readers import Source, open_source
from headwater.data.rows import Row
from headwater.data.seen import SeenIds
from headwater.data.shapes import Fields, check_mapping, read_fields

ID_DIGITS = 16
"""Hexadecimal digits of an id made from a row's content."""


@dataclass(frozen=True)
class Corpus:
    """Rows in a fixed order, read anew by every iteration.

    A row is made when it is asked for. Between rows only their ids are kept, to tell that each is given once, and of
    those no more than 16 MiB in memory (`headwater.data.seen`).

    Attributes:
        source: where records come from.
        mapping: role to column, for columns that are not called as their role.
        limit: how many rows to read at most; None for all.
        need_response: whether a row with a prompt alone is refused.
    """

    source: Source
    mapping: Mapping[str, str]
    limit: int | None
    need_response: bool = True

    @property
    def name(self) -> str:
        """The path or hub name as given; `memory` for rows that were handed over."""
        return self.source.name

    @property
    def count(self) -> int | None:
        """How many rows there are, None if only reading would tell."""
        known = self.source.count
        return known if known is None or self.limit is None else min(known, self.limit)

    def __iter__(self) -> Iterator[Row]:
        seen = SeenIds()
        for ordinal, (number, record) in enumerate(islice(self.source.records(), self.limit)):
            place = f"{self.name}:{number}"
            fields = read_fields(record, self.mapping, place, need_response=self.need_response)
            row_id = seen.unused(_content_id(fields)) if fields.id is None else fields.id
            if (first := seen.claim(row_id, number)) is not None:
                taken = f"id '{row_id}' is already that of {self.name}:{first}"
                raise DataError(taken, where=place, remedy="ids are unique")
            yield Row(
                id=row_id,
                ordinal=ordinal,
                text=fields.text,
                prompt=fields.prompt,
                response=fields.response,
                messages=fields.messages,
                metadata=fields.metadata,
                hotwords=fields.hotwords,
                place=place,
            )


def open_corpus(
    source: Any,
    *,
    mapping: Mapping[str, str] | None = None,
    limit: int | None = None,
    split: str = "train",
    streaming: bool = False,
    need_response: bool = True,
) -> Corpus:
    """Rows of `source`, as a stream that can be read again.

    Args:
        source: a path (`.jsonl`, `.jsonl.gz`, `.json` holding a list, `.csv`, `.parquet`, or a folder written by
            `datasets.save_to_disk`), the name of a hub dataset (`owner/name` or `owner/name:configuration`), a
            `datasets` dataset, or any iterable of dictionaries (an iterator is held in memory).
        mapping: role to column, as in `{"prompt": "ask", "response": "reply"}`; the first record must have them all.
        limit: read no more than this many rows.
        split: which split of a dataset that has several.
        streaming: read a hub dataset over the network instead of downloading it first.
        need_response: refuse a row that has a prompt alone; queries whose response is to be generated have that.

    Raises:
        DataError: nothing to read there, no row in it, or a mapping's column that does not exist; while iterating, a
            record that cannot be read or has no text, or an id given twice, with its place.
        UsageError: an unknown role in `mapping`, a split where there is none, a limit below 1.
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


def _content_id(fields: Fields) -> str:
    """An id from the content: its digest, to which repeats add `~2`, `~3`..."""
    if fields.messages is not None:
        whole = digest([dict(message) for message in fields.messages])
    else:
        whole = digest({"text": fields.text, "prompt": fields.prompt, "response": fields.response})
    return whole[:ID_DIGITS]
