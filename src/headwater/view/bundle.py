"""The app's pages as static files: each page once, with its JSON beside it, and links among what is there.

Of an index, the first rows have pages, and so have the rows that a trace or a values file names. Whatever is live in
the app (searching, sorting, asking) is left out; a link to it becomes plain text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from headwater.core.errors import HeadwaterError
from headwater.core.files import whole_folder
from headwater.core.fingerprints import digest
from headwater.view import asking, browse, groups, home, results
from headwater.view.known import hits_of
from headwater.view.pages import assets, rendered
from headwater.view.rows import PAGE, Wanted, page_of, row_of
from headwater.view.shelf import Shelf, nameless
from headwater.view.site import AppSite, Parameters, View, place_of

NAMED = 2_000
"""Rows that traces and values name, at most, that get a page besides the first ones."""
GROUPS = 40
"""Values of a column, at most, that get a page."""

_DEAD = re.compile(r'<a\s[^>]*?href=""[^>]*>(.*?)</a>', re.S)

Address = tuple[str, tuple[tuple[str, str], ...]]


def write_bundle(out: str | Path, runs: Sequence[str | Path], *, rows: int = 500) -> dict[str, Any]:
    """Write the pages into a new folder; returns how many there are, and where the start page is.

    Args:
        out: the folder to make.
        runs: what the app would show.
        rows: how many rows of each index get a page.

    Raises:
        StoreError: the folder exists already, or a run does not.
    """
    site = AppSite.of(Shelf(runs), static=True, allowed=False)
    pages = _pages(site, rows)
    with whole_folder(out) as folder:
        (folder / "assets").mkdir()
        (folder / "assets" / "app.css").write_bytes(assets()["app.css"][1])
        for address, make in pages.items():
            _write(folder / name_of(address), site, address[0], make, partial(_href, pages))
        for item in site.shelf.of("report"):
            text = Path(item.path).read_text(encoding="utf-8", errors="replace")
            shown = re.sub(r"(<dd[^>]*>)([^<]*)", lambda found: found[1] + nameless(found[2]), text)
            (folder / name_of((place_of(item), ()))).write_text(shown, encoding="utf-8")
    return {"pages": len(pages), "start": str(Path(out) / "index.html")}


def name_of(address: Address) -> str:
    """The file of a page: its path with `-` for `/`; a row's by a digest of its id, which may have any sign."""
    path, parameters = address
    stem = path.strip("/").replace("/", "-") or "index"
    tail = "".join(f"-{name}-{value if name == 'page' else digest(value)[:16]}" for name, value in parameters)
    return f"{stem}{tail}.html"


def _href(pages: dict[Address, Any], path: str, parameters: Parameters) -> str:
    """The file of a page of this bundle; empty for another."""
    address = (path, _plain(parameters))
    return quote(name_of(address)) if address in pages or path.startswith("/r/") else ""


def _plain(parameters: Parameters) -> tuple[tuple[str, str], ...]:
    given = {n: v for n, v in parameters.items() if v not in ("", None, False, (), [])}
    return tuple(sorted((n, str(v)) for n, v in given.items()))


def _write(file: Path, site: AppSite, path: str, make: Callable[[], View], href: Any) -> None:
    view = make()
    text = rendered(site, view, "", path=path, href=href)
    file.write_text(_DEAD.sub(r"\1", text), encoding="utf-8")
    file.with_suffix(".json").write_text(rendered(site, view, ".json", path=path), encoding="utf-8")


def _pages(site: AppSite, rows: int) -> dict[Address, Callable[[], View]]:
    """Every page of the bundle, by its address in the app."""
    found: dict[Address, Callable[[], View]] = {("/", ()): partial(home.home, site)}
    makers = {
        "trace": asking.trace_file,
        "ledger": results.ledger,
        "prices": results.ledger,
        "unlearning": results.unlearning,
        "evaluation": results.evaluation,
    }
    for item in site.shelf.items:
        if item.kind in makers:
            found[(place_of(item), ())] = partial(makers[item.kind], site, item.key)
        elif item.kind == "values":
            found[(place_of(item), ())] = partial(results.values, site, item.key, "")
        elif item.kind == "index":
            found |= _index_pages(site, item.key, rows)
    return found | _group_pages(site)


def _group_pages(site: AppSite) -> dict[Address, Callable[[], View]]:
    """A page for each column that groups rows, and for each of its most frequent values."""
    found: dict[Address, Callable[[], View]] = {}
    for column in home.home(site).data["columns"]:
        try:
            lines = groups.groups(site, column).data["groups"]
        except HeadwaterError:  # too many values
            continue
        found[("/by", _plain({"column": column}))] = partial(groups.groups, site, column)
        for value in [line[column] for line in lines[:GROUPS]]:
            address = ("/by", _plain({"column": column, "value": value or "(none)"}))
            found[address] = partial(groups.group, site, column, value)
    return found


def _index_pages(site: AppSite, key: str, rows: int) -> dict[Address, Callable[[], View]]:
    """The list of an index's first rows in pages, and a page for each of these and for the rows that others name."""
    _, index = site.index(key)
    ids: list[str] = []
    found: dict[Address, Callable[[], View]] = {}
    for number in range(1, max(-(-min(rows, index.count) // PAGE), 1) + 1):
        given = {"page": [str(number)]} if number > 1 else {}
        found[(f"/i/{key}", _plain({"page": number if number > 1 else None}))] = partial(browse.rows, site, key, given)
        ids += [record["id"] for record in page_of(site.snapshots, index, Wanted(page=number)).records]
    for row_id in dict.fromkeys([*ids[:rows], *_named(site)]):
        try:
            row_of(index, row_id)
        except HeadwaterError:
            continue
        found[(f"/i/{key}/row", (("id", row_id),))] = partial(browse.row, site, key, row_id)
    return found


def _named(site: AppSite) -> list[str]:
    """Ids of rows that traces and values name."""
    ids = [hit.id for item in site.shelf.of("trace") for query in hits_of(item).queries for hit in query.hits]
    for item in site.shelf.of("values"):
        data = results.values(site, item.key, "").data
        ids += [line["id"] for line in (*data["best"], *data["worst"])]
    return list(dict.fromkeys(ids))[:NAMED]
