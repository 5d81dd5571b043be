"""`headwater view`: the local app, and its bundle of static files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from headwater.cli.console import emit, emit_json, say
from headwater.cli.options import Json, LoadingOptions, OtherModel, WritesFolder, with_groups

PORT = 8127


class OpenByDefault(TyperGroup):
    """A group whose first word may be a path: then it opens the app on it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name before arguments that do not name one."""
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "-h")):
            args = ["open", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=OpenByDefault,
    help="Browse rows and traces and ask the model, in a browser: headwater view RUNS...",
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

Runs = Annotated[
    list[str] | None, typer.Argument(help="Indices, files of results, and folders of them; default: runs, else here.")
]


@app.command("open")
@with_groups
def open_app(
    loading: LoadingOptions,
    runs: Runs = None,
    port: Annotated[int, typer.Option(help="Port; 0 takes any that is free.", min=0, max=65535)] = PORT,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Load no model: rows and results, and words compared by BM25.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Another than this machine's own needs a token, which is printed.")
    ] = "127.0.0.1",
    model: OtherModel = None,
    as_json: Json = False,
) -> None:
    """Open the app on indices, traces, values, unlearning runs and evaluations; the word `open` may be left out.

    With `--json`, the app's address is printed on stdout as JSON once it can be opened.

    Example:  headwater view open runs/demo --no-open
    """
    from headwater.view.serve import serve

    def ready(url: str) -> None:
        if "token=" in url:
            say("warning: everybody who has this address sees the rows and may ask the model; it is not encrypted")
        if as_json:
            emit_json("view open", {"url": url})
            sys.stdout.flush()
        else:
            say(f"headwater view: {url}  (Ctrl-C ends it)")

    options = {"model": model, "loading": loading.chosen, "allowed": not no_model}
    serve(runs or default_runs(), host=host, port=port, on_ready=ready, browser=not no_open, **options)


@app.command("bundle")
@with_groups
def bundle(
    out: Annotated[Path, typer.Argument(help="Folder to make."), WritesFolder],
    runs: Runs = None,
    rows: Annotated[int, typer.Option(help="Rows of each index that get a page.", min=0)] = 500,
    as_json: Json = False,
) -> None:
    """Write the app's pages as static files, to put on any host or to send: index.html is the start page.

    Example:  headwater view bundle shared-pages runs/demo
    """
    from headwater.view.bundle import write_bundle

    made = write_bundle(out, runs or default_runs(), rows=rows)
    emit("view bundle", made, as_json, f"{made['pages']:,} pages: {made['start']}")


def default_runs() -> list[str]:
    """The folder `runs`, if there is one, else the current folder."""
    return ["runs"] if Path("runs").is_dir() else ["."]
