"""`headwater select`: the rows to take, as a file like the one they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.console import emit_json, emit_pairs, say
from headwater.cli.options import Json, Made, with_groups


@with_groups
def select(
    values: Annotated[Path, typer.Argument(help="Values file of `headwater value`.")],
    out: Annotated[Path, typer.Option(help="JSONL (also .gz), CSV or Parquet: the rows as they were, best first.")],
    top: Annotated[str, typer.Option(help="How many: 500, or 10% of the pool.")] = "",
    above: Annotated[float | None, typer.Option(help="Only rows of a greater value.")] = None,
    by: Annotated[str | None, typer.Option(help="Metadata column: --top then counts in every group by itself.")] = None,
    gumbel: Annotated[float, typer.Option(help="Noise in standard deviations of the values; 0: none.")] = 0.0,
    distinct: Annotated[bool, typer.Option("--distinct", help="One row of each near-duplicate cluster.")] = False,
    column: Annotated[str, typer.Option(help="Which column is the value: value_TASK with several targets.")] = "value",
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    candidates: Annotated[str | None, typer.Option(help="Where the pool is now, if not where it was valued.")] = None,
    as_json: Json = False,
) -> Made:
    """Choose rows by their value and write them as they were.

    Example:  headwater select values.parquet --top 10% --distinct --out chosen.jsonl
    """
    from headwater.api.valuing import select as choose

    found = choose(
        values,
        top=top,
        above=above,
        by=by,
        gumbel=gumbel,
        distinct=distinct,
        column=column,
        seed=seed,
        candidates=candidates,
        out=out,
    )
    facts = {
        **{"out": str(out), "rows": len(found.ids), "pool": len(found.pool)},
        **{"mean value chosen": float(found.values.mean()), "mean value of the pool": float(found.pool.mean())},
        "least value chosen": float(found.values.min()),
    }
    if as_json:
        emit_json({**facts, "ids": found.ids})
    else:
        emit_pairs(facts)
        say(f"{out}: {len(found.ids):,} of {len(found.pool):,} rows")
    return Made(out)
