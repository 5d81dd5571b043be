"""`headwater run`: run a command again from its run file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.config import Context, read_run
from headwater.core.errors import DataError


def run_file(
    context: Context, file: Annotated[Path, typer.Argument(help="A run.yaml that a command wrote beside its output.")]
) -> None:
    """Run a command again with the settings of a run file; further options win over the file.

    Example:  headwater run runs/mine.lance.run.yaml --tokens-per-batch 4096
    """
    command, _ = read_run(file)
    if command is None:
        raise DataError("it does not name a command", where=str(file), remedy="add a line `command: index build`")
    if command.split()[:1] == ["run"]:
        remedy = "name the command that makes the result, such as `command: index build`"
        raise DataError("its command is `run`, which would run a run file again", where=str(file), remedy=remedy)
    again = [*command.split(), "--config", str(file), *context.args]
    code = context.find_root().command.main(again, prog_name="headwater", standalone_mode=False)
    if code:
        raise typer.Exit(code)
