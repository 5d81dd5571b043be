"""`headwater trace`: find the rows that drove a response."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli.config import Context
from headwater.cli.console import emit_json, emit_table, say
from headwater.cli.idle import idle_in_trace, refuse_idle
from headwater.cli.options import (
    Asked,
    By,
    Columns,
    IndexPath,
    Json,
    LoadingOptions,
    Made,
    OtherModel,
    ScanMemory,
    Verify,
    WorkerOptions,
    Writes,
    open_index_to_search,
    pairs,
    scan_memory,
    with_groups,
)
from headwater.cli.progress import progress
from headwater.core.errors import unknown_name
from headwater.core.files import whole_file
from headwater.core.plain import json_ready
from headwater.core.trace import Hit, QueryTrace, Trace

_SHOWN_WIDTH = 100
_SHOWN_IDS = 10
_MODULES = 12


@with_groups
def trace(
    context: Context,
    index: IndexPath,
    loading: LoadingOptions,
    pool: WorkerOptions,
    queries: Annotated[Path | None, typer.Option(help="Rows to trace: JSONL, CSV or Parquet.")] = None,
    prompt: Annotated[str | None, typer.Option(help="One prompt instead of a file.")] = None,
    response: Annotated[str | None, typer.Option(help="The model's response; without it, one is generated.")] = None,
    top: Annotated[int, typer.Option(help="Hits a query.", min=1)] = 20,
    span: Annotated[str | None, typer.Option(help="Trace only these words of the response.")] = None,
    by: By = None,
    lowest: Annotated[bool, typer.Option("--lowest", help="Show the lowest-scored rows instead.")] = False,
    where: Annotated[str | None, typer.Option(help="SQL condition: \"provider = 'a'\".")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Compute token maps of both sides.")] = False,
    exact: Annotated[
        int, typer.Option(help="Rank this many rows a query again, without codes or sketches.", min=0)
    ] = 0,
    grids: Annotated[
        int | None, typer.Option(help="Token × token maps for this many hits a query (1 with token maps).", min=0)
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of a generated response.", min=1)] = 128,
    engine: Annotated[
        str, typer.Option(help="exact, ann: by the vector index of `headwater index ann`, or ray: exact, by workers.")
    ] = "exact",
    max_memory: ScanMemory = None,
    out: Annotated[Path | None, typer.Option(help="Write one JSON object a hit."), Writes] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained report (with token maps)."), Writes] = None,
    columns: Columns = [],
    targets: Asked = "last",
    against: Annotated[
        str | None, typer.Option(help="File of queries whose score is subtracted; with --prompt, another response.")
    ] = None,
    mean: Annotated[bool, typer.Option("--mean", help="Trace the mean of the queries, and of --against.")] = False,
    direction: Annotated[
        Path | None, typer.Option(help="Search with a vector instead of queries: .npy or .safetensors.")
    ] = None,
    by_module: Annotated[bool, typer.Option("--by-module", help="Divide each hit's score by module.")] = False,
    group_by: Annotated[
        str | None, typer.Option(help="Effect of all rows with one value of this column, with their interaction.")
    ] = None,
    damping: Annotated[float, typer.Option(help="Damping of --group-by, as a share of the mean eigenvalue.")] = 1.0,
    model: OtherModel = None,
    verify: Verify = False,
    as_json: Json = False,
) -> Made | None:
    """Find the rows that drove a response, and the words in them.

    Example:  headwater trace runs/mine.lance --prompt "howdy! What is a verb?" --top 10 --html report.html
    """
    from headwater.api.tracing import trace as trace_index
    from headwater.report import write_report

    given = {"prompt": prompt is not None, "response": response is not None, "ann": engine == "ann"}
    refuse_idle(context, idle_in_trace(**given, grouped=group_by is not None))
    asked: dict[str, Any] = {
        "prompt": prompt,
        "response": response,
        "span": span,
        "max_new_tokens": max_new_tokens,
        "targets": targets,
        "against": against,
        "mean": mean,
        "direction": direction,
    }
    more: dict[str, Any] = {"by_module": by_module, "group_by": group_by, "damping": damping}
    ranked: dict[str, Any] = {"top": top, "by": by, "lowest": lowest, "where": where, "exact": exact}
    ranked["engine"] = _searching(engine, pool)
    ranked |= {"columns": pairs(columns, "--column"), **scan_memory(max_memory)}
    with progress("tracing") as bar:
        found = trace_index(
            open_index_to_search(index, where),
            queries,
            **asked,
            **ranked,
            **more,
            tokens=tokens or html is not None,
            grids=grids,
            verify=verify,
            model=model,
            loading=loading.chosen,
            on_progress=bar.share,
        )
    if out is not None:
        with whole_file(out) as part, part.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(hit, ensure_ascii=False, default=json_ready) + "\n" for hit in found.each_hit())
    if html is not None:
        write_report(html, found)
        say(f"report: {html}")
    _show(found, as_json)
    place = out or html
    return None if place is None else Made(place)


def _searching(engine: str, pool: WorkerOptions) -> Any:
    """The `engine` of `headwater.trace`: the name of a search in this process, or an engine for one elsewhere."""
    known = ("exact", "ann", "ray")
    if engine not in known:
        raise unknown_name("engine", engine, known, where="--engine")
    opened = pool.open("ray" if engine == "ray" else "local")
    return opened if opened.elsewhere else engine


def _show(found: Trace, as_json: bool) -> None:
    if as_json:
        emit_json("trace", found)
        return
    for query in found.queries:
        generated = " (generated)" if query.generated else ""
        say(f"query {query.id}: {_short(query.prompt or '')} → {_short(query.response)}{generated}")
        if query.hits:
            title = f"rows behind '{query.id}', {found.about['order']}"
            emit_table(title, ["rank", "score", "id", "row"], _folded(query.hits))
            _show_modules(query)
    if found.groups:
        groups = [[g.query, g.group, g.rows, g.effect, g.summed, g.interaction] for g in found.groups]
        emit_table("effects of groups", ["query", "group", "rows", "effect", "summed", "interaction"], groups)
        say(found.about["groups"])
    if "asked" in found.about:
        say(f"asked about {found.about['asked']}")
    say(found.about["sign"])
    if "rows" in found.about:
        say(f"rows {found.about['rows']}")
    elif not any(query.hits for query in found.queries):
        say(f"no rows were found: the index is {found.about['index']}")
    if "engine" in found.about:
        say(found.about["engine"])


def _folded(hits: Sequence[Hit]) -> list[list[Any]]:
    """A line of the table for each text; hits that read the same are one line that names them all."""
    groups: dict[tuple[str, ...], list[Hit]] = {}
    for hit in hits:
        groups.setdefault(tuple(hit.row.values()), []).append(hit)
    rows = []
    for texts, same in groups.items():
        first, text = same[0], _short(" → ".join(texts))
        if len(same) > 1:
            ids = ", ".join(hit.id for hit in same[:_SHOWN_IDS]) + (", …" if len(same) > _SHOWN_IDS else "")
            text = f"{text} (×{len(same)}, ids {ids})"
        rows.append([first.rank, first.score, first.id, text])
    return rows


def _show_modules(query: QueryTrace) -> None:
    """A table of the modules that add most to a query's hits: what they add to the best hit and to all shown."""
    totals: dict[str, float] = {}
    for hit in query.hits:
        for name, part in (hit.modules or {}).items():
            totals[name] = totals.get(name, 0.0) + part
    if not totals:
        return
    best = query.hits[0].modules or {}
    most = sorted(totals, key=lambda name: -abs(totals[name]))[:_MODULES]
    rows = [[name, best[name], totals[name]] for name in most]
    emit_table(f"modules behind '{query.id}'", ["module", "part of the first hit", "part of all hits"], rows)


def _short(text: str) -> str:
    flat = "".join(c if c.isprintable() else "·" for c in " ".join(text.split()))
    return flat if len(flat) <= _SHOWN_WIDTH else flat[: _SHOWN_WIDTH - 1] + "…"
