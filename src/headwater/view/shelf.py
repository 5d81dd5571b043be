"""The shelf: what headwater made under the given paths, each with a short key for its URL and no path on any page.

A folder is searched without following links that lead out of it. A file is looked into, because names say little: a
values file is Parquet with the columns `id` and `value`, hits are JSON lines with `query`, `rank`, `id` and `score`.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headwater.core.errors import StoreError
from headwater.core.trace import Trace
from headwater.data.records import HIT_KEYS
from headwater.index.noted import is_local
from headwater.valuation.ledger import COLUMNS

Kind = Literal["index", "trace", "values", "ledger", "prices", "unlearning", "evaluation", "report"]

MOST_ENTRIES, DEEPEST = 20_000, 6
"""How many files and folders are looked at under one given path, and how many folders deep."""
LONGEST_HEAD = 1 << 16
"""How many bytes of a file are read to see what it is."""
LARGEST_FILE = 1 << 28
"""A larger JSON, CSV or HTML file is left out; values and indices may have any size."""

PLURALS: dict[Kind, str] = {
    "index": "Indices",
    "trace": "Traces",
    "values": "Values",
    "ledger": "Ledgers",
    "prices": "Prices of rows",
    "unlearning": "Unlearning",
    "evaluation": "Evaluations",
    "report": "Reports",
}

_QUOTED = re.compile(r"'(?:~|[A-Za-z]:)?[/\\][^'\n]*[/\\]([^'/\\\n]+)'")
_ABSOLUTE = re.compile(r"(?<![\w./:])(?:~|[A-Za-z]:)?[/\\](?:[^\s'\":,;()<>/\\]+[/\\])*([^\s'\":,;()<>/\\]+)")


@dataclass(frozen=True)
class Item:
    """One thing on the shelf.

    Attributes:
        kind: what it is.
        key: its name in URLs: letters, digits, `-` and `.`.
        title: its place below the path that was given, for people.
        path: where it is; never shown.
        held: the trace itself, if it is in memory and no file.
    """

    kind: Kind
    key: str
    title: str
    path: str
    held: Trace | None = None


class Shelf:
    """What was found under the given paths, in a fixed order; and traces that were given as they are, before them."""

    def __init__(self, runs: Sequence[str | Path], *, traces: Sequence[Trace] = ()) -> None:
        self.runs, self.traces = tuple(str(run) for run in runs), tuple(traces)
        self.items: tuple[Item, ...] = ()
        self.look()

    def look(self) -> None:
        """Look again: what was made since is found.

        Raises:
            StoreError: a given path does not exist.
        """
        items: list[Item] = []
        taken: set[str] = set()
        items += [Item("trace", _free("trace", taken), f"a trace with {t.method}", "", t) for t in self.traces]
        for kind, title, path in (found for run in self.runs for found in _found(run)):
            key = _free(_slug(title), taken)
            items.append(Item(kind, key, title, path))
        self.items = tuple(items)

    def of(self, *kinds: Kind) -> tuple[Item, ...]:
        """The things of these kinds."""
        return tuple(item for item in self.items if item.kind in kinds)

    def get(self, key: str, *kinds: Kind) -> Item | None:
        """The thing with this key, if it is of one of these kinds (of any, if none is named)."""
        return next((item for item in self.items if item.key == key and (not kinds or item.kind in kinds)), None)


def nameless(text: str) -> str:
    """The text with every absolute path shortened to its last part, so that a page does not tell of the machine."""
    return _ABSOLUTE.sub(lambda match: match[1], _QUOTED.sub(r"'\1'", text))


def _found(run: str) -> Iterator[tuple[Kind, str, str]]:
    """(kind, title, path) of everything under one given path."""
    if not is_local(run):
        yield "index", run.rstrip("/").rsplit("/", 1)[-1], run
        return
    root = Path(run)
    if not root.exists():
        raise StoreError("there is nothing here", where=run, remedy="give an index, a file or a folder of runs")
    base = root.resolve()
    if kind := _kind_of(root):
        yield kind, base.name, str(root)
        return
    for place in _walk(base, base, DEEPEST, [MOST_ENTRIES]):
        if kind := _kind_of(place):
            yield kind, f"{base.name}/{place.relative_to(base).as_posix()}", str(place)


def _walk(folder: Path, base: Path, depth: int, left: list[int]) -> Iterator[Path]:
    """Files, and folders that are indices, below a folder; nothing that is hidden or leads out of `base`."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        left[0] -= 1
        place = folder / name
        if left[0] < 0:
            return
        if name.startswith(".") or not place.resolve().is_relative_to(base):
            continue
        if place.is_file() or _is_index(place):
            yield place
        elif place.is_dir() and depth > 1 and not place.is_symlink():
            yield from _walk(place, base, depth - 1, left)


def _is_index(place: Path) -> bool:
    return (place / "_versions").is_dir()


def _kind_of(place: Path) -> Kind | None:
    """What a file or folder is; None for what headwater did not make."""
    if place.is_dir():
        return "index" if _is_index(place) else None
    look = _LOOKS.get(place.suffix)
    try:
        return look(place) if look else None
    except (OSError, ValueError):
        return None


def _json_lines(place: Path) -> Kind | None:
    first = json.loads(head_of(place).split("\n", 1)[0])
    return "trace" if isinstance(first, dict) and first.keys() >= set(HIT_KEYS) else None


def _json_file(place: Path) -> Kind | None:
    if place.stat().st_size > LARGEST_FILE:
        return None
    raw = json.loads(place.read_text(encoding="utf-8"))
    if not isinstance(raw, dict):
        return None
    if raw.keys() >= {"format", "task", "title", "lines"}:
        return "evaluation"
    return "unlearning" if raw.keys() >= {"method", "outcome", "samples"} else None


def _table(place: Path) -> Kind | None:
    import pyarrow.parquet as pq

    return "values" if {"id", "value"} <= set(pq.read_schema(place).names) else None


def _csv_file(place: Path) -> Kind | None:
    header = next(csv.reader([head_of(place).split("\n", 1)[0].rstrip("\r")]), [])
    if header == list(COLUMNS):
        return "ledger"
    return "prices" if header == ["id", "provider", "worth", "cluster", "amount"] else None


def _page(place: Path) -> Kind | None:
    return "report" if '<meta name="generator" content="headwater">' in head_of(place) else None


def head_of(place: Path) -> str:
    """The beginning of a file as text; empty if the file is too large to be looked into."""
    if place.stat().st_size > LARGEST_FILE:
        return ""
    with place.open("rb") as file:
        return file.read(LONGEST_HEAD).decode("utf-8", "replace")


_LOOKS = {
    ".jsonl": _json_lines,
    ".json": _json_file,
    ".parquet": _table,
    ".csv": _csv_file,
    ".html": _page,
}


def _slug(title: str) -> str:
    bare = re.sub(r"\.(lance|jsonl?|parquet|csv|html)$", "", title.rsplit("/", 1)[-1])
    return re.sub(r"[^A-Za-z0-9]+", "-", bare).strip("-").lower()[:60] or "unnamed"


def _free(stem: str, taken: set[str]) -> str:
    key, number = stem, 2
    while key in taken:
        key, number = f"{stem}-{number}", number + 1
    taken.add(key)
    return key
