"""The start page: the indices, which can be asked and read; what other commands made; and columns to look by."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from headwater.evaluation.result import read_result
from headwater.index.rows import user_name
from headwater.index.store import Index
from headwater.view.filters import facet_columns, text_columns
from headwater.view.jobs import KeptTrace
from headwater.view.known import hits_of, once_a_file, read_csv, read_json
from headwater.view.rows import facets_of
from headwater.view.shelf import PLURALS, Item, Kind, head_of, nameless
from headwater.view.site import AppSite, View, place_of

COUNTED = 200_000
"""Of an index with more rows, columns are not counted for the start page, which must come at once."""
READ = 8_000_000
"""A larger file is not read for the start page: it says its size."""
LATEST = 12
"""Traces of this session that are listed."""


def home(site: AppSite) -> View:
    """Everything on the shelf, by kind; the columns to group rows by; and what was traced since the start."""
    site.shelf.look()
    groups: list[dict[str, Any]] = [
        {"kind": kind, "title": title, "items": [_card(site, item) for item in site.shelf.of(kind)]}
        for kind, title in PLURALS.items()
    ]
    groups = [group for group in groups if group["items"]]
    table = [{"kind": g["kind"], **{k: i[k] for k in ("key", "title", "about")}} for g in groups for i in g["items"]]
    kept = [_traced(found) for found in site.jobs.all_traced()[:LATEST]]
    columns = list(dict.fromkeys(name for item in site.shelf.of("index") for name in _columns(site, item)))
    columns.sort(key=lambda name: name != "provider")
    data = {
        "items": table,
        "columns": columns,
        "traces": [{name: one[name] for name in ("name", "index", "response")} for one in kept],
    }
    shown = {"indices": [], "others": groups, "kept": kept, "columns": columns, "found": bool(groups)}
    if groups and groups[0]["kind"] == "index":
        shown |= {"indices": groups[0]["items"], "others": groups[1:]}
    return View("home.html.j2", "headwater", data, table, shown)


def _traced(kept: KeptTrace) -> dict[str, Any]:
    question = kept.question
    prompt = question.prompt if isinstance(question.prompt, str) else str(question.prompt[-1].get("content", ""))
    about = {"name": question.name, "index": question.index, "response": question.response, "prompt": prompt}
    way = {"*": "side by side", "": kept.trace.method}.get(question.by, question.by)
    return about | {"way": way, "spans": question.spans, "parameters": question.parameters()}


def _card(site: AppSite, item: Item) -> dict[str, Any]:
    """What the start page says of one thing; of a damaged one, what is wrong with it."""
    try:
        if item.kind == "index":
            about = _about_index(site.snapshots.of(item))
        else:
            size = 0 if item.held or item.kind == "values" else Path(item.path).stat().st_size
            about = _ABOUT[item.kind](item) if size <= READ else f"{size / 1e6:,.0f} MB"
    except Exception as error:
        about = nameless(str(error))
    return {"key": item.key, "title": item.title, "about": about, "place": place_of(item), "kind": item.kind}


def _about_index(index: Index) -> str:
    manifest = index.manifest
    return f"{index.count:,} rows · {manifest.method.name} · {nameless(str(manifest.model['name']))}"


def _about_trace(item: Item) -> str:
    queries = hits_of(item).queries
    return f"{_several(len(queries), 'query', 'queries')}, {_several(sum(len(q.hits) for q in queries), 'row')} found"


def _about_values(item: Item) -> str:
    return f"{_several(pq.read_metadata(item.path).num_rows, 'row')} valued"


def _about_ledger(item: Item) -> str:
    lines = once_a_file(item.path, "csv", read_csv)
    providers = [line for line in lines if line["provider"] != "TOTAL"]
    paid = sum(float(line["amount"]) for line in providers)
    return f"{_several(len(providers), 'provider')}, {paid:,.2f} in all"


def _about_prices(item: Item) -> str:
    lines = once_a_file(item.path, "csv", read_csv)
    return f"{_several(len(lines), 'row')}, {sum(float(line['amount']) for line in lines):,.2f} in all"


def _about_unlearning(item: Item) -> str:
    account = once_a_file(item.path, "account", read_json)
    rows = account.get("forget rows")
    told = f"{rows:,} rows with {account['method']}" if isinstance(rows, int) else str(account["method"])
    return nameless(f"{told}: {account['outcome']}")


def _about_evaluation(item: Item) -> str:
    return nameless(str(once_a_file(item.path, "result", read_result).title))


def _about_report(item: Item) -> str:
    found = re.search(r"<title>(.*?)</title>", head_of(Path(item.path)), re.S)
    return html.unescape(found[1]).strip()[:120] if found else ""


_ABOUT: dict[Kind, Callable[[Item], str]] = {
    "trace": _about_trace,
    "values": _about_values,
    "ledger": _about_ledger,
    "prices": _about_prices,
    "unlearning": _about_unlearning,
    "evaluation": _about_evaluation,
    "report": _about_report,
}


def _several(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def _columns(site: AppSite, item: Item) -> list[str]:
    """The user's columns whose values group the rows of an index."""
    try:
        index = site.snapshots.of(item)
        if index.count > COUNTED:
            names = text_columns(index)
        else:
            counted = facets_of(site.snapshots, index, None)
            names = [name for name in facet_columns(index) if len(counted.get(name, ())) > 1]
    except Exception:  # its card says what is wrong
        return []
    return [user_name(name, index.vectors) for name in names]
