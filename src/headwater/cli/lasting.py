"""`headwater eval lasting`: attack any two models, before and after unlearning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli.eval import Out, run_and_show
from headwater.cli.options import Json, with_groups


@with_groups
def lasting(
    before: Annotated[str, typer.Option(help="The model before unlearning: local folder or hub name.")],
    forget: Annotated[Path, typer.Option(help="Rows that were to be forgotten, or hits of `trace --out`.")],
    retain: Annotated[Path, typer.Option(help="Clean rows that have nothing to do with the behaviour.")],
    after: Annotated[str, typer.Option(help="The model after unlearning; without it only the first is attacked.")] = "",
    adapter: Annotated[str, typer.Option(help="PEFT adapter to load around the model.")] = "",
    retrained: Annotated[str, typer.Option(help="A model that never learned the rows: the control.")] = "",
    asked: Annotated[str, typer.Option(help="Prompts that show the behaviour, in no training.")] = "",
    unseen: Annotated[str, typer.Option(help="The same with triggers or wordings in no training.")] = "",
    held_out: Annotated[str, typer.Option(help="Rows like the forget rows that no model learned (privacy).")] = "",
    unwanted: Annotated[str, typer.Option(help="Regular expression that tells unwanted answers.")] = "",
    judge: Annotated[str, typer.Option(help="pattern, words (a classifier) or likeness (to the row's answer).")] = "",
    attacks: Annotated[list[str], typer.Option("--attack", help="int4, relearned, few-shot, ... Repeats.")] = [],
    prompts: Annotated[int, typer.Option(help="Most prompts of each kind.", min=1)] = 40,
    steps: Annotated[int, typer.Option(help="Steps of the attacks that train.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the attacks that train.")] = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Does forgetting last? Attack a model before and after unlearning; privacy and fluency beside.

    Example:  headwater eval lasting --before my-model --after runs/cleaned/model --forget bad.jsonl --retain good.jsonl
    """
    settings: dict[str, Any] = {
        "before": before,
        "after": after,
        "retrained": retrained,
        "adapter": adapter,
        "asked": asked,
    }
    settings |= {"forget": str(forget), "retain": str(retain), "unseen": unseen, "held_out": held_out}
    settings |= {"unwanted": unwanted, "judge": judge, "attacks": tuple(attacks)}
    run_and_show("lasting", {**settings, "prompts": prompts, "steps": steps, "seed": seed}, [], out, as_json)
