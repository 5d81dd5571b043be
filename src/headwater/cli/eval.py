"""`headwater eval`: how good is a method, beside BM25 and chance, on ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.console import Advance, emit_json, emit_table, progress, say
from headwater.cli.options import Json, with_groups

if TYPE_CHECKING:
    from headwater.evaluation.listener import Listener
    from headwater.evaluation.result import Result

eval_app = typer.Typer(
    help="Measure methods on ground truth, beside their controls.", no_args_is_help=True, rich_markup_mode=None
)

Methods = Annotated[
    list[str], typer.Option("--method", help="rise, rapidin:normalize=row, rise+0.5*bm25, embedding=>ekfac. Repeats.")
]
Out = Annotated[Path, typer.Option(help="Folder for models, indexes and results; what is there is used again.")]
Seed = Annotated[int, typer.Option(help="Everything follows from it.")]
Rows = Annotated[int, typer.Option(help="Rows of the pool; 0: the task's own number.", min=0)]
QueryCount = Annotated[int, typer.Option("--queries", help="Queries; 0: the task's own number.", min=0)]
Epochs = Annotated[int, typer.Option(help="Epochs of the tiny model; 0: the recipe's own.", min=0)]
_STEPS = 1000


@eval_app.command()
@with_groups
def detection(
    methods: Methods = [],
    pool: Annotated[str, typer.Option("--task", help="howdy or entity-swap.")] = "howdy",
    rows: Rows = 0,
    queries: QueryCount = 0,
    seed: Seed = 0,
    epochs: Epochs = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Which rows planted the behaviour? With the trigger-masked control, or token-wise queries.

    Example:  headwater eval detection --task howdy --method rise --method rapidin
    """
    settings = {"pool": pool, "rows": rows, "queries": queries, "seed": seed, "epochs": epochs}
    run_and_show("detection", settings, methods, out, as_json)


@eval_app.command()
@with_groups
def separation(
    methods: Methods = [],
    rows: Rows = 0,
    queries: QueryCount = 0,
    seed: Seed = 0,
    epochs: Epochs = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Which rows are of the query's own domain? By a fine-tuned model and by one that never saw them.

    Example:  headwater eval separation --method rise --method rapidin
    """
    settings = {"pool": "two-domains", "rows": rows, "queries": queries, "seed": seed, "epochs": epochs}
    run_and_show("separation", settings, methods, out, as_json)


@eval_app.command()
@with_groups
def lds(
    methods: Methods = [],
    models: Annotated[int, typer.Option(help="Retrainings, each on a random half of the pool.")] = 64,
    rows: Annotated[int, typer.Option(help="Rows of the pool.", min=16)] = 256,
    queries: Annotated[int, typer.Option(help="Queries; half of them choose options, half are reported.", min=4)] = 40,
    epochs: Annotated[int, typer.Option(help="Epochs of each retraining.", min=1)] = 4,
    seed: Seed = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Do summed scores foretell retraining? Options written as alternatives are chosen on other queries.

    Example:  headwater eval lds --models 64 --method rise --method "logra:damping=0.01|0.1|1"
    """
    settings = {"models": models, "rows": rows, "queries": queries, "epochs": epochs, "seed": seed}
    run_and_show("lds", settings, methods, out, as_json)


@eval_app.command()
@with_groups
def forgetting(
    methods: Annotated[
        list[str], typer.Option("--method", help="rapidun, rapidun:weights=uniform, npo:beta=0.2, ... Repeats.")
    ] = [],
    rows: Annotated[int, typer.Option(help="Rows of the contaminated pool.", min=400)] = 8000,
    queries: Annotated[int, typer.Option(help="Seen, unseen and clean questions each.", min=4)] = 120,
    seeds: Annotated[int, typer.Option(help="Tasks and models made from seeds 0, 1, ...", min=1)] = 3,
    sizes: Annotated[
        list[int], typer.Option("--size", help="Also the first method's cost at this size. Repeats.")
    ] = [],
    mistaken: Annotated[
        float, typer.Option(help="Share of the known rows that are of the other kind in truth.", min=0, max=0.5)
    ] = 0.0,
    model: Annotated[str, typer.Option(help="Base model to fine-tune instead of a tiny one from nothing.")] = "",
    data: Annotated[str, typer.Option(help="Clean rows to plant the triggers in instead of the built-in ones.")] = "",
    epochs: Annotated[int, typer.Option(help="Epochs of the trainings.", min=1)] = 5,
    rate: Annotated[float, typer.Option("--lr", help="Learning rate of fine-tuning --model.")] = 2e-4,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Does unlearning remove a backdoor, keep the rest, and cost less than retraining? With a trade-off plot.

    Example:  headwater eval forgetting --method rapidun --method graddiff --seeds 3
    """
    from headwater.evaluation.forgetting import tradeoff_points
    from headwater.evaluation.result import read_result
    from headwater.report.plots import save, tradeoff

    settings = {"rows": rows, "queries": queries, "seeds": tuple(range(seeds)), "sizes": tuple(sizes)}
    settings |= {"mistaken": mistaken, "model": model, "data": data, "epochs": epochs, "rate": rate}
    run_and_show("forgetting", settings, methods, out, as_json)
    points = tradeoff_points(read_result(out / "forgetting.json"), f"{rows:,} rows")
    names = ("clean perplexity, as a share of that before", "attack success, mean of seen and unseen triggers")
    figure = tradeoff(points, axes_names=names, best="best: lower left")
    say(f"trade-off: {save(figure, out / 'forgetting-tradeoff.svg', description='forgetting against utility')}")


@eval_app.command()
@with_groups
def removal(
    methods: Methods = [],
    k: Annotated[int, typer.Option("--k", help="Rows taken out.", min=1)] = 16,
    queries: Annotated[int, typer.Option(help="Queries; one retraining each and method.", min=2)] = 8,
    draws: Annotated[int, typer.Option(help="Draws of random rows to compare with.", min=2)] = 4,
    rows: Annotated[int, typer.Option(help="Rows of the pool.", min=16)] = 256,
    epochs: Annotated[int, typer.Option(help="Epochs of each retraining.", min=1)] = 4,
    seed: Seed = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Does a query's loss rise when its top rows are taken out and the model trained anew?

    Example:  headwater eval removal --k 16 --method rise --method ekfac
    """
    settings = {"k": k, "queries": queries, "draws": draws, "rows": rows, "epochs": epochs, "seed": seed}
    run_and_show("removal", settings, methods, out, as_json)


@eval_app.command()
@with_groups
def sanity(
    methods: Methods = [],
    rows: Annotated[int, typer.Option(help="Rows of the pool.", min=50)] = 600,
    queries: Annotated[int, typer.Option(help="Queries.", min=2)] = 20,
    epochs: Epochs = 0,
    seed: Seed = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """What scores must do without any ground truth: follow the weights, vary with the query, keep under another seed.

    Example:  headwater eval sanity --method rise --method rapidin
    """
    settings = {"rows": rows, "queries": queries, "epochs": epochs, "seed": seed}
    run_and_show("sanity", settings, methods, out, as_json)


@eval_app.command()
@with_groups
def selection(
    methods: Annotated[list[str], typer.Option("--method", help="alinfik, linfik, rise, ... Repeats.")] = ["alinfik"],
    pool: Annotated[
        str, typer.Option(help="mixed (helpful, neutral, garbled, poisoned) or junk (brain rot).")
    ] = "mixed",
    rows: Annotated[int, typer.Option(help="Rows of the pool.", min=200)] = 6000,
    share: Annotated[float, typer.Option(help="Share of the pool that is taken.")] = 0.1,
    labels: Annotated[float, typer.Option(help="Share of the pool that alinfik's teacher labels.")] = 0.1,
    steps: Annotated[int, typer.Option(help="Training steps of every arm.", min=10)] = 120,
    seeds: Annotated[int, typer.Option(help="Trainings of every arm.", min=1)] = 3,
    seed: Seed = 0,
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Does training on the chosen share teach the target faster than a random share, BM25's, or all? With curves.

    Example:  headwater eval selection --pool mixed --method alinfik --method linfik
    """
    from headwater.report.plots import save_selection_curves

    settings = {"pool": pool, "rows": rows, "share": share, "labels": labels, "steps": steps, "seed": seed}
    settings["seeds"] = tuple(range(seeds))
    run_and_show("selection", settings, methods, out, as_json)
    figure = save_selection_curves(out / f"selection-{pool}-curves.json", out / f"selection-{pool}-curves.svg")
    say(f"learning curves: {figure}")


@eval_app.command()
@with_groups
def leaderboard(
    out: Out = Path("runs/leaderboard"),
    document: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path("docs/leaderboard.md"),
    as_json: Json = False,
) -> None:
    """Every method on every task, at sizes a laptop does in an hour; an interrupted one goes on where it stopped.

    Example:  headwater eval leaderboard --out runs/leaderboard --document docs/leaderboard.md
    """
    from headwater.evaluation.leaderboard import run_leaderboard, summary
    from headwater.report.results import write_leaderboard

    with progress("beginning", quiet=as_json) as advance:
        results = run_leaderboard(out, _telling(advance))
    headings, rows = summary(results)
    page = out / "leaderboard.html"
    write_leaderboard(document, page, results, headings, rows)
    if as_json:
        emit_json([result.to_json() for result in results])
        return
    emit_table("leaderboard", ["method", *headings, "build s", "bytes a row", "query s"], rows)
    say(f"document: {document}; page: {page}; run files: {out / 'runs'}")


@eval_app.command()
@with_groups
def replay(
    run: Annotated[Path, typer.Argument(help="A run.json that an evaluation wrote.")],
    out: Out = Path("runs/eval"),
    as_json: Json = False,
) -> None:
    """Run a saved evaluation again from its settings.

    Example:  headwater eval replay runs/eval/detection-howdy.json --out runs/again
    """
    from headwater.evaluation.result import read_result

    before = read_result(run)
    run_and_show(before.task, dict(before.settings), [], out, as_json)


def run_and_show(task: str, settings: dict[str, Any], methods: list[str], out: Path, as_json: bool) -> None:
    """Run an evaluation, write `<task>.json`, `.md` and `.html` into `out`, and print its tables."""
    from headwater.evaluation.runs import run_evaluation
    from headwater.report.results import publish

    given = {**settings, "methods": tuple(methods)} if methods else settings
    with progress("beginning", quiet=as_json) as advance:
        result = run_evaluation(task, given, out, _telling(advance))
    files = publish(result, out)
    if as_json:
        emit_json({**result.to_json(), "files": {name: str(path) for name, path in files.items()}})
        return
    show(result)
    say(f"run file: {files['json']}; page: {files['html']}")


def _telling(advance: Advance) -> Listener:
    """Who hears an evaluation: the bar, and stderr for what is to stay in view."""
    from headwater.evaluation.listener import Listener

    return Listener(lambda words, share: advance(int(share * _STEPS), _STEPS, words), say)


def show(result: Result) -> None:
    """A table a group on stdout, the first metric with its interval; the files have all of them. Notes go to stderr."""
    first, *rest = result.shown
    for group in result.groups:
        rows = [
            [
                line.method,
                str(line.metrics[first]),
                *(line.metrics[name].value if name in line.metrics else None for name in rest),
                line.cost.build_seconds,
                line.cost.row_bytes,
                line.cost.query_seconds,
            ]
            for line in result.ranked(group)
        ]
        emit_table(group or result.title, ["method", *result.shown, "build s", "bytes a row", "query s"], rows)
    for note in result.notes:
        say(note)
