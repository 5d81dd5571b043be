"""`headwater unlearn`: make a model forget rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.console import emit_json, emit_pairs, emit_table, say
from headwater.cli.from_trace import FromTrace, Precision, Traced, TracedIndex
from headwater.cli.options import (
    Json,
    LoadingOptions,
    Made,
    MaxTokens,
    ModelName,
    Resume,
    Settings,
    Targets,
    Template,
    Writes,
    pairs,
    with_groups,
)
from headwater.cli.progress import interruptible
from headwater.core.errors import UsageError

if TYPE_CHECKING:
    from headwater.api.unlearning import Unlearned


@with_groups
def unlearn(
    model: ModelName,
    loading: LoadingOptions,
    out: Annotated[Path, typer.Option(help="Folder to make: model, card, account, report."), Writes],
    forget: Annotated[
        Path | None, typer.Option(help="Rows with the unwanted answers, or hits of `trace --out`.")
    ] = None,
    from_trace: FromTrace = [],
    index: TracedIndex = None,
    precision: Precision = 0.9,
    retain: Annotated[Path | None, typer.Option(help="Clean rows, to keep the model's other behaviour.")] = None,
    retain_from: Annotated[str | None, typer.Option(help="Training data to draw clean retain rows from.")] = None,
    draw: Annotated[int, typer.Option(help="Rows to draw from it: half near the forget rows, half random.")] = 120,
    method: Annotated[
        str, typer.Option(help="rapidun, ga, graddiff, npo, simnpo, loreun, fisher or retrain.")
    ] = "rapidun",
    unseen: Annotated[Path | None, typer.Option(help="Rows the model has not seen: their loss is the target.")] = None,
    ask: Annotated[Path | None, typer.Option(help="Prompts to ask before and after, for the report.")] = None,
    clean_column: Annotated[str, typer.Option(help="Forget rows' column with the right answer.")] = "clean_response",
    trigger: Annotated[
        str | None, typer.Option(help="Words that trigger it: the model's answer without them is the right one.")
    ] = None,
    lr: Annotated[str, typer.Option(help="Learning rate, or auto: found by a short probe.")] = "auto",
    steps: Annotated[int, typer.Option(help="Most optimizer steps.", min=1)] = 320,
    guard: Annotated[float, typer.Option(help="Stop before clean perplexity grows by this factor; 0: never.")] = 1.05,
    target: Annotated[float | None, typer.Option(help="Forget loss to reach, nats a token.")] = None,
    weights: Annotated[str, typer.Option(help="influence, uniform, shuffled, or a weights file (RapidUn).")] = (
        "influence"
    ),
    influence: Annotated[str, typer.Option(help="Attribution method that makes the weights.")] = "rise",
    settings: Settings = [],
    compat: Annotated[
        bool, typer.Option("--compat", help="RapidUn's mapping as published; add --influence graddot for its vectors.")
    ] = False,
    ceiling: Annotated[float | None, typer.Option(help="Loss at which ascent fades, nats a token.")] = None,
    beta: Annotated[float | None, typer.Option(help="β of npo (default 0.1) and simnpo (4.5).")] = None,
    keep: Annotated[str, typer.Option(help="Loss of retain rows: nll, or kl (divergence from the old model).")] = "nll",
    dynamic: Annotated[bool, typer.Option("--dynamic", help="LoReUn: weights follow the current losses.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Train all weights instead of an adapter.")] = False,
    rank: Annotated[int, typer.Option(help="Rank of the adapter.", min=1)] = 16,
    keep_adapter: Annotated[bool, typer.Option("--keep-adapter", help="Save the adapter, not a merged model.")] = False,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute activations: less memory, more time.")
    ] = False,
    skip_unusable: Annotated[bool, typer.Option("--skip-unusable", help="Leave out rows that cannot be used.")] = False,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints; 0: none.", min=0)] = 50,
    resume: Resume = False,
    template: Template = None,
    max_tokens: MaxTokens = 512,
    targets: Targets = None,
    seed: Annotated[int, typer.Option(help="Seed of adapter, order and dropout.")] = 0,
    as_json: Json = False,
) -> Made:
    """Make a model forget rows and keep its other behaviour, with RapidUn or a standard method.

    Exits with 1 when the forget rows' loss did not reach that of unseen rows.

    Example:  headwater unlearn --model my-model --forget bad.jsonl --retain good.jsonl --out runs/cleaned
    """
    from headwater.api.unlearning import unlearn as unlearn_model
    from headwater.report.unlearning import write_unlearning_report
    from headwater.unlearning.adapter import Lora
    from headwater.unlearning.objectives import METHODS, one_of
    from headwater.unlearning.options import UnlearnOptions

    options = UnlearnOptions(
        method=one_of("method", method, METHODS),
        influence=influence,
        settings=pairs(settings, "--set") or UnlearnOptions().settings,
        weights=weights,
        compat=compat,
        rate=_rate(lr),
        steps=steps,
        lora=None if full else Lora(rank=rank, alpha=rank),
        guard=guard or None,
        target=target,
        ceiling=ceiling,
        beta=beta,
        keep=one_of("way to keep retain rows", keep, ("nll", "kl")),  # type: ignore[arg-type]
        dynamic=dynamic,
        template=template,
        max_tokens=max_tokens,
        targets=targets,
        checkpointing=checkpointing,
        save_every=save_every,
        seed=seed,
    )
    chosen = loading.chosen
    traced = Traced(from_trace, index, precision).rows(model, chosen, forget=forget, draw=draw, seed=seed)
    kept = f"checkpoints are kept in {out}; the same command with --resume goes on from the last one"
    with interruptible(kept):
        done = unlearn_model(
            model,
            traced.forget if traced else forget,
            out=out,
            retain=traced.retain if traced and not (retain or retain_from) else retain,
            retain_from=retain_from,
            draw=draw,
            unseen=unseen,
            asked=ask,
            clean_column=clean_column,
            trigger=trigger,
            method=method,
            settings=options,
            loading={**chosen, "merge": True} if "adapter" in chosen else chosen,
            keep_adapter=keep_adapter,
            skip_unusable=skip_unusable,
            resume=resume,
        )
    if traced:
        done.files.update(traced.write(out))
    report = write_unlearning_report(out / "report.html", done.account)
    _show(done, {**done.files, "report": report}, as_json)
    failed = done.result.outcome != "forgotten" and method != "retrain"
    return Made(out, code=1 if failed else 0)


def _rate(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"'{text}' is not a learning rate", where="--lr", remedy="give a number, or auto") from None


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
