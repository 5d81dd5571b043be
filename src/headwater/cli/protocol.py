"""`headwater eval protocol`: runs in the shape of TOFU and MUSE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli.eval import Out, run_and_show
from headwater.cli.options import Json, with_groups


@with_groups
def protocol(
    shape: Annotated[str, typer.Option(help="tofu or muse.")] = "tofu",
    methods: Annotated[
        list[str], typer.Option("--method", help="For the stand-in: rapidun, npo:beta=0.2, ... Repeats.")
    ] = [],
    model: Annotated[str, typer.Option(help="The model after unlearning; without it a stand-in is made.")] = "",
    before: Annotated[str, typer.Option(help="The model before unlearning.")] = "",
    retrained: Annotated[str, typer.Option(help="A model that never learned the forget rows.")] = "",
    forget: Annotated[str, typer.Option(help="Rows to forget; for tofu with a column perturbed_answer.")] = "",
    retain: Annotated[str, typer.Option(help="Rows to keep; for tofu with a column perturbed_answer.")] = "",
    world: Annotated[str, typer.Option(help="Rows about the world (tofu), with the same columns.")] = "",
    held_out: Annotated[str, typer.Option(help="Rows like the forget rows that no model learned (muse).")] = "",
    authors: Annotated[int, typer.Option(help="Authors of the stand-in; a tenth is forgotten.", min=10)] = 40,
    epochs: Annotated[int, typer.Option(help="Epochs of the stand-in's training; 0: its default.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the stand-in and of unlearning.")] = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Measure unlearning as TOFU or MUSE do, also as the JSON that open-unlearning writes.

    Example:  headwater eval protocol --shape tofu --method rapidun --method npo
    """
    settings: dict[str, Any] = {"shape": shape, "model": model, "before": before, "retrained": retrained}
    settings |= {"forget": forget, "retain": retain, "world": world, "held_out": held_out}
    settings |= {"authors": authors, "epochs": epochs, "seed": seed}
    run_and_show("protocol", settings, methods, out, as_json)
