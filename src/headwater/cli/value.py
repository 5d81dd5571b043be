"""`headwater value`: what each candidate row would do for a task, before anything is trained on it.

Beside it `value export-target | score | audit`, for parties who do not show each other their rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.config import Context
from headwater.cli.console import emit_json, emit_pairs, emit_table, progress, say
from headwater.cli.options import (
    AnyModel,
    Columns,
    Duplicates,
    GroupBy,
    Json,
    LoadingOptions,
    Made,
    MaxTokens,
    ModelName,
    ReadingOptions,
    Resume,
    Settings,
    Template,
    TokensPerBatch,
    open_rows,
    pairs,
    with_groups,
)
from headwater.core.errors import UsageError

if TYPE_CHECKING:
    from headwater.valuing.value import Valued

app = typer.Typer(invoke_without_command=True)

Pool = Annotated[str, typer.Option(help="The pool: JSONL, CSV or Parquet file, saved data set, or hub name.")]
Query = Annotated[Path | None, typer.Option(help="The owner's query file (`value export-target`).")]
Out = Annotated[Path, typer.Option(help="Parquet file: id, value, low, high, then the rows' own columns.")]


@app.callback()
@with_groups
def value(
    context: Context,
    loading: LoadingOptions,
    reading: ReadingOptions,
    candidates: Annotated[str | None, typer.Option(help="The pool: JSONL, CSV, Parquet, data set or hub name.")] = None,
    target: Annotated[list[str], typer.Option(help="Rows of the task the data is wanted for. Repeats.")] = [],
    index: Annotated[str | None, typer.Option(help="An index instead of a pool: its rows, by its vectors.")] = None,
    out: Annotated[Path | None, typer.Option(help="Parquet file: id, value, low, high, the rows' own columns.")] = None,
    model: AnyModel = None,
    method: Annotated[str, typer.Option(help="linfik, alinfik, rise, rapidin, ... (`headwater methods`).")] = "linfik",
    settings: Settings = [],
    columns: Columns = [],
    limit: Annotated[int | None, typer.Option(help="Only the first rows of the pool.")] = None,
    duplicates: Duplicates = 0.7,
    student: Annotated[Path | None, typer.Option(help="Where a student is saved, for methods that train one.")] = None,
    by: GroupBy = None,
    plot: Annotated[Path | None, typer.Option(help="Folder for figures of the values.")] = None,
    resume: Resume = False,
    as_json: Json = False,
) -> Made | None:
    """Value every candidate row: what training on it would take off the target's loss, with an interval.

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

    near, pool, pool_index = duplicates or None, candidates or "", index or ""
    with progress("valuing", quiet=as_json) as advance:

        def on_progress(words: str, done: int, total: int | None) -> None:
            advance(done, total, words)

        if index is not None:
            valued = valuing.value_index(
                pool_index,
                target,
                out=out,
                duplicates=near,
                resume=resume,
                on_progress=on_progress,
                model=model,
                loading=loading.chosen,
            )
        else:
            valued = valuing.value(
                open_rows(pool, columns, limit=limit),
                target,
                model=model,
                method=method,
                settings=pairs(settings, "--set"),
                out=out,
                loading=loading.chosen,
                duplicates=near,
                student=student,
                resume=resume,
                on_progress=on_progress,
                template=reading.template,
                max_tokens=reading.max_tokens,
                tokens_per_batch=reading.tokens_per_batch,
            )
    _show(valued, by, plot, as_json)
    return Made(out)


@app.command("export-target")
@with_groups
def export_target(
    target: Annotated[str, typer.Option(help="Rows of the task the data is wanted for; at least 16.")],
    model: ModelName,
    loading: LoadingOptions,
    out: Annotated[Path, typer.Option(help="The query file (safetensors).")],
    method: Annotated[str, typer.Option(help="A method with a form that gives vectors.")] = "linfik",
    settings: Settings = [],
    template: Template = None,
    max_tokens: MaxTokens = 2048,
    as_json: Json = False,
) -> Made:
    """Owner: write the target as a query file that holds vectors and no text.

    Example:  headwater value export-target --target task.jsonl --model my-model --out task.query
    """
    from headwater.api.sources import targets_of
    from headwater.api.valuing import export_target as export

    (rows,) = targets_of(target)
    query = export(
        rows,
        out,
        model=model,
        method=method,
        settings=pairs(settings, "--set"),
        loading=loading.chosen,
        template=template,
        max_tokens=max_tokens,
    )
    widths = {name: list(vectors.shape) for name, vectors in query.probes.vectors.items()}
    facts = {"out": str(out), "method": query.spec.name, "rows": len(rows.rows), "vectors": widths}
    if as_json:
        emit_json(facts)
    else:
        emit_pairs(facts)
    return Made(out)


@app.command("score")
@with_groups
def score(
    candidates: Pool,
    out: Out,
    loading: LoadingOptions,
    query: Query = None,
    student: Annotated[Path | None, typer.Option(help="A saved student instead of a query file and model.")] = None,
    model: AnyModel = None,
    columns: Columns = [],
    duplicates: Duplicates = 0.7,
    tokens_per_batch: TokensPerBatch = 8192,
    by: GroupBy = None,
    resume: Resume = False,
    as_json: Json = False,
) -> Made:
    """Provider: value candidates by the owner's query file and the model, or by a student alone.

    Example:  headwater value score --candidates pool.jsonl --student values.student --out values.parquet
    """
    from headwater.api import valuing

    if (query is None) == (student is None) or (query is not None and model is None):
        raise UsageError("give either --student, or --query with --model", where="value score")
    corpus, near = open_rows(candidates, columns), duplicates or None
    with progress("valuing", quiet=as_json) as advance:

        def on_progress(words: str, done: int, total: int | None) -> None:
            advance(done, total, words)

        if student is not None:
            valued = valuing.value_with_student(
                corpus, student, out=out, duplicates=near, resume=resume, on_progress=on_progress
            )
        else:
            valued = valuing.value_query(
                corpus,
                str(query),
                model=str(model),
                out=out,
                loading=loading.chosen,
                tokens_per_batch=tokens_per_batch,
                duplicates=near,
                resume=resume,
                on_progress=on_progress,
            )
    _show(valued, by, None, as_json)
    return Made(out)


@app.command("audit")
@with_groups
def audit(
    values: Annotated[Path, typer.Argument(help="The values file to check.")],
    candidates: Pool,
    loading: LoadingOptions,
    model: AnyModel = None,
    query: Query = None,
    target: Annotated[str | None, typer.Option(help="The target's rows, where the third party has them.")] = None,
    sample: Annotated[int, typer.Option(help="Rows to label again.", min=10)] = 100,
    threshold: Annotated[float, typer.Option(help="Least Spearman correlation that confirms.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Of the sample; drawn after the values are in.")] = 0,
    template: Template = None,
    as_json: Json = False,
) -> None:
    """Third party: label a random sample again; exit code 1 if the values do not agree.

    Example:  headwater value audit values.parquet --candidates pool.jsonl --query task.query --model my-model
    """
    from headwater.api.valuing import audit as check

    if (query is None) == (target is None):
        raise UsageError("give either --query or --target", where="value audit")
    found = check(
        values,
        candidates,
        query=query,
        target=target,
        model=model,
        sample=sample,
        threshold=threshold,
        seed=seed,
        template=template,
        loading=loading.chosen,
    )
    if as_json:
        emit_json(found.to_json())
    else:
        emit_pairs({"rows": found.rows, "Spearman": found.spearman, "inside the interval": found.inside})
        row, off = found.largest
        say(f"furthest off: row '{row}', by {off:.2f} standard deviations")
        say("confirmed" if found.confirmed else f"NOT confirmed: below {threshold:g}")
    if not found.confirmed:
        raise typer.Exit(1)


def _show(valued: Valued, by: str | None, plot: Path | None, as_json: bool) -> None:
    """The summary of a values file; figures where a folder is named."""
    from headwater.report.plots import save_value_plots
    from headwater.valuation.values import summarise

    values = valued.values
    summary = summarise(values, by=by)
    if valued.leaked:
        shown = ", ".join(valued.leaked[:3]) + (", ..." if len(valued.leaked) > 3 else "")
        say(f"warning: {len(valued.leaked):,} candidates say what a target row says, so they value themselves: {shown}")
    figures = save_value_plots(values, plot, by=by) if plot is not None else []
    if as_json:
        found = {"out": values.path, "leaked": len(valued.leaked), **summary, "meaning": values.meaning}
        emit_json({**found, "notes": valued.notes, "plots": [str(path) for path in figures]})
        return
    groups = summary.pop("groups", {})
    emit_pairs({**summary, **{k: v for k, v in valued.notes.items() if not isinstance(v, dict | list)}})
    if valued.recheck is not None:
        emit_pairs({f"recheck: {name}": number for name, number in valued.recheck.to_json().items()})
    if groups:
        keys = ("rows", "mean", "low", "high", *(["helpful"] if values.signed else []))
        emit_table(f"values by {by}", [str(by), *keys], [[n, *(g[k] for k in keys)] for n, g in groups.items()])
    say(f"{values.path}: {summary['rows']:,} values; {values.meaning}")
