"""`headwater unlearn`: make a model forget rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.console import emit_json, emit_pairs, emit_table, say
from headwater.cli.from_trace import Traced
from headwater.cli.options import Json, LoadingOptions, Made, ModelName, Resume, Writes, with_groups
from headwater.cli.progress import interruptible
from headwater.cli.unlearning_options import ForgettingRows, Training

if TYPE_CHECKING:
    from headwater.api.unlearning import Unlearned


@with_groups
def unlearn(
    model: ModelName,
    loading: LoadingOptions,
    rows: ForgettingRows,
    traced: Traced,
    training: Training,
    out: Annotated[Path, typer.Option(help="Folder to make: model, card, account, report."), Writes],
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

    options, chosen = training.chosen, loading.chosen
    made = traced.rows(model, chosen, rows, options)
    kept = f"checkpoints are kept in {out}; the same command with --resume goes on from the last one"
    with interruptible(kept):
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
    report = write_unlearning_report(out / "report.html", done.account)
    _show(done, {**done.files, "report": report}, as_json)
    judged = not find_unlearning(options.method).from_base
    return Made(out, code=1 if judged and done.account.summary["outcome"] not in DONE else 0)


def _show(done: Unlearned, files: dict[str, Path], as_json: bool) -> None:
    account = done.account
    for warning in account.summary["warnings"]:
        say(f"warning: {warning}")
    if as_json:
        samples = [vars(sample) for sample in account.samples]
        emit_json({**account.summary, "samples": samples, "files": {k: str(v) for k, v in files.items()}})
        return
    emit_pairs({k: v for k, v in account.summary.items() if not isinstance(v, dict | list)})
    rows = [[s.kind, s.prompt, s.before, s.after] for s in account.samples]
    emit_table("what the model says", ["from", "prompt", "before", "after"], rows)
    for kind, path in files.items():
        say(f"{kind}: {path}")
