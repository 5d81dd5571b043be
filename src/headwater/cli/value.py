"""`headwater value`: what each candidate row would do for a task, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.arguments import (
    Adapter,
    Columns,
    Device,
    DeviceMap,
    Dtype,
    Json,
    MaxTokens,
    Merge,
    Quantization,
    Settings,
    TokensPerBatch,
    pairs,
)
from headwater.cli.console import emit_json, emit_pairs, emit_table, progress, say
from headwater.core.errors import UsageError

if TYPE_CHECKING:
    from headwater.methods.streaming import Target
    from headwater.valuing.value import Valued

    Context = typer.Context
else:
    Context = typer.Context.__base__  # what is handed over is of the base class, and tests check types

app = typer.Typer(invoke_without_command=True)

Candidates = Annotated[str, typer.Option(help="The pool: JSONL, CSV or Parquet file, saved data set, or hub name.")]
Out = Annotated[Path, typer.Option(help="Parquet file: id, value, low, high, then the rows' own columns.")]
Duplicates = Annotated[float, typer.Option(help="Similarity that makes near-duplicates; 0: do not look for them.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Model = Annotated[str | None, typer.Option("--model", help="Local folder or hub name of a causal language model.")]
Template = Annotated[str | None, typer.Option(help="chat, plain, alpaca, or a format with {prompt}.")]
GroupBy = Annotated[str | None, typer.Option("--by", help="Metadata column to sum up by, such as provider.")]


@app.callback()
def value(
    context: Context,
    candidates: Annotated[str | None, typer.Option(help="The pool: JSONL, CSV, Parquet, data set or hub name.")] = None,
    target: Annotated[list[str], typer.Option(help="Rows of the task the data is wanted for. Repeats.")] = [],
    index: Annotated[str | None, typer.Option(help="An index instead of a pool: its rows, by its vectors.")] = None,
    out: Annotated[Path | None, typer.Option(help="Parquet file: id, value, low, high, the rows' own columns.")] = None,
    model: Model = None,
    method: Annotated[str, typer.Option(help="linfik, alinfik, rise, rapidin, ... (`headwater methods`).")] = "linfik",
    settings: Settings = [],
    adapter: Adapter = None,
    merge: Merge = False,
    template: Template = None,
    columns: Columns = [],
    limit: Annotated[int | None, typer.Option(help="Only the first rows of the pool.")] = None,
    max_tokens: MaxTokens = 2048,
    tokens_per_batch: TokensPerBatch = 8192,
    duplicates: Duplicates = 0.7,
    student: Annotated[Path | None, typer.Option(help="Where alinfik saves its student.")] = None,
    by: GroupBy = None,
    plot: Annotated[Path | None, typer.Option(help="Folder for figures of the values.")] = None,
    resume: Resume = False,
    dtype: Dtype = "float32",
    device: Device = "auto",
    device_map: DeviceMap = None,
    quantization: Quantization = None,
    as_json: Json = False,
) -> None:
    """Value every candidate row: what training on it would take off the target's loss, with an interval.

    Example:  headwater value --candidates pool.jsonl --target task.jsonl --model my-model --out values.parquet
    """
    if context.invoked_subcommand is not None:
        return
    from headwater.data.corpus import open_corpus
    from headwater.index.store import open_index
    from headwater.valuing.from_index import value_index
    from headwater.valuing.value import Settings as How
    from headwater.valuing.value import value as value_pool

    rows = candidates or index
    if rows is None or out is None or not target or (candidates and index):
        missing = [n for n, v in (("--candidates or --index", rows), ("--target", target), ("--out", out)) if not v]
        what = f"{', '.join(missing)} missing" if missing else "both --candidates and --index"
        raise UsageError(what, where="value", remedy="see 'headwater value --help'")
    choices = pairs(settings, "--set")
    targets = [read_target(path) for path in target]
    if index is not None:
        placement = {"device": device, "device_map": device_map}
        kept = How(duplicates=duplicates or None, resume=resume)
        found = value_index(open_index(index), targets, out, model=model, placement=placement, settings=kept)
        show(found, by, plot, as_json)
        return
    corpus = open_corpus(rows, mapping=pairs(columns, "--column") or None, limit=limit)
    loading = {"adapter": adapter, "merge": merge, "dtype": dtype, "device": device, "device_map": device_map}
    loaded = _loaded(model, {**loading, "quantization": quantization})
    with progress("valuing", quiet=as_json) as advance:
        how = How(
            template=template,
            max_tokens=max_tokens,
            tokens_per_batch=tokens_per_batch,
            duplicates=duplicates or None,
            student=student,
            resume=resume,
            progress=lambda words, done, total: advance(done, total, words),
        )
        valued = value_pool(corpus, targets, out, loaded=loaded, method=method, options=choices, settings=how)
    show(valued, by, plot, as_json)


def read_target(path: str) -> Target:
    """The rows of a file as a target called by its stem; a row needs a response."""
    from headwater.data.corpus import open_corpus
    from headwater.methods.streaming import Target

    return Target(Path(path).name.split(".")[0], tuple(open_corpus(path)))


def show(valued: Valued, by: str | None, plot: Path | None, as_json: bool) -> None:
    """The summary of a values file; figures where a folder is named."""
    from headwater.report.value_plots import save_value_plots
    from headwater.valuation.values import summarise

    summary = summarise(valued.values, by=by)
    if valued.leaked:
        shown = ", ".join(valued.leaked[:3]) + (", ..." if len(valued.leaked) > 3 else "")
        say(f"warning: {len(valued.leaked):,} candidates say what a target row says, so they value themselves: {shown}")
    figures = save_value_plots(valued.values, plot, by=by) if plot is not None else []
    if as_json:
        found = {"out": valued.values.path, "leaked": len(valued.leaked), **summary, "notes": valued.notes}
        emit_json({**found, "plots": [str(path) for path in figures]})
        return
    groups = summary.pop("groups", {})
    emit_pairs({**summary, **{k: v for k, v in valued.notes.items() if not isinstance(v, dict | list)}})
    if valued.recheck is not None:
        emit_pairs({f"recheck: {name}": number for name, number in valued.recheck.to_json().items()})
    if groups:
        keys = ("rows", "mean", "low", "high", "helpful")
        emit_table(f"values by {by}", [str(by), *keys], [[n, *(g[k] for k in keys)] for n, g in groups.items()])
    say(f"{valued.values.path}: {summary['rows']:,} values; positive = the row helps")


def _loaded(model: str | None, loading: dict[str, Any]) -> Any:
    from headwater.models.load import load_model

    return None if model is None else load_model(model, **loading)
