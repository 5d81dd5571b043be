"""`headwater unlearn`: make a model forget rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.config import Context
from headwater.cli.console import as_fields, emit_json, emit_pairs, emit_table, say
from headwater.cli.from_trace import TracedPrompts
from headwater.cli.idle import idle_in_unlearning, refuse_idle
from headwater.cli.options import Json, LoadingOptions, Made, ModelName, Resume, WritesFolder, with_groups
from headwater.cli.progress import progress
from headwater.cli.unlearning_options import ForgettingRows, TrainingOptions
from headwater.core.errors import StoreError

if TYPE_CHECKING:
    from headwater.api.unlearning import Unlearned


@with_groups
def unlearn(
    context: Context,
    model: ModelName,
    loading: LoadingOptions,
    rows: ForgettingRows,
    traced: TracedPrompts,
    training: TrainingOptions,
    out: Annotated[Path, typer.Option(help="Folder to make: model, card, account, report."), WritesFolder],
    base: Annotated[
        str | None, typer.Option(help="The model as it was before it learned the rows, for retrain.")
    ] = None,
    keep_adapter: Annotated[bool, typer.Option("--keep-adapter", help="Save the adapter, not a merged model.")] = False,
    resume: Resume = False,
    as_json: Json = False,
) -> Made:
    """Make a model forget rows and keep its other behaviour, with RapidUn or a standard method.

    Exits with 1 when the behaviour is not gone from rows that were withheld from training, or the answers are no
    longer language.

    Example:  headwater unlearn --model my-model --forget bad.jsonl --retain good.jsonl --out runs/cleaned
    """
    from headwater.api.unlearning import unlearn as unlearn_model
    from headwater.report.unlearning import write_unlearning_report
    from headwater.unlearning.catalog import find_unlearning
    from headwater.unlearning.output import DONE

    method = find_unlearning(training.method)
    refuse_idle(context, idle_in_unlearning(method, context.params))
    options, chosen = training.chosen, loading.chosen
    made = traced.rows(model, chosen, rows, options)
    kept = f"checkpoints are kept in {out}; the same command with --resume goes on from the last one"
    with progress("unlearning", kept=kept):
        done = unlearn_model(
            model,
            out=out,
            **rows.chosen | (made.rows if made else {}),
            base=base,
            method=options.method,
            settings=made.options if made else options,
            loading={**chosen, "merge": True} if "adapter" in chosen else chosen,
            keep_adapter=keep_adapter,
            resume=resume,
        )
    if made:
        done.files.update(made.write(out))
    files = dict(done.files)
    try:
        files["report"] = write_unlearning_report(out / "report.html", done.account)
    except StoreError as error:
        say(f"warning: there is no report, but the model, its card and its account are whole: {error}")
    _show(done, files, as_json)
    return Made(out, code=1 if not method.from_base and done.account.summary["outcome"] not in DONE else 0)


def _show(done: Unlearned, files: dict[str, Path], as_json: bool) -> None:
    account = done.account
    for warning in account.summary["warnings"]:
        say(f"warning: {warning}")
    if as_json:
        summary = {name: value for name, value in account.summary.items() if name not in ("outcome", "warnings")}
        emit_json(
            "unlearn",
            {
                "outcome": account.summary["outcome"],
                "warnings": account.summary["warnings"],
                "summary": as_fields(summary),
                "samples": [vars(sample) for sample in account.samples],
                "files": {kind: str(path) for kind, path in files.items()},
            },
        )
        return
    emit_pairs({k: v for k, v in account.summary.items() if k != "warnings"})
    rows = [[s.kind, s.prompt, s.before, s.after] for s in account.samples]
    emit_table("what the model says", ["from", "prompt", "before", "after"], rows)
    for kind, path in files.items():
        say(f"{kind}: {path}")
