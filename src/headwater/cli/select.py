"""`headwater select`: choose rows, and write them to a file like the one they came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.config import Context
from headwater.cli.console import emit_json, emit_pairs, say
from headwater.cli.idle import idle_when, refuse_idle
from headwater.cli.options import Json, Made, Writes, open_rows, with_groups
from headwater.core.errors import UsageError

if TYPE_CHECKING:
    from headwater.cli.results import Selected


@with_groups
def select(
    context: Context,
    values: Annotated[Path, typer.Argument(help="Values file of `headwater value`.")],
    out: Annotated[Path, typer.Option(help="File to write: JSONL (also .gz), CSV or Parquet, best row first."), Writes],
    top: Annotated[str, typer.Option(help="How many rows: 500, or 10% of the pool.")] = "",
    above: Annotated[float | None, typer.Option(help="Take only rows with a greater value.")] = None,
    by: Annotated[str | None, typer.Option(help="Metadata column; --top then counts within each group.")] = None,
    gumbel: Annotated[float, typer.Option(help="Noise in standard deviations of the values; 0: none.")] = 0.0,
    distinct: Annotated[bool, typer.Option("--distinct", help="One row of each near-duplicate cluster.")] = False,
    diverse: Annotated[bool, typer.Option("--diverse", help="Rows of the best that are not all alike.")] = False,
    column: Annotated[str, typer.Option(help="The column that holds the value; value_TASK for one target.")] = "value",
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    candidates: Annotated[list[str], typer.Option(help="Present place of the pool, if it has moved. Repeats.")] = [],
    split: Annotated[str | None, typer.Option(help="Split of the pool at its present place.")] = None,
    as_json: Json = False,
) -> Made:
    """Choose rows by their value and write them as they were.

    Example:  headwater select values.parquet --top 10% --distinct --out chosen.jsonl
    """
    from headwater.api.choosing import select as choose
    from headwater.valuation.values import read_values

    refuse_idle(context, idle_when(("seed",), "there is no noise without --gumbel", idle=not gumbel))
    choice: dict[str, Any] = {"top": top, "above": above, "by": by, "distinct": distinct, "column": column}
    choice |= {"gumbel": gumbel, "seed": seed, "diverse": diverse}
    if candidates:
        named = read_values(values).about.get("columns", {})
        choice["candidates"] = open_rows(candidates, [f"{role}={name}" for role, name in named.items()], split=split)
    elif split is not None:
        raise UsageError("a split is chosen without --candidates", where="--split", remedy="give --candidates too")
    found = choose(values, **choice, out=out)
    facts: Selected = {
        "out": str(out),
        "rows": len(found.ids),
        "pool": len(found.pool),
        "mean_chosen": float(found.values.mean()),
        "mean_pool": float(found.pool.mean()),
        "least_chosen": float(found.values.min()),
        "ids": list(found.ids),
    }
    if as_json:
        emit_json("select", facts)
    else:
        means = {"of the chosen rows": facts["mean_chosen"], "of the pool": facts["mean_pool"]}
        emit_pairs({"mean value": means, "least value chosen": facts["least_chosen"]})
        say(f"{out}: {len(found.ids):,} of {len(found.pool):,} rows")
    return Made(out)
