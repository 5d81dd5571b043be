"""Views of a metadata column, such as `provider`: its values, and one value with all that is known of its rows.

A value's page gathers from the whole shelf: the rows of each index that have it, the distribution of their values, what
they are paid, and the answers they drove. A values file that does not hold the column is joined by the rows' ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.errors import DataError, UsageError
from headwater.core.plain import plain_json, without_nan
from headwater.core.trace import Hit
from headwater.index.rows import stored_name
from headwater.index.store import Index
from headwater.report.tables import number_text
from headwater.valuation.values import Values, describe, read_values
from headwater.view.browse import OPENING, add_openings
from headwater.view.figures import distribution
from headwater.view.filters import as_cell, condition_of, facet_columns
from headwater.view.known import hits_of, once_a_file, read_csv
from headwater.view.rows import counts_of, facets_of, one_line
from headwater.view.shelf import Item
from headwater.view.site import AppSite, MissingError, View, place_of

MOST_GROUPS = 5_000
"""A column with more values has no page of groups: each of its values is a row's own, and not a group's."""
SHOWN, ENDS, FIRST = 200, 8, 5
"""Groups in the list; rows at each end of a group's values; rows shown of an index."""

Cells = list[int | float | None]
"""A group's numbers: rows, mean values, payments; None where it has none."""


def groups(site: AppSite, column: str) -> View:
    """Every value of a column: how many rows have it, what they are worth, what they are paid, and what they drove."""
    sides: list[tuple[str, str, Mapping[str, int | float]]] = [
        *(("rows", item.title, _counted(site, item, column)) for item in site.shelf.of("index")),
        *(("mean value", item.title, _means(item, column)) for item in site.shelf.of("values")),
        *(("paid", item.title, _paid(item)) for item in site.shelf.of("ledger") if column == "provider"),
    ]
    sides = [side for side in sides if side[2]]
    drove = Counter(
        as_cell(hit.metadata[column])
        for item in site.shelf.of("trace")
        for query in hits_of(item).queries
        for hit in query.hits
        if column in hit.metadata
    )
    names = list(dict.fromkeys(name for found in (*(found for *_, found in sides), drove) for name in found))
    if not names:
        raise MissingError(f"no rows here have a column '{column[:80]}'", remedy="the start page lists the columns")
    lines: list[tuple[str, list[int | float | None]]] = [
        (name, [found.get(name) for *_, found in sides]) for name in names
    ]
    lines.sort(key=lambda line: -_size(line[1]))
    several = Counter(kind for kind, *_ in sides)
    titles = [kind if several[kind] == 1 else f"{kind} in {title}" for kind, title, _ in sides]
    table = [
        {column: name, **dict(zip(titles, cells, strict=True)), "found by traces": drove.get(name, 0)}
        for name, cells in lines
    ]
    data = {"column": column, "groups": table}
    shown = {
        "column": column,
        "titles": titles,
        "lines": [{"name": name, "cells": cells, "drove": drove.get(name, 0)} for name, cells in lines[:SHOWN]],
        "left": max(len(lines) - SHOWN, 0),
        "traced": bool(drove),
        "reach": [max(map(abs, found.values())) or 1.0 for *_, found in sides],
    }
    return View("groups.html.j2", f"By {column}", data, table, shown)


def _size(cells: Cells) -> float:
    """What groups are ordered by: their rows in the first index; without one, their number in what comes first."""
    return next((float(cell) for cell in cells if cell is not None), 0.0)


def _counted(site: AppSite, item: Item, column: str) -> dict[str, int]:
    """How many rows of an index have each value of the column; empty if it has no such column."""
    index = site.snapshots.of(item)
    name = _column_of(index, column)
    if name is None:
        return {}
    counted = site.snapshots.once(index, ("groups", name), lambda: counts_of(index, [name], None, most=MOST_GROUPS))
    if name not in counted and index.count:
        what = f"column '{column}' has more than {MOST_GROUPS:,} different values"
        raise UsageError(what, where=item.title, remedy="search or filter the rows instead")
    return {as_cell(value): number for value, number in counted.get(name, {}).items()}


def _column_of(index: Index, column: str) -> str | None:
    """The index's name of a column of the user's; None if the index does not have it."""
    known = facet_columns(index)
    return next((name for name in (column, stored_name(column, index.vectors)) if name in known), None)


def _means(item: Item, column: str) -> dict[str, float]:
    """The mean value of each group's rows; empty if the values file does not hold the column."""
    values = _values(item)
    cells = _cells(values, column)
    if cells is None:
        return {}
    kept = np.array(values.numbers())
    table = pa.table({"group": cells, "value": pa.array(kept)}).group_by("group").aggregate([("value", "mean")])
    if len(table) > MOST_GROUPS:
        return {}
    return {r["group"]: r["value_mean"] for r in table.to_pylist() if np.isfinite(r["value_mean"])}


def _values(item: Item) -> Values:
    found: Values = once_a_file(item.path, "all values", read_values)
    return found


def _cells(values: Values, column: str) -> pa.Array | None:
    """A metadata column of a values file as cells of an address; None if it is not there."""
    try:
        found = values.column(column)
    except DataError:
        return None
    return pc.fill_null(found.cast(pa.string()), "").combine_chunks()


def _paid(item: Item) -> dict[str, float]:
    return {line["provider"]: float(line["amount"]) for line in _lines(item) if line["provider"] != "TOTAL"}


def _lines(item: Item) -> list[dict[str, str]]:
    lines: list[dict[str, str]] = once_a_file(item.path, "csv", read_csv)
    return lines


def group(site: AppSite, column: str, value: str) -> View:
    """One value of a column: its rows, their values, what they are paid, and the answers they drove."""
    indices = [found for item in site.shelf.of("index") if (found := _in_index(site, item, column, value))]
    own = OwnIds(site, {found["key"]: found["condition"] for found in indices})
    worth = [found for item in site.shelf.of("values") if (found := _worth(item, column, value, own))]
    paid = _payments(site, column, value, own)
    drove = [found for item in site.shelf.of("trace") if (found := _drove(item, column, value, own))]
    if not (indices or worth or paid["ledgers"] or paid["prices"] or drove):
        what = f"no rows here have '{value[:80]}' as their {column[:80]}"
        raise MissingError(what, remedy="the column's page lists its values")
    lists = [*(w[end] for w in worth for end in ("best", "worst")), *(p["best"] for p in paid["prices"])]
    add_openings(site, [line for lines in (*lists, *(d["hits"] for d in drove)) for line in lines])
    data = {"column": column, "value": value, "indices": indices, "worth": worth, **paid, "drove": drove}
    clean = plain_json({name: _without_bars(found) for name, found in data.items()})
    table = [{"what": "value", "in": w["title"], **row} for w in worth for row in (*w["best"], *w["worst"])]
    table += [{"what": "price", "in": p["title"], **row} for p in paid["prices"] for row in p["best"]]
    table += [{"what": "trace", "in": d["title"], **row} for d in drove for row in d["hits"]]
    table = table or [{"what": "rows", "in": i["title"], "rows": i["rows"]} for i in indices]
    shown = {**data, "label": value or "(none)", "tiles": _tiles(indices, worth, paid, drove)}
    return View("group.html.j2", f"{column}: {value or '(none)'}", clean, table, shown)


@dataclass
class OwnIds:
    """The ids of a group's rows, read only if a file has to be joined by them: of many rows they take a second.

    Attributes:
        site: where the indices are.
        conditions: index key to the group's condition.
    """

    site: AppSite
    conditions: Mapping[str, str]

    @cached_property
    def column(self) -> pa.Array:
        """All ids."""
        batches = [
            batch.column("id")
            for key, condition in self.conditions.items()
            for batch in self.site.index(key)[1].batches(["id"], where=condition, rows=65_536)
        ]
        return pa.concat_arrays(batches) if batches else pa.array([], pa.string())

    @cached_property
    def known(self) -> set[str]:
        """All ids, to look one up."""
        return set(self.column.to_pylist())


def _without_bars(found: Any) -> Any:
    return [{n: v for n, v in one.items() if n != "bars"} for one in found] if isinstance(found, list) else found


def _in_index(site: AppSite, item: Item, column: str, value: str) -> dict[str, Any] | None:
    """The group's rows in one index: how many, their tokens and loss, the first of them, and their other columns."""
    index = site.snapshots.of(item)
    name = _column_of(index, column)
    if name is None:
        return None
    try:
        condition = condition_of(index, "", "", {name: (value,)})
    except UsageError:  # the value cannot be one of this index's column
        return None
    found = site.snapshots.once(index, ("group", condition), lambda: _numbers_of(index, condition))
    if not found["rows"]:
        return None
    others = facets_of(site.snapshots, index, condition)
    shown = {n: [(as_cell(v), times) for v, times in values[:8]] for n, values in others.items() if n != name}
    about = {"key": item.key, "title": item.title, "of": index.count, "condition": condition, "filter": {name: [value]}}
    return {**about, **found, "others": shown}


def _numbers_of(index: Index, condition: str | None) -> dict[str, Any]:
    """How many rows meet the condition, their tokens and mean loss, and the beginnings of the first of them."""
    names = [name for name in ("tokens", "loss") if name in index.plain]
    rows, tokens = 0, 0
    losses: list[pa.Array] = []
    addresses: list[int] = []
    for batch in index.batches(names, where=condition, rows=65_536):
        rows += len(batch)
        tokens += (pc.sum(batch.column("tokens")).as_py() or 0) if "tokens" in names else 0
        losses += [batch.column("loss")] if "loss" in names else []
        addresses += (
            batch.column("_rowaddr").slice(0, FIRST - len(addresses)).to_pylist() if len(addresses) < FIRST else []
        )
    mean = pc.mean(pa.chunked_array(losses)).as_py() if losses else None
    found: dict[str, Any] = {"rows": rows, "tokens": tokens if "tokens" in names else None, "loss": without_nan(mean)}
    if index.manifest.keeps_text and addresses:
        first = index.rows(addresses)
        found["first"] = [{"id": r.id, "text": one_line(" → ".join(r.fields().values()), OPENING)} for r in first]
    return found


def _worth(item: Item, column: str, value: str, ids: OwnIds) -> dict[str, Any] | None:
    """The values of the group's rows in one file: their distribution beside all values', and both ends."""
    values = _values(item)
    cells = _cells(values, column)
    own = pc.is_in(values.table.column("id"), value_set=ids.column) if cells is None else pc.equal(cells, value)
    places = np.flatnonzero(np.asarray(own))
    numbers = values.numbers()
    places = places[np.isfinite(numbers[places])]
    if not len(places):
        return None
    order = places[np.argsort(-numbers[places], kind="stable")]
    finite = numbers[np.isfinite(numbers)]
    summary = describe(numbers[places], signed=values.signed)

    def lines(chosen: Any) -> list[dict[str, Any]]:
        return [{"id": values.ids[n], "value": float(numbers[n])} for n in chosen]

    return {
        "key": item.key,
        "title": item.title,
        "meaning": values.meaning,
        "signed": values.signed,
        "summary": without_nan(summary),
        "mean of all": float(finite.mean()),
        "share above the median": float(np.mean(numbers[places] > np.median(finite))),
        "best": lines(order[:ENDS]),
        "worst": lines(order[::-1][: min(ENDS, max(len(order) - ENDS, 0))]),
        "bars": distribution(finite, numbers[places]),
    }


def _payments(site: AppSite, column: str, value: str, ids: OwnIds) -> dict[str, list[dict[str, Any]]]:
    """What the group is paid: its lines in ledgers, if the column is the provider, and its rows' prices."""
    ledgers = []
    for item in site.shelf.of("ledger") if column == "provider" else ():
        own = [line for line in _lines(item) if line["provider"] == value]
        ledgers += [{"key": item.key, "title": item.title, "place": place_of(item), **line} for line in own]
    by_name = column == "provider"
    prices = []
    for item in site.shelf.of("prices"):
        lines = [line for line in _lines(item) if (line["provider"] == value if by_name else line["id"] in ids.known)]
        if lines:
            best = sorted(lines, key=lambda line: -float(line["amount"]))[:ENDS]
            total = sum(float(line["amount"]) for line in lines)
            shown = [{"id": line["id"], "amount": float(line["amount"])} for line in best]
            found = {"key": item.key, "title": item.title, "place": place_of(item)}
            paid = sum(float(line["amount"]) > 0 for line in lines)
            prices.append({**found, "rows": len(lines), "paid": paid, "amount": round(total, 2), "best": shown})
    return {"ledgers": ledgers, "prices": prices}


def _drove(item: Item, column: str, value: str, ids: OwnIds) -> dict[str, Any] | None:
    """The group's rows among the hits of one trace."""

    def is_own(hit: Hit) -> bool:
        return as_cell(hit.metadata[column]) == value if column in hit.metadata else hit.id in ids.known

    queries = hits_of(item).queries
    own = [(query.id, hit) for query in queries for hit in query.hits if is_own(hit)]
    if not own:
        return None
    best = sorted(own, key=lambda pair: pair[1].rank)[:ENDS]
    hits = [{"query": query, "rank": hit.rank, "id": hit.id, "score": hit.score} for query, hit in best]
    every = sum(len(query.hits) for query in queries)
    return {"title": item.title, "place": place_of(item), "hits": hits, "found": len(own), "of": every}


def _tiles(
    indices: Sequence[Mapping[str, Any]],
    worth: Sequence[Mapping[str, Any]],
    paid: Mapping[str, Sequence[Mapping[str, Any]]],
    drove: Sequence[Mapping[str, Any]],
) -> list[tuple[str, str, str]]:
    """The numbers that a reader looks for first: what each is, the number, and a few words below it."""
    found = []
    if indices:
        first = indices[0]
        share = f"{100 * first['rows'] / max(first['of'], 1):.3g} % of {first['title']}"
        found.append(("rows", f"{first['rows']:,}", share))
        if first["loss"] is not None:
            found.append(("mean loss", number_text(first["loss"], digits=3), "nats a token"))
    if worth:
        summary = worth[0]["summary"]
        beside = f"all rows: {number_text(worth[0]['mean of all'], digits=3)}"
        found.append(("mean value", number_text(summary["mean"], digits=3), beside))
    sums = [(float(line["amount"]), f"{100 * float(line['share']):.3g} % of the budget") for line in paid["ledgers"]]
    sums = sums or [(line["amount"], f"for {line['paid']:,} rows") for line in paid["prices"]]
    if sums:
        found.append(("paid", f"{sums[0][0]:,.2f}", sums[0][1]))
    if drove:
        hits, every = sum(one["found"] for one in drove), sum(one["of"] for one in drove)
        found.append(("found by traces", f"{hits:,}", f"of {every:,} rows found"))
    return found
