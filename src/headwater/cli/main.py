"""The `headwater` command: it gathers all commands, and turns every error into one line and an exit code.

Exit codes: 0 success, 1 a finding or a failure, 2 wrong usage. `--debug` anywhere shows the traceback.
"""

from __future__ import annotations

import os
import sys
import warnings
from functools import cache
from typing import Annotated, Any

import typer

from headwater import __version__
from headwater.cli import (
    demo,
    index,
    lasting,
    methods,
    plan,
    price,
    protocol,
    run_file,
    schema,
    score,
    select,
    trace,
    unlearn,
    value,
    view,
)
from headwater.cli.config import OLD_NAMES
from headwater.cli.console import say, show_notes
from headwater.cli.eval import eval_app
from headwater.cli.progress import NOTHING
from headwater.cli.usage import usage_text
from headwater.core.errors import HeadwaterError, shortage
from headwater.core.files import refusal

app = typer.Typer(
    name="headwater",
    help="Trace what a language model says back to the data that taught it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("plan")(plan.plan)
app.add_typer(index.app, name="index")
app.command("trace")(trace.trace)
app.command("score")(score.score)
app.add_typer(value.app, name="value")
app.command("select")(select.select)
app.command("price")(price.price)
app.command("unlearn")(unlearn.unlearn)
eval_app.command("lasting")(lasting.lasting)
eval_app.command("protocol")(protocol.protocol)
app.add_typer(eval_app, name="eval")
app.add_typer(view.app, name="view")
app.command("methods")(methods.methods)
app.command("schema")(schema.schema)
app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(run_file.run_file)


def _version(wanted: bool) -> bool:
    if wanted:
        print(f"headwater {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Trace what a language model says back to the data that taught it."""


@cache
def command_tree() -> Any:
    """All commands and their options as typer reads them; made once, because it takes longer than many commands."""
    return typer.main.get_command(app)


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    _quiet_libraries(debug)
    show_notes()
    try:
        words = [_renamed(word) for word in given if word != "--debug"]
        code = command_tree().main(words, prog_name="headwater", standalone_mode=False)
        if code == _INTERRUPTED:  # what typer makes of Ctrl-C where no command said what it keeps
            say(f"headwater: interrupted; {NOTHING}")
    except (typer.Abort, KeyboardInterrupt):
        code = _fail(f"interrupted; {NOTHING}", _INTERRUPTED)
    except typer.TyperException as error:
        text = error.format_message()
        code = _help(text) if text.startswith("Usage:") else _fail(usage_text(error, given), 2)
    except HeadwaterError as error:
        if debug:
            raise
        code = _fail(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if debug:
            raise
        code = _unforeseen(error)
    sys.exit(code if isinstance(code, int) else 0)


_INTERRUPTED = 130


def _renamed(word: str) -> str:
    """The word, or if it is an option that had another name once, with its name of today."""
    name, sign, value = word.partition("=")
    return f"--{OLD_NAMES[name[2:]]}{sign}{value}" if name.startswith("--") and name[2:] in OLD_NAMES else word


def _fail(message: str, code: int) -> int:
    say(f"headwater: {message}")
    return code


def _unforeseen(error: Exception) -> int:
    """Report what no part of headwater expected: a refusal of the file system, too little memory, or a bug."""
    words = " ".join(str(error).split())
    if (refused := shortage(error) or refusal(error)) is not None:
        return _fail(str(refused), 1)
    if isinstance(error, OSError):
        named = "" if error.filename is None else f"{error.filename}: "
        return _fail(f"{named}{error.strerror or words} (check the path, then run the same command again)", 1)
    return _fail(f"{type(error).__name__}: {words} (a fault in headwater; --debug)", 1)


def _help(text: str) -> int:
    """Show the help of a group of commands that was given none of them."""
    print(text, file=sys.stderr)
    return 2


def _quiet_libraries(debug: bool) -> None:
    """Keep stderr for our own messages: switch off the progress bars and warnings of libraries."""
    if not debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("LANCE_LOG", "error")
        warnings.filterwarnings("ignore")


if __name__ == "__main__":
    run()
