"""Rows of an index in pages, with search, sort and facets, and single rows; a million rows are never in memory.

A page without a condition is taken by position. Everything else is a scan that Lance filters, sorts and cuts off, and
counts and facets are found once for a version of the index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from lance.dataset import ColumnOrdering

from headwater.core.errors import StoreError, UsageError
from headwater.data.rows import Row
from headwater.index.failures import storing
from headwater.index.info import unfinished
from headwater.index.rows import from_record
from headwater.index.store import Index, quoted
from headwater.view.filters import condition_of, facet_columns, metadata_columns
from headwater.view.site import MissingError
from headwater.view.snapshots import Snapshots

PAGE, LARGEST_PAGE = 50, 200
"""Rows on a page, and the most that may be asked for."""
FARTHEST = 100_000_000
MOST_VALUES, SHOWN_VALUES = 200, 12
"""A column with more values is not a facet; so many of its values are shown."""


@dataclass(frozen=True)
class Wanted:
    """What a page of rows shows.

    Attributes:
        where: an SQL condition.
        search: words that a row must have.
        facets: column to the values of which a row has one.
        sort: the column to sort by; empty for the order in which the rows were read.
        down: highest first.
        page: from 1.
        size: rows a page.
    """

    where: str = ""
    search: str = ""
    facets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sort: str = ""
    down: bool = False
    page: int = 1
    size: int = PAGE

    def __post_init__(self) -> None:
        if not 1 <= self.size <= LARGEST_PAGE:
            raise UsageError(f"{self.size} rows a page", where="size", remedy=f"1 to {LARGEST_PAGE}")
        if not 1 <= self.page <= FARTHEST // self.size:
            raise UsageError(f"page {self.page}", where="page", remedy="1 is the first page")


@dataclass(frozen=True)
class Page:
    """One page of rows.

    Attributes:
        version, version_rows: the version of the index, and its number of rows.
        total: how many rows meet the condition.
        condition: the condition as SQL, if there is one.
        records: the rows on this page: id, texts, metadata, tokens and loss.
        columns: what can be sorted by.
        warning: what is unfinished about the index; None if nothing is.
    """

    version: int
    version_rows: int
    total: int
    condition: str | None
    records: list[dict[str, Any]]
    columns: list[str]
    warning: str | None


def page_of(snapshots: Snapshots, index: Index, wanted: Wanted) -> Page:
    """The page; raises `UsageError` or `StoreError` for a condition or column that cannot be used."""
    condition = condition_of(index, wanted.where, wanted.search, wanted.facets)
    shown = shown_columns(index)
    if wanted.sort and wanted.sort not in shown:
        raise UsageError(f"no column '{wanted.sort}'", where="sort", remedy=f"columns: {', '.join(shown)}")
    rows = snapshots.once(index, ("count",), lambda: index.count)
    total = (
        rows if condition is None else snapshots.once(index, ("count", condition), lambda: index.count_where(condition))
    )
    first = (wanted.page - 1) * wanted.size
    if first >= total:
        table = index.dataset.schema.empty_table().select(shown)
    elif condition is None and not wanted.sort:
        table = index.take(range(first, min(first + wanted.size, total)), shown)
    else:
        table = _scan(index, shown, condition, wanted, first)
    version = int(index.dataset.version)
    return Page(version, rows, total, condition, table.to_pylist(), shown, unfinished(index))


def shown_columns(index: Index) -> list[str]:
    """The columns that a list of rows shows, in their order; `loss` is the last."""
    texts = [name for name in ("text", "prompt", "response") if name in index.plain]
    numbers = [name for name in ("tokens", "loss") if name in index.plain]
    return ["id", *texts, *metadata_columns(index), *numbers]


def facets_of(snapshots: Snapshots, index: Index, condition: str | None) -> dict[str, list[tuple[Any, int]]]:
    """For each metadata column that groups rows, the most frequent values of the rows that meet the condition.

    A column groups rows if it has few values, and most of them stand in more than one row of the index.
    """

    def group() -> dict[str, Counter[Any]]:
        counted = counts_of(index, facet_columns(index), None, most=MOST_VALUES)
        return {name: counter for name, counter in counted.items() if 2 * len(counter) <= counter.total()}

    every = snapshots.once(index, ("facets",), group)
    if condition is None:
        counted = every
    else:
        names = list(every)
        counted = snapshots.once(
            index, ("facets", condition), lambda: counts_of(index, names, condition, most=MOST_VALUES)
        )
    return {name: counter.most_common(SHOWN_VALUES) for name, counter in counted.items()}


def row_of(index: Index, row_id: str) -> tuple[int, Row, dict[str, Any]]:
    """A row's address, the row, and its stored numbers (tokens, loss, how it was read).

    Raises:
        MissingError: there is no such row.
        StoreError: the index was built without text.
    """
    with storing(index.path):
        scanner = index.dataset.scanner(
            columns=index.plain, filter=f"id = {quoted(row_id)}", with_row_address=True, limit=1
        )
        found = scanner.to_table().to_pylist()
    if not found:
        raise MissingError(f"no row '{row_id[:200]}'", remedy="it may have been deleted")
    if not index.manifest.keeps_text:
        what = "the index was built without text, so its rows cannot be shown"
        raise StoreError(what, where="index", remedy="look the id up in the data")
    row = from_record(found[0], ordinal=0, place=row_id, vectors=index.vectors)
    return int(found[0]["_rowaddr"]), row, found[0]


def openings(index: Index, ids: Sequence[str], *, most: int) -> dict[str, str]:
    """The beginnings of the texts of those of these rows that the index has, each in one line; empty without text."""
    if not ids or not index.manifest.keeps_text:
        return {}
    condition = f"id IN ({', '.join(map(quoted, ids))})"
    with storing(index.path, where=condition):
        records = index.dataset.scanner(columns=index.plain, filter=condition, limit=len(ids)).to_table().to_pylist()
    rows = [from_record(record, ordinal=0, place=record["id"], vectors=index.vectors) for record in records]
    return {row.id: one_line(" → ".join(row.fields().values()), most) for row in rows}


def one_line(text: str, most: int) -> str:
    """The text in one line of at most `most` characters."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[:most] + "…"


def _scan(index: Index, shown: list[str], condition: str | None, wanted: Wanted, first: int) -> pa.Table:
    """The rows of a page; a sort reads its own column alone, and then the rows that it puts on the page."""
    with storing(index.path, where=condition):
        if not wanted.sort:
            return index.dataset.scanner(columns=shown, filter=condition, limit=wanted.size, offset=first).to_table()
        ordered = index.dataset.scanner(
            columns=[wanted.sort],
            filter=condition,
            order_by=[ColumnOrdering(wanted.sort, ascending=not wanted.down)],
            limit=wanted.size,
            offset=first,
            with_row_address=True,
        )
        addresses = ordered.to_table().column("_rowaddr").to_pylist()
    return index.at(addresses, shown)


def counts_of(index: Index, names: Sequence[str], condition: str | None, *, most: int) -> dict[str, Counter[Any]]:
    """How many rows have each value of these columns; a column with more than `most` values is left out."""
    counts: dict[str, Counter[Any]] = {name: Counter() for name in names}
    if not names:
        return {}
    for batch in index.batches(list(names), where=condition, rows=65_536):
        for name in list(counts):
            counted = pc.value_counts(batch.column(name))
            values, times = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
            counts[name].update(dict(zip(values, times, strict=True)))
            if len(counts[name]) > most:
                del counts[name]
    return {name: counter for name, counter in counts.items() if counter}
