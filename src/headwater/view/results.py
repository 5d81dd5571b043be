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

from headwater.core.plain import plain_json
from headwater.evaluation.result import read_result
from headwater.report.page import with_alignment
from headwater.report.results import sections
from headwater.report.tables import Table, cell_text, number_text
from headwater.report.unlearning import KINDS
from headwater.valuation.values import Values, read_values, summarise
from headwater.view.browse import add_openings
from headwater.view.figures import distribution
from headwater.view.known import once_a_file, read_csv, read_json
from headwater.view.shelf import nameless
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
    facts = {n: nameless(cell_text(v)) for n, v in account.items() if not isinstance(v, dict | list)}
    lead = (
        f"{facts.get('forget rows', '')} rows were unlearned with {account['method']}; outcome: {account['outcome']}."
    )
    shown = {
        "item": item,
        "tables": with_alignment(tables),
        "lead": lead,
        "tiles": _before_and_after(account),
        "facts": facts,
        "warnings": account.get("warnings", []),
    }
    clean = _without_paths(account)
    return View("tables.html.j2", item.title, {"unlearning": key, **plain_json(clean)}, samples, shown)


def _before_and_after(account: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers that an unlearning run measured before and after: what each is, both, and its unit."""
    found = []
    for name in (n.removesuffix(" before") for n in account if n.endswith(" before")):
        measured = (account.get(f"{name} before"), account.get(f"{name} after"))
        pair = [v for v in measured if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(pair) == 2 and name.endswith("answers"):
            found.append((name, " → ".join(f"{100 * v:.3g} %" for v in pair), "before → after"))
        elif len(pair) == 2:
            unit = "nats a token, before → after" if "loss" in name else "before → after"
            found.append((name, " → ".join(number_text(float(v), digits=3) for v in pair), unit))
    return found


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
    lead = "Methods on one ground truth, each with its 95 % interval; the controls stand in the same table."
    shown = {"item": item, "tables": with_alignment(tables), "lead": lead, "warnings": []}
    shown["facts"] = {
        name: nameless(cell_text(v)) for name, v in result.about.items() if not isinstance(v, dict | list)
    }
    data = {"evaluation": key, **plain_json(_without_paths(result.to_json()))}
    return View("tables.html.j2", result.title, data, result.records(), shown)


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
