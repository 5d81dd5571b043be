"""Two things of one kind side by side: indices, traces, values, unlearning runs, evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.errors import UsageError
from headwater.core.plain import plain_json
from headwater.core.trace import Hit
from headwater.evaluation.result import read_result
from headwater.index.store import Index
from headwater.report.page import with_alignment
from headwater.report.results import sections
from headwater.report.tables import Cell, Table
from headwater.valuation.values import read_values
from headwater.view.browse import OPENING, add_openings
from headwater.view.known import hits_of, once_a_file, read_json
from headwater.view.rows import one_line
from headwater.view.shelf import PLURALS, Item, nameless
from headwater.view.site import AppSite, View

MOST_JOINED = 2_000_000
"""Indices with more rows are not compared row by row."""
APART = 100
"""Rows of a comparison that are shown: those that differ most."""
MOST_QUERIES = 50
"""Queries of two traces that are compared."""
SAME_LOSS = 1e-4
"""Nats a token: losses that differ by less are the same, read in other batches."""
SAME = "What is the same"
"""Title of a table that a page folds."""


def compare(site: AppSite, a: str, b: str) -> View:
    """Two things of one kind side by side; without both, the choice."""
    first, second = (_thing(site, key) if key else None for key in (a, b))
    shown: dict[str, Any] = {"choices": _choices(site), "a": a, "b": b, "tables": [], "lead": ""}
    shown |= {"first": first, "second": second}
    if first is None or second is None:
        keys = [item.key for _, items in shown["choices"] for item in items]
        return View("compare.html.j2", "Compare", {"choices": keys}, [], shown)
    if first.kind != second.kind or first.kind not in _COMPARED:
        what = f"'{first.title}' is {_A[first.kind]}, and '{second.title}' is {_A[second.kind]}"
        raise UsageError(
            what, where="compare", remedy="choose two indices, traces, values, unlearning runs or evaluations"
        )
    tables, lead = _COMPARED[first.kind](site, first, second)
    records = [dict(zip(t.columns, row, strict=True)) for t in tables[-1:] for row in t.rows]
    shown |= {"tables": with_alignment(tables), "lead": lead, "index": _index_for(site, first)}
    named = [{"title": t.title, "columns": list(t.columns), "rows": [list(row) for row in t.rows]} for t in tables]
    title = f"Two {PLURALS[first.kind].lower() if first.kind != 'unlearning' else 'unlearning runs'}"
    return View(
        "compare.html.j2",
        title,
        plain_json({"a": a, "b": b, "titles": [first.title, second.title], "tables": named}),
        records,
        shown,
    )


def _choices(site: AppSite) -> list[tuple[str, list[Item]]]:
    """What can be compared, by kind: the shelf's things, and the traces that were made since the app started."""
    found = [(title, list(site.shelf.of(kind))) for kind, title in PLURALS.items() if kind in _COMPARED]
    found.append(("Traces made in the app", [item for name in site.jobs.names() if (item := _asked(site, name))]))
    return [(title, items) for title, items in found if items]


def _asked(site: AppSite, name: str) -> Item | None:
    """A trace that was made in the app, as a thing on the shelf; None if it is not known any more."""
    kept = site.jobs.traced(name)
    if kept is None:
        return None
    question = kept.question
    words = f", about {', '.join(question.spans)}" if question.spans else ""
    title = f"{question.by or kept.trace.method}: {' '.join((question.response or '').split())[:60]}{words[:60]}"
    where = f" [{question.where[:40]}]" if question.where else ""
    return Item("trace", name, title + where + (" (lowest)" if question.lowest else ""), "", kept.trace)


def _thing(site: AppSite, key: str) -> Item:
    return _asked(site, key) or site.item(key)


def _index_for(site: AppSite, first: Item) -> str:
    """The key of the index in which rows of a comparison are looked up; empty if it is not known."""
    indices = site.shelf.of("index")
    return first.key if first.kind == "index" else indices[0].key if len(indices) == 1 else ""


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
    facts = [_facts(index) for index in both]
    names = list(dict.fromkeys([*facts[0], *facts[1]]))
    apart = tuple((n, facts[0].get(n), facts[1].get(n)) for n in names if facts[0].get(n) != facts[1].get(n))
    same = tuple((n, facts[0][n]) for n in names if facts[0].get(n) == facts[1].get(n))
    tables = [Table("What differs", ("fact", "A", "B"), apart), Table(SAME, ("fact", "both"), same)]
    if max(index.count for index in both) > MOST_JOINED:
        return tables, f"What differs between two indices; with more than {MOST_JOINED:,} rows, not row by row."
    lead = "What differs between the two, the rows they share, and how well the model of each knows these rows."
    return [*tables, *_row_by_row(site, both)], lead


def _facts(index: Index) -> dict[str, Cell]:
    m = index.manifest
    options = {f"option {name}": str(value) for name, value in m.method.options.items()}
    model = {"model": nameless(str(m.model["name"])), "made": m.created, "status": m.status}
    return {"rows": index.count, "method": m.method.name, **model, "scores see": str(m.coverage), **options}


def _row_by_row(site: AppSite, both: Sequence[Index]) -> list[Table]:
    """How many rows are in both or in one, whose text differs, and the rows whose loss differs most."""
    left, right = (_compared_columns(index) for index in both)
    joined = left.join(right, "id", join_type="inner", right_suffix=" b")
    one, two = len(left) - len(joined), len(right) - len(joined)
    other = pc.sum(pc.not_equal(joined.column("digest"), joined.column("digest b"))).as_py() or 0
    counts: list[tuple[Cell, ...]] = [("rows", len(left), len(right))]
    counts += [("rows in both, by their id", len(joined), len(joined)), ("rows in this one alone", one, two)]
    counts += [("rows in both whose text, or its tokens, differ", other, other)]
    losses = [joined.column(name).to_numpy(zero_copy_only=False) for name in ("loss", "loss b")]
    known = np.isfinite(losses[0]) & np.isfinite(losses[1])
    if known.any():
        counts.append(("mean loss of the rows in both, nats a token", *(float(side[known].mean()) for side in losses)))
    apart = np.where(known, np.abs(losses[0] - losses[1]), -1.0)
    places = [n for n in np.argsort(-apart, kind="stable")[:APART].tolist() if apart[n] > SAME_LOSS]
    lines: list[dict[str, Any]] = [
        {"id": i} for i in joined.column("id").take(pa.array(places, pa.int64())).to_pylist()
    ]
    add_openings(site, lines)
    rows = tuple(
        (line["id"], line.get("text", ""), float(losses[0][n]), float(losses[1][n]), float(losses[1][n] - losses[0][n]))
        for line, n in zip(lines, places, strict=True)
    )
    tables = [Table("Their rows", ("count", "A", "B"), tuple(counts))]
    columns = ("row", "text", "loss in A", "loss in B", "difference")
    note = "Loss in nats a token, when the index was built. Below 0: the model of B knows the row better."
    return [*tables, Table("Rows whose loss differs most", columns, rows, note)] if rows else tables


def _compared_columns(index: Index) -> pa.Table:
    """The id, the digest of the text as the model reads it, and the loss of every row."""
    names = [name for name in ("id", "digest", "loss") if name in index.plain]
    schema = index.dataset.schema.empty_table().select(names).schema.append(pa.field("_rowaddr", pa.uint64()))
    table = pa.Table.from_batches(list(index.batches(names, rows=65_536)), schema)
    table = table.select(names)
    if "loss" not in names:
        table = table.append_column("loss", pa.nulls(len(table), pa.float32()))
    return table


def _two_traces(site: AppSite, a: Item, b: Item) -> tuple[list[Table], str]:
    left, right = ({q.id: q for q in hits_of(item).queries} for item in (a, b))
    shared = [name for name in left if name in right][:MOST_QUERIES]
    if not shared:
        raise UsageError("the two traces have no query in common", where="compare", remedy="trace the same queries")
    tables = []
    for name in shared:
        ranks = [{hit.id: hit for hit in side[name].hits} for side in (left, right)]
        ids = list(dict.fromkeys([*ranks[0], *ranks[1]]))
        texts = {i: one_line(" → ".join(hit.row.values()), OPENING) for side in ranks for i, hit in side.items()}
        lines = tuple(
            (
                i,
                texts[i],
                *(x for side in ranks for x in ((side[i].rank, side[i].score) if i in side else (None, None))),
            )
            for i in ids
        )
        both = len(set(ranks[0]) & set(ranks[1]))
        columns = ("row", "text", "rank in A", "score in A", "rank in B", "score in B")
        tables.append(Table(f"{name}: {both} of {len(ids)} rows in both", columns, lines))
    return tables, "The same queries in two traces: rank and score of every row that either found."


def _place(hit: Hit | None) -> tuple[Cell, Cell]:
    return (hit.rank, hit.score) if hit else (None, None)


def _two_values(site: AppSite, a: Item, b: Item) -> tuple[list[Table], str]:
    left, right = (once_a_file(item.path, "all values", read_values) for item in (a, b))
    mine = dict(zip(left.ids, left.numbers().tolist(), strict=True))
    pairs = [(i, mine[i], v) for i, v in zip(right.ids, right.numbers().tolist(), strict=True) if i in mine]
    apart: list[dict[str, Any]] = [
        {"id": i, "a": x, "b": y} for i, x, y in sorted(pairs, key=lambda pair: -abs(pair[1] - pair[2]))[:APART]
    ]
    add_openings(site, apart)
    facts: list[tuple[Cell, ...]] = [("rows", len(left.ids), len(right.ids)), ("rows in both", len(pairs), len(pairs))]
    facts.append(("mean value", float(np.nanmean(left.numbers())), float(np.nanmean(right.numbers()))))
    if len(pairs) > 2:
        ranks = [np.argsort(np.argsort([pair[side] for pair in pairs])) for side in (1, 2)]
        agreement = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
        facts.append(("rank correlation of the rows in both", agreement, agreement))
    lines = tuple((row["id"], row.get("text", ""), row["a"], row["b"], row["b"] - row["a"]) for row in apart)
    columns = ("row", "text", "value in A", "value in B", "difference")
    tables = [Table("In all", ("number", "A", "B"), tuple(facts))]
    return [
        *tables,
        Table("Rows whose values differ most", columns, lines),
    ], "The values of the same rows in two files."


def _two_accounts(site: AppSite, a: Item, b: Item) -> tuple[list[Table], str]:
    one, two = (once_a_file(item.path, "account", read_json) for item in (a, b))
    names = [n for n, v in one.items() if not isinstance(v, dict | list)]
    pairs = [(n, _cell(one.get(n)), _cell(two.get(n))) for n in names]
    facts = Table("In numbers", ("fact", "A", "B"), tuple(pair for pair in pairs if pair[1] != pair[2]))
    same = Table(SAME, ("fact", "both"), tuple(pair[:2] for pair in pairs if pair[1] == pair[2]))
    after = {s["prompt"]: s["after"] for s in two.get("samples", [])}
    said = tuple((s["prompt"], s["before"], s["after"], after.get(s["prompt"])) for s in one.get("samples", []))
    columns = ("prompt", "before A", "after A", "after B")
    return [facts, same, Table("Answers", columns, said)], "Two unlearning runs: numbers, and answers after each."


def _two_results(site: AppSite, a: Item, b: Item) -> tuple[list[Table], str]:
    named = (("A", a), ("B", b))
    results = [(letter, once_a_file(item.path, "result", read_result)) for letter, item in named]
    tables = [replace(s.table, title=f"{letter}: {s.table.title}") for letter, r in results for s in sections(r)]
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
