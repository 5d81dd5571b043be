"""Views of an index: the start page, its rows, one row with all that is known of it, and rows that resemble it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headwater.core.errors import HeadwaterError, UsageError
from headwater.core.plain import json_ready, plain_json, without_nan
from headwater.core.spec import Column
from headwater.data.records import as_record
from headwater.data.rows import Row
from headwater.index.store import Index
from headwater.report.tables import number_text
from headwater.view.filters import as_cell, facet_columns, metadata_columns
from headwater.view.known import known_of
from headwater.view.rows import PAGE, Page, Wanted, facets_of, one_line, openings, page_of, row_of
from headwater.view.shelf import nameless
from headwater.view.site import AppSite, View

OPENING = 220
"""Characters of a text in a list of rows."""
NEIGHBOURS = 12
LONGEST_QUESTION = 8_000
"""Characters of a row's question and answer that fit into an address."""


def wanted_of(index: Index, given: Mapping[str, list[str]]) -> Wanted:
    """What the parameters of an address ask for; parameters with the name of a column are facets."""

    def one(name: str, default: str = "") -> str:
        return given.get(name, [default])[-1]

    ours = {"where", "q", "sort", "down", "page", "size", "index"}
    known = set(facet_columns(index))
    strange = [name for name in given if name not in ours and name.removeprefix("is:") not in known]
    if strange:
        remedy = f"columns: {', '.join(sorted(known)) or 'none'}"
        raise UsageError(f"no column '{strange[0][:80]}' to filter by", where="filter", remedy=remedy)
    facets = {
        name.removeprefix("is:"): tuple(values)
        for name, values in given.items()
        if name.startswith("is:") or name not in ours
    }
    return Wanted(
        one("where"), one("q"), facets, one("sort"), one("down") in ("1", "true"), _whole(one("page", "1"), "page"),
        _whole(one("size", str(PAGE)), "size"),
    )  # fmt: skip


def _whole(text: str, name: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f"'{text[:40]}' is not a whole number", where=name, remedy="1 or more")
    return int(text)


def parameters_of(wanted: Wanted, **changed: Any) -> dict[str, Any]:
    """The parameters of an address that asks for this page, with changes; a change starts at the first page."""
    ours = {"where", "q", "sort", "down", "page", "size"}
    facets = {f"is:{name}" if name in ours else name: list(values) for name, values in wanted.facets.items()}
    found = {"q": wanted.search, "where": wanted.where, **facets, "sort": wanted.sort, "down": wanted.down}
    found |= {"size": wanted.size if wanted.size != PAGE else None}
    found |= changed
    if found.get("page") == 1:
        found["page"] = None
    return found


def rows(site: AppSite, key: str, given: Mapping[str, list[str]]) -> View:
    """A page of an index's rows."""
    item, index = site.index(key)
    wanted = wanted_of(index, given)
    page = page_of(site.snapshots, index, wanted)
    facets = {} if site.static else facets_of(site.snapshots, index, page.condition)
    data = {
        "index": key,
        "version": page.version,
        "version_rows": page.version_rows,
        "rows_in_index": index.count,
        "total": page.total,
        "page": wanted.page,
        "size": wanted.size,
        "condition": page.condition,
        "rows": plain_json(page.records),
        "facets": {name: [[as_cell(v), n] for v, n in values] for name, values in facets.items()},
    }
    shown = {
        "item": item,
        "wanted": wanted,
        "pages": max(-(-page.total // wanted.size), 1),
        "parameters": lambda **changed: parameters_of(wanted, **changed),
        "facets": [_facet(wanted, name, values) for name, values in facets.items()],
        "lines": [_line(index, record) for record in page.records],
        "sortable": page.columns,
        "metadata": _headings(index, page),
        "facts": _facts(index),
        "warning": nameless(page.warning or ""),
    }
    return View("rows.html.j2", item.title, data, page.records, shown)


def _headings(index: Index, page: Page) -> list[str]:
    return [name for name in metadata_columns(index) if any(r.get(name) is not None for r in page.records)][:4]


def _facet(wanted: Wanted, name: str, values: list[tuple[Any, int]]) -> dict[str, Any]:
    """A facet with, for each value, whether it is chosen and the parameters after a click on it."""
    chosen = wanted.facets.get(name, ())
    lines = []
    for value, count in values:
        cell = as_cell(value)
        after = [v for v in chosen if v != cell] if cell in chosen else [*chosen, cell]
        label = "(none)" if value is None else cell
        lines.append(
            {"label": label, "count": count, "chosen": cell in chosen, "after": parameters_of(wanted, **{name: after})}
        )
    return {"name": name, "values": lines, "chosen": bool(chosen)}


def _line(index: Index, record: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: one_line(record[name], OPENING) for name in ("text", "prompt", "response") if record.get(name)}
    cells = {
        name: "–" if (v := record.get(name)) is None else one_line(as_cell(v), 60) for name in metadata_columns(index)
    }
    loss = record.get("loss")
    return {
        "id": record["id"],
        "texts": texts,
        "cells": cells,
        "tokens": "" if record.get("tokens") is None else f"{record['tokens']:,}",
        "loss": "" if loss is None else f"{loss:.3f}",
    }


def _facts(index: Index) -> dict[str, str]:
    manifest = index.manifest
    settings = ", ".join(f"{name}={value}" for name, value in manifest.method.options.items())
    return {
        "method": manifest.method.name,
        "options": settings,
        "model": nameless(str(manifest.model["name"])),
        "scores see": str(manifest.coverage),
        "rows": f"{index.count:,}",
        "version": str(index.dataset.version),
        "made": manifest.created,
        "made from": ", ".join(nameless(name) for name in manifest.data),
        "status": manifest.status,
        "headwater": manifest.library_version,
    }


def row(site: AppSite, key: str, row_id: str) -> View:
    """One row: its text, its numbers, what it drove, its value and price."""
    item, index = site.index(key)
    _, found, numbers = row_of(index, row_id)
    known = known_of(site, item, row_id)
    record = plain_json(as_record(found))
    stored = {
        "tokens": numbers.get("tokens"),
        "loss": None if numbers.get("loss") is None else float(numbers["loss"]),
        "tokens cut off": numbers.get("tokens_cut"),
        "windows read": numbers.get("windows_read"),
    }
    ordinary = {"tokens cut off": 0, "windows read": 1}
    stored = {n: value for n, value in stored.items() if value is not None and value != ordinary.get(n)}
    version = int(index.dataset.version)
    data = {"index": key, "version": version, "row": record, "stored": without_nan(stored), **known}
    data["filters"] = [name for name in facet_columns(index) if name in found.metadata]
    numbers_shown = {n: number_text(v) if isinstance(v, float) else f"{v:,}" for n, v in stored.items()}
    shown = {
        "item": item,
        "row": found,
        "texts": found.fields(),
        "messages": [_turn(m) for m in found.messages or ()],
        "own": _own_question(found),
        "metadata": {name: _as_text(value) for name, value in found.metadata.items()},
        "numbers": numbers_shown,
        "columns": neighbour_columns(index),
        "known": known,
    }
    return View("row.html.j2", f"Row {row_id}", data, [record | stored], shown)


def _own_question(row: Row) -> dict[str, Any]:
    """The parameters that ask about the row's own answer, as the model learned it; empty if it has none."""
    if row.messages is None:
        asked, answer = {"prompt": row.prompt or ""}, row.response or ""
    else:
        *before, last = row.messages
        said = last.get("content") if last.get("role") == "assistant" and before else ""
        chat = json.dumps([dict(message) for message in before], ensure_ascii=False, default=json_ready)
        asked, answer = {"messages": chat}, said if isinstance(said, str) else ""
    given = {**asked, "response": answer}
    return given if all(given.values()) and sum(map(len, given.values())) < LONGEST_QUESTION else {}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=json_ready)


def _turn(message: Mapping[str, Any]) -> dict[str, str]:
    content = message.get("content")
    said = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=json_ready)
    extra = {k: v for k, v in message.items() if k not in ("role", "content", "weight", "train") and v}
    more = json.dumps(extra, ensure_ascii=False, default=json_ready) if extra else ""
    return {"role": str(message.get("role", "")), "said": said or "", "more": more}


def add_openings(site: AppSite, lines: Sequence[dict[str, Any]]) -> None:
    """Give each line, which has a row's `id`, the beginning of the row's text and the key of the index that has it."""
    left = {line["id"] for line in lines}
    for item in site.shelf.of("index"):
        try:
            found = openings(site.snapshots.of(item), sorted(left), most=OPENING)
        except HeadwaterError:  # the start page says what is wrong with it
            continue
        for line in lines:
            if line["id"] in found and "index" not in line:
                line |= {"text": found[line["id"]], "index": item.key}
        left -= found.keys()
        if not left:
            return


def neighbour_columns(index: Index) -> dict[str, str]:
    """What rows can be compared by: a name for the address to the words for people."""
    own = [c for c in index.manifest.columns if c.weight]
    beside = [c for c in index.manifest.columns if not c.weight]
    found = {"influence": f"influence ({index.manifest.method.name})"} if own else {}
    return found | {c.name: c.name for c in beside}


def neighbours(site: AppSite, key: str, row_id: str, by: str) -> View:
    """The rows whose stored vectors have the highest products with this row's: no model is needed."""
    item, index = site.index(key)
    known = neighbour_columns(index)
    if by not in known:
        raise UsageError(f"rows cannot be compared by '{by[:60]}'", where="by", remedy=f"one of {', '.join(known)}")
    chosen = [c for c in index.manifest.columns if (c.weight if by == "influence" else c.name == by)]
    hits = site.snapshots.once(index, ("near", row_id, by), lambda: _near(index, row_id, chosen))
    data = {"index": key, "version": int(index.dataset.version), "id": row_id, "by": by, "rows": hits}
    shown = {"item": item, "row_id": row_id, "label": known[by], "columns": known}
    return View("neighbours.html.j2", f"Rows near {row_id}", data, hits, shown)


def _near(index: Index, row_id: str, columns: list[Column]) -> list[dict[str, Any]]:
    from headwater.search.codes import read_vectors  # these load torch, which the other pages do not need
    from headwater.search.scan import top_k

    mine, _, _ = row_of(index, row_id)
    weights = {c.name: c.weight or 1.0 for c in columns}
    probes = {name: v.float() * weights[name] for name, v in read_vectors(index, [mine], list(weights)).items()}
    (found,) = top_k(index, probes, NEIGHBOURS + 1)
    others = [hit for hit in found if hit.address != mine][:NEIGHBOURS]
    rows = index.rows([hit.address for hit in others])
    return [
        {"rank": n, "id": r.id, "score": hit.score, "text": one_line(" → ".join(r.fields().values()), OPENING)}
        for n, (hit, r) in enumerate(zip(others, rows, strict=True), 1)
    ]
