"""`headwater value export-target | score | audit`: valuation between parties who do not show each other their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli.arguments import Columns, Device, Dtype, Json, MaxTokens, ModelName, Settings, TokensPerBatch, pairs
from headwater.cli.console import emit_json, emit_pairs, progress, say
from headwater.cli.value import Candidates, Duplicates, GroupBy, Model, Out, Resume, Template, read_target, show
from headwater.core.errors import UsageError

Query = Annotated[Path | None, typer.Option(help="The owner's query file (`value export-target`).")]


def export_target(
    target: Annotated[str, typer.Option(help="Rows of the task the data is wanted for; at least 16.")],
    model: ModelName,
    out: Annotated[Path, typer.Option(help="The query file (safetensors).")],
    method: Annotated[str, typer.Option(help="linfik, or a method of an index: rise, rapidin, ...")] = "linfik",
    settings: Settings = [],
    template: Template = None,
    max_tokens: MaxTokens = 2048,
    dtype: Dtype = "float32",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Owner: write the target as a query file that holds vectors and no text.

    Example:  headwater value export-target --target task.jsonl --model my-model --out task.query
    """
    from headwater.valuing.third_party import export_target as export
    from headwater.valuing.value import Settings as How

    how = How(template=template, max_tokens=max_tokens)
    chosen, rows = pairs(settings, "--set"), read_target(target)
    query = export(_load(model, dtype, device), rows, out, method=method, options=chosen, settings=how)
    widths = {name: list(vectors.shape) for name, vectors in query.probes.vectors.items()}
    facts = {"out": str(out), "method": query.spec.name, "rows": len(rows.rows), "vectors": widths}
    if as_json:
        emit_json(facts)
    else:
        emit_pairs(facts)


def score(
    candidates: Candidates,
    out: Out,
    query: Query = None,
    student: Annotated[Path | None, typer.Option(help="A saved student instead of a query file and model.")] = None,
    model: Model = None,
    columns: Columns = [],
    duplicates: Duplicates = 0.7,
    tokens_per_batch: TokensPerBatch = 8192,
    by: GroupBy = None,
    resume: Resume = False,
    dtype: Dtype = "float32",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Provider: value candidates by the owner's query file and the model, or by a student alone.

    Example:  headwater value score --candidates pool.jsonl --student values.student --out values.parquet
    """
    from headwater.data.corpus import open_corpus
    from headwater.valuing.third_party import read_query, score_query
    from headwater.valuing.value import Settings as How
    from headwater.valuing.value import score_with_student

    if (query is None) == (student is None) or (query is not None and model is None):
        raise UsageError("give either --student, or --query with --model", where="value score")
    corpus = open_corpus(candidates, mapping=pairs(columns, "--column") or None)
    with progress("valuing", quiet=as_json) as advance:
        how = How(
            duplicates=duplicates or None,
            tokens_per_batch=tokens_per_batch,
            resume=resume,
            progress=lambda words, done, total: advance(done, total, words),
        )
        if student is not None:
            valued = score_with_student(corpus, student, out, settings=how)
        else:
            loaded = _load(str(model), dtype, device)
            valued = score_query(corpus, read_query(str(query)), loaded, out, settings=how)
    show(valued, by, None, as_json)


def audit(
    values: Annotated[Path, typer.Argument(help="The values file to check.")],
    candidates: Candidates,
    model: Model = None,
    query: Query = None,
    target: Annotated[str | None, typer.Option(help="The target's rows, where the third party has them.")] = None,
    sample: Annotated[int, typer.Option(help="Rows to label again.", min=10)] = 100,
    threshold: Annotated[float, typer.Option(help="Least Spearman correlation that confirms.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Of the sample; drawn after the values are in.")] = 0,
    template: Template = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Third party: label a random sample again; exit code 1 if the values do not agree.

    Example:  headwater value audit values.parquet --candidates pool.jsonl --query task.query --model my-model
    """
    from headwater.data.corpus import open_corpus
    from headwater.valuation.values import read_values
    from headwater.valuing.third_party import audit as check
    from headwater.valuing.third_party import read_query
    from headwater.valuing.value import Settings as How

    if (query is None) == (target is None):
        raise UsageError("give either --query or --target", where="value audit")
    judge: Any = read_query(query) if query is not None else read_target(str(target))
    loaded = None if model is None else _load(model, dtype, device)
    how = How(template=template)
    found = check(
        read_values(values),
        open_corpus(candidates),
        loaded,
        judge=judge,
        sample=sample,
        threshold=threshold,
        seed=seed,
        settings=how,
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


def _load(model: str, dtype: str, device: str) -> Any:
    from headwater.models.load import load_model

    return load_model(model, dtype=dtype, device=device)
