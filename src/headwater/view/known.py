"""What files on the shelf say of one row: its value, its price, and the traces in which it was found.

Values and prices are read once for a file's state (size and time), as two columns; traces are JSON lines.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater.core.plain import without_nan
from headwater.core.trace import Hit, QueryTrace, Trace
from headwater.view.kept_results import KeptResults
from headwater.view.shelf import Item
from headwater.view.site import AppSite, place_of

FILES = 16
"""How many files' contents are kept."""
MOST_HITS = 200_000
"""Hits of one trace that are read."""

_BESIDE = ("query", "rank", "id", "score", "text", "prompt", "response", "messages", "tools", "hotwords")


_READ: KeptResults[Any] = KeptResults(FILES)


def once_a_file(path: str, what: str, read: Callable[[str], Any]) -> Any:
    """What `read` makes of the file, kept until the file changes; `what` names the reading."""
    state = Path(path).stat()
    return _READ.of((path, state.st_mtime_ns, state.st_size, what), lambda: read(path))


def hits_of(item: Item) -> Trace:
    """The trace of a file of `headwater trace --out`: it has no token maps, and of its queries only the names."""
    if item.held is not None:
        return item.held
    found: Trace = once_a_file(item.path, "trace", _read_hits)
    return found


def _read_hits(path: str) -> Trace:
    queries: dict[str, list[Hit]] = {}
    with Path(path).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number >= MOST_HITS or not line.strip():
                break
            raw = json.loads(line)
            texts = {name: raw[name] for name in ("text", "prompt", "response") if isinstance(raw.get(name), str)}
            if not texts and isinstance(raw.get("messages"), list):
                texts = {"messages": "\n".join(f"{m.get('role')}: {m.get('content')}" for m in raw["messages"])}
            metadata = {name: value for name, value in raw.items() if name not in _BESIDE}
            hit = Hit(int(raw["rank"]), str(raw["id"]), float(raw["score"]), texts, metadata, record=_row(raw))
            queries.setdefault(str(raw["query"]), []).append(hit)
    made = tuple(QueryTrace(name, None, "", None, tuple(hits)) for name, hits in queries.items())
    about = {"method": "as in the file", "token values": "a file of hits has none; ask in the app for them"}
    return Trace("as in the file", about, made)


def _row(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name not in ("query", "rank", "score")}


def known_of(site: AppSite, item: Item, row_id: str) -> dict[str, Any]:
    """Values, prices and traces of a row, JSON-ready; each names where it is from and that thing's place."""
    values = [_source(i) | found for i in site.shelf.of("values") if (found := _value(i.path, row_id))]
    prices = [_source(i) | found for i in site.shelf.of("prices") if (found := _price(i.path, row_id))]
    drove = []
    for other in site.shelf.of("trace"):
        for query in hits_of(other).queries:
            drove += [
                _source(other) | {"query": query.id, "rank": hit.rank, "score": hit.score}
                for hit in query.hits
                if hit.id == row_id
            ]
    for kept in site.jobs.all_traced():
        if kept.question.index != item.key:
            continue
        for query in kept.trace.queries:
            asked: dict[str, Any] = {"key": kept.question.name, "title": kept.trace.method}
            asked |= {"place": f"/i/{item.key}/trace", "parameters": kept.question.parameters()}
            drove += [
                asked | {"query": kept.question.response or "", "rank": hit.rank, "score": hit.score}
                for hit in query.hits
                if hit.id == row_id
            ]
    return {"values": values, "prices": prices, "drove": drove[:50]}


def _source(item: Item) -> dict[str, str]:
    return {"key": item.key, "title": item.title, "place": place_of(item)}


def _value(path: str, row_id: str) -> dict[str, Any] | None:
    def read(name: str) -> Any:
        wanted = [c for c in ("id", "value", "low", "high", "cluster") if c in pq.read_schema(name).names]
        return pq.read_table(name, columns=wanted)

    table = once_a_file(path, "values", read)
    place = pc.index(table.column("id"), row_id).as_py()
    if place < 0:
        return None
    (found,) = table.slice(place, 1).to_pylist()
    return {name: without_nan(value) for name, value in found.items() if name != "id"}


def read_json(path: str) -> Any:
    """A JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_csv(path: str) -> list[dict[str, str]]:
    """The lines of a ledger or of prices; the mark that keeps a spreadsheet from taking a name for a formula is off."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [
            {n: _unmarked(v) if n in ("id", "provider") else v for n, v in line.items()}
            for line in csv.DictReader(file)
        ]


def _unmarked(text: str) -> str:
    return text[1:] if re.match(r"'[=+\-@\t\r]", text) else text


def _price(path: str, row_id: str) -> dict[str, Any] | None:
    def read(name: str) -> dict[str, dict[str, Any]]:
        return {line["id"]: line for line in read_csv(name)}

    found: dict[str, Any] | None = once_a_file(path, "prices", read).get(row_id)
    return None if found is None else {name: value for name, value in found.items() if name != "id"}
