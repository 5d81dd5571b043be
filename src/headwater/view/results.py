"""Views of what commands wrote: values, ledgers and prices, unlearning runs, evaluations; and two things compared."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.errors import UsageError
from headwater.core.plain import plain_json
from headwater.evaluation.result import read_result
from headwater.report.page import with_alignment
from headwater.report.results import sections
from headwater.report.tables import Cell, Table, cell_text, number_text
from headwater.report.unlearning import KINDS
from headwater.valuation.values import Values, read_values, summarise
from headwater.view.browse import add_openings
from headwater.view.figures import distribution
from headwater.view.known import hits_of, once_a_file, read_csv, read_json
from headwater.view.shelf import Item, nameless
from headwater.view.site import AppSite, View

ENDS, GROUPS = 25, 40
"""Rows shown at each end of the values; groups shown."""
MOST_PRICES = 1_000
"""Prices of rows that are shown; the file has all."""


def values(site: AppSite, key: str, by: str) -> View:
    """A values file: its distribution, its groups, and the rows at both ends."""
    item = site.item(key, "values")
    found: Values = once_a_file(item.path, "all values", read_values)
    columns = group_columns(found)
    by = by or next((c for c in ("provider", "source", "topic") if c in columns), "")
    summary = summarise(found, by=by or None)
    groups = summary.pop("groups", {})
    numbers = found.numbers()
    order = np.argsort(-numbers, kind="stable")
    best, worst = (_lines(found, order[:ENDS]), _lines(found, order[::-1][:ENDS]))
    add_openings(site, [*best, *worst])
    ranked = sorted(({"name": n, **g} for n, g in groups.items()), key=lambda g: -g["mean"])[:GROUPS]
    data = {"values": key, "summary": summary, "by": by, "groups": ranked, "best": best, "worst": worst}
    data["meaning"] = found.meaning
    shown = {
        "item": item,
        "figure": distribution(numbers),
        "columns": columns,
        "tiles": _tiles(summary),
        "reach": _reach(ranked),
        "signed": found.signed,
    }
    return View("values.html.j2", item.title, plain_json(data), ranked or best, shown)


def _tiles(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers of a summary: what each is, the number, and a few words below it."""
    number = partial(number_text, digits=3)
    found = [("rows", f"{summary['rows']:,}", "")]
    found += [("mean", number(summary["mean"]), f"95 % interval {number(summary['low'])} to {number(summary['high'])}")]
    found += [("median", number(summary["median"]), "half of the rows are worth more")]
    found += [("range", f"{number(summary['least'])} to {number(summary['most'])}", "lowest and highest")]
    return found + (
        [("above 0", f"{100 * summary['helpful']:.3g} %", "of the rows help")] if "helpful" in summary else []
    )


def _reach(groups: Sequence[Mapping[str, Any]]) -> float:
    """The largest mean of a group, above or below zero; 1 if there is none."""
    return max((abs(group["mean"]) for group in groups), default=0.0) or 1.0


def group_columns(values: Values) -> list[str]:
    """Text columns of few values, by which rows can be grouped."""
    ours = {"id", "cluster", "characters"}
    found = []
    for name in values.table.column_names:
        column = values.table.column(name)
        if name not in ours and pa.types.is_string(column.type) and pc.count_distinct(column).as_py() <= 200:
            found.append(name)
    return found


def _lines(values: Values, places: Any) -> list[dict[str, Any]]:
    wanted = [
        n for n in values.table.column_names if n in ("id", "value", "low", "high", "provider", "topic", "cluster")
    ]
    found: list[dict[str, Any]] = values.table.select(wanted).take(pa.array(places)).to_pylist()
    return found


def ledger(site: AppSite, key: str) -> View:
    """A ledger: what each provider is paid; or the prices of rows, the dearest first."""
    item = site.item(key, "ledger", "prices")
    lines = [{name: _number(value) for name, value in line.items()} for line in once_a_file(item.path, "csv", read_csv)]
    total = next((line["amount"] for line in lines if line.get("provider") == "TOTAL" and item.kind == "ledger"), None)
    if item.kind == "prices":
        lines = sorted(lines, key=lambda line: -line["amount"])
        total = round(sum(line["amount"] for line in lines), 2)
    own = [line for line in lines if item.kind == "prices" or line["provider"] != "TOTAL"]
    shown = {
        "item": item,
        "lines": own[:MOST_PRICES],
        "left": max(len(own) - MOST_PRICES, 0),
        "total": total,
        "reach": max((line["amount"] for line in own), default=0) or 1,
        "index": next(iter(site.shelf.of("index")), None),
    }
    data = {"ledger": key, "kind": item.kind, "lines": lines[:MOST_PRICES]}
    return View("ledger.html.j2", item.title, data, lines[:MOST_PRICES], shown)


def _number(text: str) -> Any:
    try:
        return float(text) if "." in text or "e" in text else int(text)
    except ValueError:
        return text


def unlearning(site: AppSite, key: str) -> View:
    """An unlearning run: answers and losses before and after."""
    item = site.item(key, "unlearning")
    account: dict[str, Any] = once_a_file(item.path, "account", read_json)
    samples = account.get("samples", [])
    tables = [
        Table(title, ("prompt", "before", "after"), tuple((s["prompt"], s["before"], s["after"]) for s in own))
        for kind, title in KINDS.items()
        if (own := [s for s in samples if s["kind"] == kind])
    ]
    losses = [
        (name, account.get(f"{name} loss before"), account.get(f"{name} loss after")) for name in ("forget", "retain")
    ]
    tables.append(Table("Loss, nats a token", ("rows", "before", "after"), tuple(losses)))
    facts = {n: nameless(cell_text(v)) for n, v in account.items() if not isinstance(v, dict | list)}
    lead = (
        f"{facts.get('forget rows', '')} rows were unlearned with {account['method']}; outcome: {account['outcome']}."
    )
    shown = {
        "item": item,
        "tables": with_alignment(tables),
        "lead": lead,
        "facts": facts,
        "warnings": account.get("warnings", []),
    }
    clean = _without_paths(account)
    return View("tables.html.j2", item.title, {"unlearning": key, **plain_json(clean)}, samples, shown)


def _without_paths(value: Any) -> Any:
    """JSON with every absolute path shortened to its last part, but for what a model said."""
    if isinstance(value, Mapping):
        return {n: v if n in ("prompt", "before", "after") else _without_paths(v) for n, v in value.items()}
    if isinstance(value, list):
        return [_without_paths(one) for one in value]
    return nameless(value) if isinstance(value, str) else value


def evaluation(site: AppSite, key: str) -> View:
    """An evaluation: its tables, with intervals and controls."""
    item = site.item(key, "evaluation")
    result = once_a_file(item.path, "result", read_result)
    tables = [section.table for section in sections(result)]
    shown = {"item": item, "tables": with_alignment(tables), "lead": result.title, "warnings": []}
    shown["facts"] = {
        name: nameless(cell_text(v)) for name, v in result.about.items() if not isinstance(v, dict | list)
    }
    data = {"evaluation": key, **plain_json(_without_paths(result.to_json()))}
    return View("tables.html.j2", result.title, data, result.records(), shown)


def compare(site: AppSite, a: str, b: str) -> View:
    """Two things of one kind side by side; without both, the choice."""
    first, second = (site.item(key) if key else None for key in (a, b))
    choices = [item for item in site.shelf.items if item.kind in _COMPARED]
    shown: dict[str, Any] = {
        "choices": choices,
        "a": a,
        "b": b,
        "tables": [],
        "lead": "",
        "first": first,
        "second": second,
    }
    if first is None or second is None:
        return View("compare.html.j2", "Compare", {"choices": [item.key for item in choices]}, [], shown)
    if first.kind != second.kind or first.kind not in _COMPARED:
        what = f"'{first.title}' is {_A[first.kind]}, and '{second.title}' is {_A[second.kind]}"
        raise UsageError(
            what, where="compare", remedy="choose two indices, traces, values, unlearning runs or evaluations"
        )
    tables, lead = _COMPARED[first.kind](site, first, second)
    records = [dict(zip(t.columns, row, strict=True)) for t in tables[-1:] for row in t.rows]
    shown |= {"tables": with_alignment(tables), "lead": lead}
    named = [{"title": t.title, "columns": list(t.columns), "rows": [list(row) for row in t.rows]} for t in tables]
    return View(
        "compare.html.j2",
        f"{first.title} and {second.title}",
        plain_json({"a": a, "b": b, "tables": named}),
        records,
        shown,
    )


_A = {
    "index": "an index",
    "trace": "a trace",
    "values": "values",
    "ledger": "a ledger",
    "prices": "prices",
    "unlearning": "an unlearning run",
    "evaluation": "an evaluation",
    "report": "a report",
}


def _two_indices(site: AppSite, a: Item, b: Item) -> tuple[list[Table], str]:
    both = [site.snapshots.of(item) for item in (a, b)]
    facts: list[dict[str, Cell]] = []
    for index in both:
        m = index.manifest
        options = {f"option {name}": str(value) for name, value in m.method.options.items()}
        model = {"model": nameless(str(m.model["name"])), "made": m.created, "status": m.status}
        facts.append({"rows": index.count, "method": m.method.name, **model, "scores see": str(m.coverage), **options})
    names = list(dict.fromkeys([*facts[0], *facts[1]]))
    rows = tuple(
        (n, facts[0].get(n), facts[1].get(n), "" if facts[0].get(n) == facts[1].get(n) else "differs") for n in names
    )
    return [Table("What they are", ("fact", a.title, b.title, "same?"), rows)], "Two indices, fact by fact."


def _two_traces(site: AppSite, a: Item, b: Item) -> tuple[list[Table], str]:
    tables = []
    left, right = ({q.id: q for q in hits_of(item).queries} for item in (a, b))
    for name in [n for n in left if n in right][:50]:
        ranks = [{hit.id: hit for hit in side[name].hits} for side in (left, right)]
        ids = list(dict.fromkeys([*ranks[0], *ranks[1]]))
        lines = tuple(
            (i, *(x for side in ranks for x in ((side[i].rank, side[i].score) if i in side else (None, None))))
            for i in ids
        )
        shared = len(set(ranks[0]) & set(ranks[1]))
        columns = ("row", f"rank in {a.title}", "score", f"rank in {b.title}", "score ")
        tables.append(Table(f"{name}: {shared} of {len(ids)} rows in both", columns, lines))
    if not tables:
        raise UsageError("the two traces have no query in common", where="compare", remedy="trace the same queries")
    return tables, "The same queries in two traces: rank and score of every row that either found."


def _two_values(site: AppSite, a: Item, b: Item) -> tuple[list[Table], str]:
    left, right = (once_a_file(item.path, "all values", read_values) for item in (a, b))
    mine = dict(zip(left.ids, left.numbers().tolist(), strict=True))
    pairs = [(i, mine[i], v) for i, v in zip(right.ids, right.numbers().tolist(), strict=True) if i in mine]
    apart = sorted(pairs, key=lambda pair: -abs(pair[1] - pair[2]))[:200]
    first = [
        ("rows", len(left.ids), len(right.ids)),
        ("mean", float(np.nanmean(left.numbers())), float(np.nanmean(right.numbers()))),
    ]
    facts = Table("In all", ("number", a.title, b.title), (*first, ("rows in both", len(pairs), len(pairs))))
    lines = Table("Rows whose values differ most", ("row", a.title, b.title), tuple(apart))
    return [facts, lines], "The values of the same rows in two files."


def _two_accounts(site: AppSite, a: Item, b: Item) -> tuple[list[Table], str]:
    one, two = (once_a_file(item.path, "account", read_json) for item in (a, b))
    names = [n for n, v in one.items() if not isinstance(v, dict | list)]
    facts = Table(
        "In numbers", ("fact", a.title, b.title), tuple((n, _cell(one.get(n)), _cell(two.get(n))) for n in names)
    )
    after = {s["prompt"]: s["after"] for s in two.get("samples", [])}
    said = tuple((s["prompt"], s["before"], s["after"], after.get(s["prompt"])) for s in one.get("samples", []))
    columns = ("prompt", "before", f"after {a.title}", f"after {b.title}")
    return [facts, Table("Answers", columns, said)], "Two unlearning runs: numbers, and answers after each."


def _two_results(site: AppSite, a: Item, b: Item) -> tuple[list[Table], str]:
    one, two = (once_a_file(item.path, "result", read_result) for item in (a, b))
    tables = [s.table for result in (one, two) for s in sections(result)]
    return tables, "Two evaluations, one below the other."


def _cell(value: Any) -> Any:
    return nameless(value) if isinstance(value, str) else str(value) if isinstance(value, bool) else value


_COMPARED = {
    "index": _two_indices,
    "trace": _two_traces,
    "values": _two_values,
    "unlearning": _two_accounts,
    "evaluation": _two_results,
}


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as CSV; text that a spreadsheet could take for a formula is quoted, objects are JSON."""
    names = list(dict.fromkeys(name for record in records for name in record))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([_harmless(name) for name in names])
    for record in records:
        writer.writerow([_harmless(record.get(name)) for name in names])
    return out.getvalue()


def _harmless(value: Any) -> Any:
    if isinstance(value, dict | list | tuple):
        value = json.dumps(plain_json(value), ensure_ascii=False)
    if isinstance(value, str) and value[:1] in "=+-@\t\r":
        return f"'{value}"
    return value
