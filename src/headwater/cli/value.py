"""`headwater value`: estimate what each candidate row is worth for a task, before a model is trained on it.

`value export-target | score | audit` are for parties who do not show each other their rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.config import Context
from headwater.cli.console import as_fields, emit, emit_json, emit_pairs, emit_table, say
from headwater.cli.idle import LOADING, READING, idle_in_scoring, idle_in_value, idle_when, refuse_idle
from headwater.cli.options import (
    AnyModel,
    Columns,
    Duplicates,
    EngineOptions,
    GroupBy,
    Json,
    LoadingOptions,
    Made,
    MaxTokens,
    ModelName,
    Pairs,
    ReadingOptions,
    Resume,
    Settings,
    Targets,
    Template,
    TokensPerBatch,
    UnusableOptions,
    Writes,
    WritesFolder,
    WritesNew,
    open_rows,
    with_groups,
)
from headwater.cli.options import pairs as name_values
from headwater.cli.progress import Bar, progress, resumable
from headwater.core.errors import UsageError

if TYPE_CHECKING:
    from headwater.cli.results import Audited
    from headwater.valuation.values import Values
    from headwater.valuing.request import Valued
    from headwater.valuing.third_party import Audit

app = typer.Typer(invoke_without_command=True)

_OF_A_POOL = (
    "method",
    "settings",
    "columns",
    "limit",
    "split",
    "pairs",
    "student",
    "student_cost",
    "student_proxy",
    "force",
    *READING,
)
_OF_A_POOL += tuple(UnusableOptions.__dataclass_fields__)
"""Options about reading a pool."""

_POOL = "The pool: file, folder or pattern of JSONL, CSV or Parquet, or hub name. Repeats."
Pool = Annotated[list[str], typer.Option(help=_POOL)]
Split = Annotated[str | None, typer.Option(help="Split of the pool, where it has several.")]
Query = Annotated[Path | None, typer.Option(help="The owner's query file (see `value export-target`).")]
Proxy = Annotated[
    str | None,
    typer.Option("--student-proxy", help="A small model whose sketches a student may read."),
]
Force = Annotated[bool, typer.Option("--force", help="Write the values although the student that made them is weak.")]
Out = Annotated[
    Path, typer.Option(help="Parquet file to write: id, value, low, high, then the rows' own columns."), WritesNew
]


@app.callback()
@with_groups
def value(
    context: Context,
    loading: LoadingOptions,
    reading: ReadingOptions,
    unusable: UnusableOptions,
    engine: EngineOptions,
    candidates: Annotated[list[str], typer.Option(help=_POOL)] = [],
    target: Annotated[list[str], typer.Option(help="Rows of the task you want data for. Repeats.")] = [],
    index: Annotated[str | None, typer.Option(help="Value the rows of this index by its vectors; no pool.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Parquet file: id, value, low, high, the rows' own columns."), WritesNew
    ] = None,
    model: AnyModel = None,
    method: Annotated[str, typer.Option(help="linfik, alinfik, rise, rapidin, ... (`headwater methods`).")] = "linfik",
    settings: Settings = [],
    columns: Columns = [],
    limit: Annotated[int | None, typer.Option(help="Value only this many rows from the start of the pool.")] = None,
    split: Split = None,
    pairs: Pairs = None,
    duplicates: Duplicates = 0.7,
    student: Annotated[
        Path | None, typer.Option(help="Folder for the student, for methods that train one."), WritesFolder
    ] = None,
    student_cost: Annotated[
        str | None,
        typer.Option(help="The most a student may cost, as a share of its teacher's time; default 1/20, see docs."),
    ] = None,
    student_proxy: Proxy = None,
    by: GroupBy = None,
    plot: Annotated[Path | None, typer.Option(help="Folder for figures of the values."), WritesFolder] = None,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> Made | None:
    """Value every candidate row: how much training on it would lower the target's loss, with an interval.

    Example:  headwater value --candidates pool.jsonl --target task.jsonl --model my-model --out values.parquet
    """
    if context.invoked_subcommand is not None:
        return None
    needed = {"--candidates or --index": candidates or index, "--target": target, "--out": out}
    missing = [name for name, given in needed.items() if not given]
    if missing or out is None or (candidates and index):
        what = f"{', '.join(missing)} missing" if missing else "both --candidates and --index"
        raise UsageError(what, where="value", remedy="see 'headwater value --help'")
    from headwater.api import valuing
    from headwater.index.store import open_index
    from headwater.methods.catalog import find_method
    from headwater.valuing.index import IndexPool

    with progress(
        "valuing",
        kept=resumable(out),
    ) as bar:
        shared = {**_common(out, duplicates, resume, bar), "model": model, "loading": loading.chosen}
        shared["engine"] = engine.open()
        if index is not None:
            refuse_idle(context, dict.fromkeys(_OF_A_POOL, "an index has its rows, its method and its way of reading"))
            _require_group(IndexPool(open_index(index)), by)
            valued = valuing.value_index(index, target, **shared)
        else:
            given = name_values(settings, "--set")
            refuse_idle(context, idle_in_value(find_method(method, given), model=model is not None))
            of_student = {"cost": student_cost, "proxy": student_proxy}
            given |= {name: text for name, text in of_student.items() if text is not None}
            how: dict[str, Any] = {"method": method, "settings": given, "student": student}
            how["force"] = force
            pool = open_rows(candidates, columns, limit=limit, split=split, pairs=pairs, **unusable.chosen)
            _require_group(pool, by)
            valued = valuing.value(pool, target, **how, **vars(reading), **shared)
    _show("value", valued, by, plot, as_json)
    return Made(out)


@app.command("export-target")
@with_groups
def export_target(
    target: Annotated[str, typer.Option(help="Rows of the task you want data for; at least 16.")],
    model: ModelName,
    loading: LoadingOptions,
    out: Annotated[Path, typer.Option(help="The query file to write (safetensors)."), Writes],
    method: Annotated[str, typer.Option(help="A method that has a form with vectors.")] = "linfik",
    settings: Settings = [],
    template: Template = None,
    max_tokens: MaxTokens = 8192,
    targets: Targets = None,
    as_json: Json = False,
) -> Made:
    """For the owner: write the target as a query file, which holds vectors and no text.

    Example:  headwater value export-target --target task.jsonl --model my-model --out task.query
    """
    from headwater.api.sources import target_of
    from headwater.api.valuing import export_target as export

    rows = target_of(target)
    how: dict[str, Any] = {"method": method, "settings": name_values(settings, "--set"), "loading": loading.chosen}
    query = export(rows, out, model=model, template=template, max_tokens=max_tokens, targets=targets, **how)
    shapes = {name: list(vectors.shape) for name, vectors in query.probes.vectors.items()}
    facts = {"out": str(out), "method": query.spec.name, "rows": len(rows.rows), "vectors": shapes}
    words = " and ".join(f"{' × '.join(map(str, shape))} in '{name}'" for name, shape in shapes.items())
    text = f"{out}: {len(rows.rows):,} rows as vectors of {query.spec.name}, {words}; no text of a row is in it"
    emit("value export-target", facts, as_json, text)
    return Made(out)


@app.command("score")
@with_groups
def score(
    context: Context,
    candidates: Pool,
    out: Out,
    loading: LoadingOptions,
    query: Query = None,
    student: Annotated[Path | None, typer.Option(help="A saved student instead of a query file and model.")] = None,
    student_proxy: Proxy = None,
    model: AnyModel = None,
    columns: Columns = [],
    split: Split = None,
    duplicates: Duplicates = 0.7,
    tokens_per_batch: TokensPerBatch = 8192,
    by: GroupBy = None,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> Made:
    """For a provider: value candidates with the owner's query file and the model, or with a student alone.

    Example:  headwater value score --candidates pool.jsonl --student values.student --out values.parquet
    """
    from headwater.api import valuing
    from headwater.students.student import sources_of

    if (query is None) == (student is None) or (query is not None and model is None):
        remedy = "give either --student, or --query with --model"
        raise UsageError("it is not said by what to score", where="value score", remedy=remedy)
    reads = () if student is None else sources_of(student)
    refuse_idle(context, idle_in_scoring(by_student=student is not None, reads=reads))
    corpus = open_rows(candidates, columns, split=split)
    _require_group(corpus, by)
    with progress(
        "valuing",
        kept=resumable(out),
    ) as bar:
        shared = _common(out, duplicates, resume, bar)
        if student is not None:
            valued = valuing.value_with_student(
                corpus, student, force=force, model=model, proxy=student_proxy, loading=loading.chosen, **shared
            )
        else:
            how: dict[str, Any] = {"loading": loading.chosen, "tokens_per_batch": tokens_per_batch}
            valued = valuing.value_query(corpus, str(query), model=str(model), **how, **shared)
    _show("value score", valued, by, None, as_json)
    return Made(out)


@app.command("audit")
@with_groups
def audit(
    context: Context,
    values: Annotated[Path, typer.Argument(help="The values file to check.")],
    candidates: Pool,
    loading: LoadingOptions,
    split: Split = None,
    model: AnyModel = None,
    query: Query = None,
    target: Annotated[str | None, typer.Option(help="The target's rows, if the third party has them.")] = None,
    sample: Annotated[int, typer.Option(help="How many rows to score again.", min=10)] = 100,
    threshold: Annotated[float, typer.Option(help="Least Spearman correlation that confirms the values.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the sample; choose it after the values are delivered.")] = 0,
    budget: Annotated[str | None, typer.Option(help="Also say how sure the payments of this budget are.")] = None,
    by: GroupBy = None,
    template: Template = None,
    targets: Targets = None,
    as_json: Json = False,
) -> None:
    """For a third party: score a random sample again. Exits with 1 if the values do not agree.

    Example:  headwater value audit values.parquet --candidates pool.jsonl --query task.query --model my-model
    """
    from headwater.api.valuing import audit as check
    from headwater.valuation.values import read_values

    if (query is None) == (target is None):
        raise UsageError("there is no target", where="value audit", remedy="give either --query or --target")
    read_so = "the query file says how rows are read"
    unloaded = idle_when(LOADING, "there is no --model to load", idle=model is None)
    refuse_idle(context, {**unloaded, **idle_when(("template", "targets"), read_so, idle=query is not None)})
    how: dict[str, Any] = {"model": model, "template": template, "targets": targets, "loading": loading.chosen}
    how |= {"sample": sample, "threshold": threshold, "seed": seed}
    read = read_values(values)
    columns = [f"{role}={column}" for role, column in read.about.get("columns", {}).items()]
    pool = open_rows(candidates, columns, split=read.about.get("split") if split is None else split)
    found = check(read, pool, query=query, target=target, **how)
    changes = None if budget is None else _changeable(read, budget, by)
    if as_json:
        emit_json("value audit", _audited(found, changes))
    else:
        emit_pairs({"rows": found.rows, "Spearman": found.spearman, "inside the interval": found.inside})
        row, off = found.largest
        say(f"furthest off: row '{row}', by {off:.2f} standard deviations")
        for provider, share in sorted((changes or {}).items(), key=lambda pair: -pair[1]):
            say(f"'{provider}': other labels would change its pay by over 10 % with probability {share:.2f}")
        say("confirmed" if found.confirmed else f"NOT confirmed: below {threshold:g}")
    if not found.confirmed:
        raise typer.Exit(1)


def _changeable(values: Values, budget: str, by: str | None) -> dict[str, float] | None:
    """The probability that other labels would change each provider's pay by more than a tenth."""
    from headwater.api.choosing import price

    return price(values, budget, by=by).prices.changeable


def _audited(found: Audit, changes: dict[str, float] | None) -> Audited:
    row, off = found.largest
    return {
        "rows": found.rows,
        "spearman": found.spearman,
        "inside": found.inside,
        "largest_id": row,
        "largest_difference": off,
        "threshold": found.threshold,
        "confirmed": found.confirmed,
        "changeable": changes,
    }


def _require_group(rows: Any, by: str | None) -> None:
    """Refuse a column to group by that no row has, before any row is valued."""
    from headwater.valuation.values import OURS, unknown_column

    names = dict.fromkeys(OURS)
    if by is None or by in names:
        return
    for row in rows:
        if by in row.metadata:
            return
        names |= dict.fromkeys(row.metadata)
    raise unknown_column(by, list(names), where="--by")


def _common(out: Path, duplicates: float, resume: bool, bar: Bar) -> dict[str, Any]:
    """The arguments that all functions of valuing take."""
    return {"out": out, "duplicates": duplicates, "resume": resume, "on_progress": bar.stage}


def _show(command: str, valued: Valued, by: str | None, plot: Path | None, as_json: bool) -> None:
    """Print the summary of a values file, and save figures if a folder is given."""
    from headwater.report.plots import save_value_plots
    from headwater.valuation.values import summarise

    values = valued.values
    summary = summarise(values, by=by)
    if valued.leaked:
        shown = ", ".join(valued.leaked[:3]) + (", ..." if len(valued.leaked) > 3 else "")
        say(f"warning: {len(valued.leaked):,} candidates have the same text as a target row: {shown}")
    for doubt in valued.warnings:
        say(f"warning: {doubt}")
    figures = save_value_plots(values, plot, by=by) if plot is not None else []
    if as_json:
        found = {"out": values.path, "leaked": len(valued.leaked), **summary, "meaning": values.meaning}
        found |= {"warnings": list(valued.warnings), "notes": as_fields(valued.notes)}
        emit_json(command, {**found, "plots": [str(path) for path in figures]})
        return
    groups = summary.pop("groups", {})
    notes = {k: v for k, v in valued.notes.items() if not isinstance(v, dict | list)}
    if unread := valued.notes.get("not read"):
        notes["not read"] = "; ".join(unread)
    emit_pairs({**summary, **notes})
    for name, checked in valued.rechecks.items():
        of = f" of {name}" if len(valued.rechecks) > 1 else ""
        emit_pairs({f"recheck on fresh rows{of}": checked.to_json()})
    if groups:
        keys = ("rows", "mean", "low", "high", *(["helpful"] if values.signed else []))
        emit_table(f"values by {by}", [str(by), *keys], [[n, *(g[k] for k in keys)] for n, g in groups.items()])
    say(f"{values.path}: {summary['rows']:,} values; {values.meaning}")
