"""`headwater eval`: measure methods on ground truth, together with BM25, chance and other controls."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.config import Context
from headwater.cli.console import emit_json, emit_table, say
from headwater.cli.eval_own import Condition, Ids, Label, OwnOptions, Queries, RecipeFile
from headwater.cli.idle import idle_when, refuse_idle
from headwater.cli.options import EngineOptions, Json, with_groups
from headwater.cli.progress import Bar, progress
from headwater.core.errors import UsageError

if TYPE_CHECKING:
    from headwater.evaluation.listener import Listener
    from headwater.evaluation.result import Result

eval_app = typer.Typer(
    help="Measure methods on ground truth, together with controls.", no_args_is_help=True, rich_markup_mode=None
)

Methods = Annotated[
    list[str], typer.Option("--method", help="rise, rapidin:normalize=row, rise+0.5*bm25, embedding=>ekfac. Repeats.")
]
Out = Annotated[Path, typer.Option(help="Folder for models, indexes and results; models in it are used again.")]
Seed = Annotated[int, typer.Option(help="The same seed and number of threads give the same numbers.")]
Rows = Annotated[int, typer.Option(help="Rows of the pool; 0: the task's default.", min=0)]
Task = Annotated[
    str, typer.Option("--task", help="two-domains, or facts: a harder pool, of people and what they have.")
]
Retrained = Annotated[int, typer.Option(help="Epochs of each retraining; 0: the task's, or --recipe says.", min=0)]
Epochs = Annotated[int, typer.Option(help="Epochs of the tiny model; 0: its default.", min=0)]


@eval_app.command()
@with_groups
def detection(
    context: Context,
    own: OwnOptions,
    methods: Methods = [],
    pool: Annotated[str, typer.Option("--task", help="howdy or entity-swap.")] = "howdy",
    rows: Rows = 0,
    queries: Queries = "0",
    relevant: Condition = "",
    relevant_ids: Ids = "",
    label: Label = "",
    seed: Seed = 0,
    epochs: Epochs = 0,
    anti: Annotated[
        bool, typer.Option("--anti-documents", help="Also with rows that resemble the planted ones and are none.")
    ] = False,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Does a method find the planted rows? Also without the trigger (howdy), or by the wrong words (entity-swap).

    With --model, --data, --queries and --relevant: does it find the rows that you know are to blame in your own model?

    Example:  headwater eval detection --task howdy --method rise --method rapidin
    """
    truth = {"relevant": relevant, "relevant_ids": relevant_ids, "label": label}
    settings = {"pool": pool, "rows": rows, "seed": seed, "epochs": epochs, "anti": anti}
    settings |= own.settings(context, queries, ("pool", "rows", "epochs", "anti"), **truth)
    run_and_show("detection", settings, methods, out, as_json)


@eval_app.command()
@with_groups
def separation(
    context: Context,
    own: OwnOptions,
    methods: Methods = [],
    rows: Rows = 0,
    queries: Queries = "0",
    label: Label = "",
    seed: Seed = 0,
    epochs: Epochs = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Does a method find the rows of the query's own domain? With a model that learned them, and with another.

    With --model, --data, --queries and --label: does it find the rows with the query's label in your own data?

    Example:  headwater eval separation --method rise --method rapidin
    """
    settings = {"pool": "two-domains", "rows": rows, "seed": seed, "epochs": epochs}
    settings |= own.settings(context, queries, ("rows", "epochs"), label=label)
    run_and_show("separation", settings, methods, out, as_json)


@eval_app.command()
@with_groups
def lds(
    context: Context,
    own: OwnOptions,
    engine: EngineOptions,
    methods: Methods = [],
    models: Annotated[int, typer.Option(help="Number of retrainings, each on a random part of the pool.")] = 64,
    keep: Annotated[
        float, typer.Option(help="Share of the pool that each model learns; 0.9 leaves a tenth out.")
    ] = 0.5,
    pool: Task = "two-domains",
    rows: Rows = 0,
    queries: Queries = "40",
    recipe: RecipeFile = None,
    epochs: Retrained = 0,
    ceiling: Annotated[bool, typer.Option("--ceiling", help="Train a second bank: what could be predicted?")] = False,
    seed: Seed = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Do summed scores predict retraining? Alternative options (a|b) are chosen on the other half of the queries.

    With --model, --data, --queries and --recipe, on your own rows: --model is then the model before it learns them.

    The task `facts` needs the Debian packages wordnet-base and dict-foldoc.

    Example:  headwater eval lds --task facts --ceiling --method magic --method ekfac
    """
    settings = {"pool": pool, "models": models, "keep": keep, "rows": rows, "epochs": epochs}
    settings |= {"ceiling": ceiling, "seed": seed}
    settings |= own.settings(context, queries, ("pool", "rows", "epochs"), recipe=recipe)
    run_and_show("lds", settings, methods, out, as_json, engine=engine.open())


@eval_app.command()
@with_groups
def forgetting(
    context: Context,
    methods: Annotated[
        list[str], typer.Option("--method", help="rapidun, rapidun:weights=uniform, npo:beta=0.2, ... Repeats.")
    ] = [],
    rows: Annotated[int, typer.Option(help="Rows of the contaminated pool.", min=400)] = 8000,
    queries: Annotated[int, typer.Option(help="Number of seen, of unseen and of clean questions.", min=4)] = 120,
    seeds: Annotated[int, typer.Option(help="Number of tasks and models, from seeds 0, 1, ...", min=1)] = 3,
    sizes: Annotated[
        list[int], typer.Option("--size", help="Also measure the first method's cost at this pool size. Repeats.")
    ] = [],
    mistaken: Annotated[
        float, typer.Option(help="Share of the known rows that are really of the other kind.", min=0, max=0.5)
    ] = 0.0,
    model: Annotated[str, typer.Option(help="Base model to fine-tune, instead of a tiny one from scratch.")] = "",
    data: Annotated[str, typer.Option(help="Clean rows to plant the triggers in, instead of the built-in ones.")] = "",
    epochs: Annotated[int, typer.Option(help="Epochs of the trainings.", min=1)] = 5,
    rate: Annotated[float, typer.Option(help="Learning rate of fine-tuning --model.")] = 2e-4,
    attacks: Annotated[bool, typer.Option("--attacks", help="Attack every model too: does forgetting last?")] = False,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Does unlearning remove a backdoor, keep the rest, and cost less than retraining? With a trade-off plot.

    Example:  headwater eval forgetting --method rapidun --method graddiff --seeds 3
    """
    from headwater.evaluation.forgetting import tradeoff_points
    from headwater.evaluation.result import read_result
    from headwater.report.plots import save, tradeoff

    refuse_idle(context, idle_when(("rate",), "the tiny model has a rate of its own; --model has none", idle=not model))
    settings = {"rows": rows, "queries": queries, "seeds": tuple(range(seeds)), "sizes": tuple(sizes)}
    settings |= {"mistaken": mistaken, "model": model, "data": data, "epochs": epochs, "rate": rate, "attacks": attacks}
    run_and_show("forgetting", settings, methods, out, as_json)
    points = tradeoff_points(read_result(out / "forgetting.json"), f"{rows:,} rows")
    names = ("clean perplexity, as a share of that before", "attack success, mean of seen and unseen triggers")
    figure = tradeoff(points, axes_names=names, best="best: lower left")
    say(f"trade-off: {save(figure, out / 'forgetting-tradeoff.svg', description='forgetting against utility')}")


@eval_app.command()
@with_groups
def removal(
    context: Context,
    own: OwnOptions,
    engine: EngineOptions,
    methods: Methods = [],
    k: Annotated[int, typer.Option("--k", help="Rows taken out.", min=1)] = 16,
    queries: Queries = "8",
    recipe: RecipeFile = None,
    draws: Annotated[int, typer.Option(help="Number of draws of random rows to compare with.", min=2)] = 4,
    pool: Task = "two-domains",
    rows: Rows = 0,
    epochs: Retrained = 0,
    seed: Seed = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Does a query's loss rise when its top rows are taken out and the model is trained again?

    Each query needs one training for each method. With --model, --data, --queries and --recipe, on your own rows.

    Example:  headwater eval removal --k 16 --method rise --method ekfac
    """
    settings = {"pool": pool, "k": k, "draws": draws, "rows": rows, "epochs": epochs, "seed": seed}
    settings |= own.settings(context, queries, ("pool", "rows", "epochs"), recipe=recipe)
    run_and_show("removal", settings, methods, out, as_json, engine=engine.open())


@eval_app.command()
@with_groups
def sanity(
    context: Context,
    own: OwnOptions,
    methods: Methods = [],
    rows: Annotated[int, typer.Option(help="Rows of the pool.", min=50)] = 600,
    queries: Queries = "20",
    relevant: Condition = "",
    relevant_ids: Ids = "",
    label: Label = "",
    epochs: Epochs = 0,
    seed: Seed = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Check scores without ground truth: do they depend on weights and query, and stay the same with another seed?

    With --model, --data and --queries, on your own model and rows.

    Example:  headwater eval sanity --method rise --method rapidin
    """
    truth = {"relevant": relevant, "relevant_ids": relevant_ids, "label": label}
    settings = {"rows": rows, "epochs": epochs, "seed": seed}
    settings |= own.settings(context, queries, ("rows", "epochs"), **truth)
    run_and_show("sanity", settings, methods, out, as_json)


@eval_app.command()
@with_groups
def selection(
    context: Context,
    methods: Annotated[list[str], typer.Option("--method", help="alinfik, linfik, rise, ... Repeats.")] = [
        "alinfik:preset=training"
    ],
    pool: Annotated[
        str, typer.Option(help="mixed (helpful, neutral, garbled, poisoned), junk (brain rot) or real text.")
    ] = "mixed",
    text: Annotated[str, typer.Option(help="For --pool real: folder of the unpacked Debian packages.")] = "/usr",
    rows: Annotated[int, typer.Option(help="Rows of the pool.", min=200)] = 6000,
    share: Annotated[float, typer.Option(help="Share of the pool that an arm trains on.")] = 0.1,
    labels: Annotated[float, typer.Option(help="Share of the pool that alinfik's teacher labels.")] = 0.1,
    steps: Annotated[int, typer.Option(help="Training steps of every arm.", min=10)] = 120,
    seeds: Annotated[int, typer.Option(help="Number of trainings of every arm.", min=1)] = 3,
    weigh: Annotated[str, typer.Option(help="What counts alike in training: tokens or rows.")] = "tokens",
    seed: Seed = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Do the chosen rows teach the target faster than random rows, BM25's, or all rows? With learning curves.

    Example:  headwater eval selection --pool mixed --method alinfik --method linfik
    """
    from headwater.methods.catalog import CATALOG
    from headwater.report.plots import save_selection_curves

    entries = [CATALOG[name] for name in (label.partition(":")[0] for label in methods) if name in CATALOG]
    learned = any(entry.typical().learning is not None for entry in entries)
    refuse_idle(context, idle_when(("labels",), "no method learns from labels", idle=not learned))
    settings = {"pool": pool, "rows": rows, "share": share, "labels": labels, "steps": steps, "seed": seed}
    settings |= {"seeds": tuple(range(seeds)), "text": text, "weigh": weigh}
    run_and_show("selection", settings, methods, out, as_json)
    figure = save_selection_curves(out / f"selection-{pool}-curves.json", out / f"selection-{pool}-curves.svg")
    say(f"learning curves: {figure}")


@eval_app.command()
@with_groups
def leaderboard(
    out: Out = Path("runs/leaderboard"),
    document: Annotated[Path | None, typer.Option(help="Markdown file to write; default: in --out.")] = None,
    merge: Annotated[
        list[Path], typer.Option("--merge", help="Join these run files into one table, and run nothing. Repeats.")
    ] = [],
    files: Annotated[list[Path] | None, typer.Argument(help="Further run files for --merge.")] = None,
    as_json: Json = False,
) -> None:
    """Run every method on every task, at sizes for a laptop and an hour; an interrupted run continues.

    With --merge results/*.json: join the results of evaluations, on your own data or ours, into one table.

    Example:  headwater eval leaderboard --out runs/leaderboard --document docs/leaderboard.md
    """
    from headwater.evaluation.board import board, columns_of, joined, read_results
    from headwater.evaluation.leaderboard import run_leaderboard, summary
    from headwater.report.results import COSTS, write_leaderboard

    given = [*merge, *(files or [])]
    if files and not merge:
        raise UsageError(f"'{files[0]}' is given without --merge", remedy="headwater eval leaderboard --merge *.json")
    if given:
        results = joined(read_results(given))
        table = board(columns_of(results), results)
    else:
        with progress("beginning", kept=_kept(out)) as bar:
            results = run_leaderboard(out, _listener(bar))
        table = summary(results)
    page, text = out / "leaderboard.html", document or out / "leaderboard.md"
    write_leaderboard(text, page, results, table, own=bool(given))
    if as_json:
        documents = [result.to_json() for result in results]
        emit_json("eval leaderboard", {"results": documents, "document": str(text), "page": str(page)})
        return
    emit_table("leaderboard", ["place", "method", *table.headings, *COSTS], table.rows)
    say(f"document: {text}; page: {page}" + ("" if given else f"; run files: {out / 'runs'}"))


@eval_app.command()
@with_groups
def replay(
    run: Annotated[Path, typer.Argument(help="The run file (JSON) of an evaluation.")],
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Run an evaluation again with the settings in its run file.

    Example:  headwater eval replay runs/eval/detection-howdy.json --out runs/again
    """
    from headwater.evaluation.result import read_result

    before = read_result(run)
    run_and_show(before.task, dict(before.settings), [], out, as_json, command="replay")


def run_and_show(
    task: str,
    settings: dict[str, Any],
    methods: list[str],
    out: Path,
    as_json: bool,
    *,
    command: str = "",
    engine: Any = None,
) -> None:
    """Run an evaluation, write `<task>.json`, `.md` and `.html` into `out`, and print its tables.

    `command` is the command's name, where it is not that of the task; `engine` trains the models of a bank.
    """
    from headwater.evaluation.runs import run_evaluation
    from headwater.report.results import publish

    given = {**settings, "methods": tuple(methods)} if methods else settings
    with progress("beginning", kept=_kept(out)) as bar:
        result = run_evaluation(task, given, out, _listener(bar, engine))
    files = publish(result, out)
    if as_json:
        made = {name: str(path) for name, path in files.items()}
        emit_json(f"eval {command or task}", {**result.to_json(), "files": made})
        return
    show(result)
    say(f"run file: {files['json']}; page: {files['html']}")


def _kept(out: Path) -> str:
    return f"what is finished is kept in {out}; the same command goes on"


def _listener(bar: Bar, engine: Any = None) -> Listener:
    """The callbacks of an evaluation: progress moves the bar, and notes stay visible on stderr."""
    from headwater.evaluation.listener import Listener

    given = Listener(bar.share, say)
    return given if engine is None else dataclasses.replace(given, engine=engine)


def show(result: Result) -> None:
    """Print a table for each group, in which only the first metric has its interval, and one of costs.

    Metrics that no line of the group has are left out; notes go to stderr. Methods of one *place*, marked `=`, are
    level: their paired difference does not tell them apart.
    """
    from headwater.evaluation.standing import standings

    first = result.shown[0]
    for group in result.groups:
        standing_lines = standings(result, group)
        shown = [name for name in result.shown if any(name in one.line.metrics for one in standing_lines)]
        rows = []
        for standing in standing_lines:
            line = standing.line
            others = [line.metrics[name].value if name in line.metrics else None for name in shown if name != first]
            head = str(line.metrics[first]) if first in line.metrics else None
            rows.append([standing.place_text, line.method, head, *others])
        emit_table(group or result.title, ["place", "method", *shown], rows)
    costs = {line.method: line.cost for line in result.lines}
    if any(cost.build_seconds is not None for cost in costs.values()):
        listed = [[method, c.build_seconds, c.row_bytes, c.query_seconds] for method, c in costs.items()]
        emit_table("cost", ["method", "build s", "bytes a row", "query s"], listed)
    for note in result.notes:
        say(note)
