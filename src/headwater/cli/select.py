"""`headwater select`: the rows to take, as a file like the one they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.arguments import Columns, Json, pairs
from headwater.cli.console import emit_json, emit_pairs, say


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
    columns: Columns = [],
    as_json: Json = False,
) -> None:
    """Choose rows by their value and write them as they were.

    Example:  headwater select values.parquet --top 10% --distinct --out chosen.jsonl
    """
    from headwater.data.corpus import open_corpus
    from headwater.valuation.chosen import kind_of, records_of, write_records
    from headwater.valuation.selection import Choice
    from headwater.valuation.selection import select as choose
    from headwater.valuation.values import read_values

    kind_of(out)
    valued = read_values(values)
    choice = Choice(top=top, above=above, by=by, gumbel=gumbel, distinct=distinct, column=column, seed=seed)
    chosen = choose(valued, choice)
    ids = [valued.ids[i] for i in chosen]
    pool = open_corpus(candidates or valued.about.get("candidates", ""), mapping=pairs(columns, "--column") or None)
    write_records(out, records_of(pool, ids))
    numbers = valued.numbers(column)
    facts = {
        **{"out": str(out), "rows": len(ids), "pool": len(numbers)},
        **{"mean value chosen": float(numbers[chosen].mean()), "mean value of the pool": float(numbers.mean())},
        "least value chosen": float(numbers[chosen].min()),
    }
    if as_json:
        emit_json({**facts, "ids": ids})
        return
    emit_pairs(facts)
    say(f"{out}: {len(ids):,} of {len(numbers):,} rows")
