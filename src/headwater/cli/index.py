"""`headwater index`: build an index and maintain it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.config import Context
from headwater.cli.console import emit, emit_json, emit_pairs, say
from headwater.cli.console import out as show_line
from headwater.cli.idle import LOADING, idle_when, refuse_idle
from headwater.cli.options import (
    CODES,
    BuildOptions,
    EngineOptions,
    IndexPath,
    Json,
    LoadingOptions,
    Made,
    OtherModel,
    Relevant,
    Resume,
    RowOptions,
    open_index_to_search,
    with_groups,
)
from headwater.cli.progress import NOTHING, interruptible, progress, resumable
from headwater.core.errors import DataError

if TYPE_CHECKING:
    from headwater.search.retention import Retention

app = typer.Typer(help="Build an index of training rows and maintain it.", no_args_is_help=True)

Measured = Annotated[
    Path | None,
    typer.Option("--queries", help="Measure what the code keeps on these; else on some of the index's own rows."),
]


@app.command()
@with_groups
def build(
    out: Annotated[str, typer.Argument(help="Folder (or object-store URI) of the index to make.")],
    options: BuildOptions,
    engine: EngineOptions,
    shard: Annotated[str | None, typer.Option(help="Compute one part alone, such as 3/16; see index commit.")] = None,
    resume: Resume = False,
    as_json: Json = False,
) -> Made | None:
    """Read every row with the model and store its vectors in a new index.

    Example:  headwater index build runs/mine.lance --model my-model --data train.jsonl --method rise
    """
    from headwater.api.indexing import build as build_index
    from headwater.api.indexing import info as describe
    from headwater.index.info import readings
    from headwater.index.store import require_vacant
    from headwater.index.upkeep import kept_aside

    require_vacant(out, resume=resume or shard is not None)
    arguments = {**options.arguments(), "engine": engine.open(), "shard": shard, "resume": resume}
    with progress("reading rows", kept=resumable(out) if shard else lambda: _kept_of(out, _RESUME)) as bar:
        index = build_index(out, **arguments, on_progress=bar.rows)
    if shard is not None:
        text = f"{out}: shard {shard} is computed; when all are, headwater index commit {out} finishes the index"
        emit("index build shard", {"index": out, "shard": shard}, as_json, text)
        return None
    if options.max_memory or options.max_disk:
        say(f"built with batches of {index.manifest.plan.tokens_per_batch:,} tokens")
    say(f"covers {index.manifest.coverage}")
    if (read := readings(index)) is not None and read.note:
        say(read.note)
    _tell_aside(index, kept_aside(index))
    _show("index build", describe(index), as_json)
    return Made(out)


@app.command()
@with_groups
def commit(index: IndexPath, as_json: Json = False) -> None:
    """Put together an index that was built with --shard: check that all shards are there, and finish it.

    Example:  headwater index commit runs/mine.lance
    """
    from headwater.api.indexing import commit as commit_index
    from headwater.api.indexing import info as describe

    _show("index commit", describe(commit_index(index)), as_json)


@app.command()
@with_groups
def info(index: IndexPath, as_json: Json = False) -> None:
    """Describe an index: rows, bytes, method, coverage, fingerprints.

    Example:  headwater index info runs/mine.lance
    """
    from headwater.api.indexing import info as describe

    _show("index info", describe(index), as_json)


@app.command()
@with_groups
def add(
    index: IndexPath,
    rows: RowOptions,
    loading: LoadingOptions,
    engine: EngineOptions,
    model: OtherModel = None,
    as_json: Json = False,
) -> None:
    """Add the rows that the index does not have yet. If it is interrupted, run it again.

    Example:  headwater index add runs/mine.lance --data more.jsonl
    """
    from headwater.api.indexing import add as add_rows
    from headwater.index.info import readings
    from headwater.index.store import open_index

    opened = open_index(index)
    before = readings(opened)
    corpus = rows.corpus(opened.manifest.pairs)
    with progress(
        "reading rows",
        kept=lambda: _kept_of(index, "the same command goes on"),
    ) as bar:
        how = {"model": model, "loading": loading.chosen, "engine": engine.open()}
        done = add_rows(opened, corpus, **how, on_progress=bar.rows)
    after = readings(opened)
    if before is not None and after is not None and (note := (after - before).note):
        say(note)
    _tell_aside(opened, done.aside)
    facts: dict[str, Any] = {"index": index, "added": done.rows, "duplicates": done.duplicates}
    facts |= {"left_out": done.left_out, "rows": opened.count, "kept_aside": dict(done.aside)}
    text = f"{index}: {done.rows:,} rows added, {done.duplicates:,} were there already; {opened.count:,} in all"
    emit("index add", facts, as_json, text)


@app.command()
@with_groups
def delete(
    index: IndexPath,
    ids: Annotated[list[str], typer.Option("--id", help="Id of a row. Repeats.")] = [],
    ids_file: Annotated[Path | None, typer.Option(help="Text file of ids, one a line.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition: \"provider = 'a'\".")] = None,
    rows: Annotated[
        Path | None, typer.Option(help="File of rows or hits; those with the same text are deleted.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete rows, so that no search finds them; `headwater index compact` then removes them from the files.

    Example:  headwater index delete runs/mine.lance --where "provider = 'a'"
    """
    from headwater.api.indexing import delete as delete_rows

    opened = open_index_to_search(index, where)
    given = [*ids, *([] if ids_file is None else _read_ids(ids_file))]
    with interruptible("no row was deleted; run it again"):
        gone = delete_rows(opened, ids=given if given or ids_file else None, where=where, rows=rows)
    text = f"{index}: {gone:,} rows deleted, {opened.count:,} left; headwater index compact takes them off the disk"
    emit("index delete", {"index": index, "deleted": gone, "rows": opened.count}, as_json, text)


@app.command()
@with_groups
def compact(index: IndexPath, as_json: Json = False) -> None:
    """Rewrite the index without its deleted rows, and remove all earlier versions; this cannot be undone.

    Example:  headwater index compact runs/mine.lance
    """
    from headwater.api.indexing import compact as compact_index

    again = "until `headwater index compact` is run again and ends, deleted rows may still be in files on disk"
    with progress("compacting", kept=f"every row that was not deleted is kept; {again}"):
        done = compact_index(index)
    sizes = "" if done.bytes_before is None else f", {done.bytes_before:,} bytes before, {done.bytes_after:,} now"
    emit("index compact", {"index": index, **asdict(done)}, as_json, f"{index}: {done.rows:,} rows{sizes}")


@app.command()
@with_groups
def verify(
    context: Context,
    index: IndexPath,
    loading: LoadingOptions,
    model: Annotated[str | None, typer.Option(help="Read some rows again with this model.")] = None,
    recompute: Annotated[
        int | None, typer.Option(help="How many rows to read again (16 with --model), with the index's model.", min=1)
    ] = None,
    as_json: Json = False,
) -> None:
    """Look for faults: damage, edits, gaps, vectors of another model. Prints them and exits with 1 if there are any.

    Example:  headwater index verify runs/mine.lance --recompute 16
    """
    from headwater.api.indexing import verify as find_faults

    unread = "no row is read again without --model or --recompute"
    refuse_idle(context, idle_when(LOADING, unread, idle=model is None and recompute is None))
    with progress("verifying"):
        faults = find_faults(index, model=model, recompute=recompute, loading=loading.chosen)
    if as_json:
        emit_json("index verify", {"index": index, "sound": not faults, "faults": [asdict(fault) for fault in faults]})
    else:
        for fault in faults:
            show_line(fault)
        count = f"{len(faults):,} fault" + ("s" if len(faults) > 1 else "")
        say(f"{index}: {count}" if faults else f"{index}: sound")
    if faults:
        raise typer.Exit(1)


@app.command()
@with_groups
def quantise(
    context: Context,
    index: IndexPath,
    loading: LoadingOptions,
    engine: EngineOptions,
    code: Annotated[str, typer.Option(help=CODES)],
    out: Annotated[str, typer.Option(help="The index of codes to make.")],
    queries: Measured = None,
    relevant: Relevant = None,
    resume: Resume = False,
    model: OtherModel = None,
    as_json: Json = False,
) -> Made:
    """Write the index's rows to a new index with quantised vectors, check them, and measure what they keep.

    Only --queries needs the model; without it some of the index's own rows are asked for.

    Example:  headwater index quantise runs/mine.lance --code sign --out runs/small.lance --queries questions.jsonl
    """
    from headwater.api import indexing
    from headwater.index.info import describe
    from headwater.index.store import open_index
    from headwater.tracing.queries import read_queries

    unasked = "the index's own rows need none of it, and without --queries these are asked for"
    refuse_idle(context, idle_when(("relevant", "model", *LOADING), unasked, idle=queries is None))
    opened = open_index(index)
    if queries is not None:
        read_queries(queries)  # a fault in them is told before anything is written
    with progress(
        "quantising rows",
        kept=resumable(out),
    ) as bar:
        made = indexing.quantise(opened, out, code=code, resume=resume, engine=engine.open(), on_progress=bar.rows)
    facts = describe(made)
    how: dict[str, Any] = {} if queries is None else {"model": model, "loading": loading.chosen}
    kept = indexing.retention(made, queries, exact=opened, relevant=relevant, **how)
    sizes = {name: facts[name] for name in ("rows", "bytes", "bytes_per_row")}
    text = f"{out}: {facts['rows']:,} rows, {facts['bytes_per_row']['vectors']:,.0f} bytes of vectors a row"
    about = "" if queries is not None else " (the index's own rows; --queries measures yours)"
    found = {"index": index, "out": out, "code": code, **sizes, "retention": _retention_facts(kept)}
    emit("index quantise", found, as_json, f"{text}\n{code}: {kept}{about}")
    return Made(out)


@app.command()
@with_groups
def retention(
    context: Context,
    index: IndexPath,
    loading: LoadingOptions,
    queries: Annotated[Path, typer.Option(help="Queries to measure on: JSONL, CSV or Parquet.")],
    exact: Annotated[
        str | None, typer.Option(help="The index it was made from; without it, some rows are read again.")
    ] = None,
    relevant: Relevant = None,
    sample: Annotated[int, typer.Option(help="How many rows to read again if there is no --exact.", min=10)] = 2000,
    model: OtherModel = None,
    as_json: Json = False,
) -> None:
    """Measure how a quantised index agrees with exact search: the top 10 and, with --relevant, P@10.

    Example:  headwater index retention runs/small.lance --exact runs/mine.lance --queries questions.jsonl
    """
    from headwater.api.indexing import retention as measure

    refuse_idle(context, idle_when(("sample",), "with --exact all rows are compared", idle=exact is not None))
    chosen = loading.chosen
    with progress("searching"):
        kept = measure(index, queries, exact=exact, relevant=relevant, sample=sample, model=model, loading=chosen)
    facts = {"index": index, **_retention_facts(kept)}
    emit("index retention", facts, as_json, f"{index}: {kept}")


@app.command()
@with_groups
def ann(
    index: IndexPath,
    column: Annotated[str | None, typer.Option(help="Vector column; by default the first.")] = None,
    kind: Annotated[str, typer.Option(help="ivf_sq, ivf_flat or ivf_hnsw_sq.")] = "ivf_sq",
    partitions: Annotated[
        int | None, typer.Option(help="Number of cells; by default about the square root of the rows.", min=1)
    ] = None,
    as_json: Json = False,
) -> None:
    """Build a vector index for approximate search (`headwater trace --engine ann`); it replaces an earlier one.

    Example:  headwater index ann runs/mine.lance --column rise
    """
    from headwater.api.indexing import approximate_index
    from headwater.index.info import disk_bytes

    with progress("building the vector index", kept="the index is as it was; run it again"):
        built = approximate_index(index, column, kind=kind, partitions=partitions)
    size = disk_bytes(index)
    text = f"{index}: '{built}' has a vector index, {kind}" + ("" if size is None else f"; {size:,} bytes in all")
    emit("index ann", {"index": index, "column": built, "kind": kind, "bytes_on_disk": size}, as_json, text)


def _retention_facts(kept: Retention) -> dict[str, Any]:
    return {**asdict(kept), "precision_kept": kept.precision_kept}


def _tell_aside(index: Any, aside: Mapping[str, int]) -> None:
    """Say which metadata no column of the index holds."""
    kinds = {field.name: str(field.type) for field in index.dataset.schema}
    for name, count in aside.items():
        what = f"does not fit the column, of type {kinds[name]}" if name in kinds else "has no column of one type"
        say(f"note: '{name}' of {count:,} rows {what}; it is kept in `extra`, which --where does not see")


_RESUME = "the same command with --resume goes on"


def _kept_of(out: str, how: str) -> str:
    """What is said when filling an index is interrupted."""
    from headwater.index.store import exists, open_index

    if not exists(out):
        return NOTHING
    return f"{open_index(out).count:,} rows are kept in {out}; {how}"


def _show(command: str, facts: dict[str, Any], as_json: bool) -> None:
    if facts.get("warning"):
        say(f"warning: {facts['warning']}")
    if as_json:
        emit_json(command, facts)
    else:
        emit_pairs(_described(facts))


def _described(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of an index as people read them."""
    from headwater.methods.kept import told

    sizes, read, loading = facts["bytes_per_row"], facts["reading"] or {}, facts["model"].get("loading", {})
    deleted = f", and {facts['deleted_rows']:,} deleted" if facts["deleted_rows"] else ""
    disk = "" if facts["bytes_on_disk"] is None else f"; {facts['bytes_on_disk']:,} in all files"
    searched = ", ".join(f"{name} ({kind})" for name, kind in facts["vector_indices"].items())
    template = facts["tokenization"].get("template") or {}
    return {
        "path": facts["path"],
        "status": facts["status"],
        "rows": f"{facts['rows']:,}{deleted}",
        **({"rows left out": facts["left_out"]} if facts["left_out"] else {}),
        "bytes": f"{facts['bytes']:,}{disk}",
        "bytes a row": ", ".join(f"{name} {size:,.0f}" for name, size in sizes.items()),
        "vectors stored": told(facts["code"], facts["kept"]),
        "bytes of a vector": ", ".join(f"{name} {size:,}" for name, size in facts["vector_bytes"].items()),
        "made": f"{facts['created']} by headwater {facts['library_version']}, format {facts['format_version']}",
        "data": facts["data"],
        "row texts": "kept" if facts["keeps_text"] else "left out",
        "covers": facts["covers"],
        **{name.replace("_", " "): count for name, count in read.items() if count},
        "columns": facts["column_names"],
        "vector columns": [{n: column[n] for n in ("name", "dim", "dtype", "weight")} for column in facts["columns"]],
        **({"vector indices": searched} if searched else {}),
        "model": {"name": facts["model"].get("name"), **{n: v for n, v in loading.items() if v}},
        "fingerprint": facts["model"].get("fingerprint", {}),
        "template": template.get("name") if isinstance(template, dict) else template,
        "most tokens of a row": facts["tokenization"].get("max_tokens"),
        "method": facts["method"]["name"],
        "method options": facts["method"]["options"],
    }


def _read_ids(path: Path) -> list[str]:
    """The ids in a text file; empty lines are skipped."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = f"the ids cannot be read: {error}"
        raise DataError(what, where=str(path), remedy="write one id a line, in UTF-8") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError("there is no id in the file", where=str(path), remedy="write one id a line")
    return ids
