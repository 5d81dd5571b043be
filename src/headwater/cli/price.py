"""`headwater price`: a budget shared out among rows and their providers, to the cent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.console import emit_json, emit_table, say
from headwater.cli.options import Json, Made, with_groups


@with_groups
def price(
    values: Annotated[Path, typer.Argument(help="Values file of `headwater value`.")],
    budget: Annotated[str, typer.Option(help="What is paid in all: 2500 or 99.90.")],
    out: Annotated[Path, typer.Option(help="Ledger: CSV, one line a provider.")],
    by: Annotated[str | None, typer.Option(help="Metadata column that names the provider.")] = None,
    reserve: Annotated[float, typer.Option(help="Value below which a row is not bought.")] = 0.0,
    unit: Annotated[str, typer.Option(help="What is bought: row, or character (value times length).")] = "row",
    column: Annotated[str, typer.Option(help="Which column is the value.")] = "value",
    rows: Annotated[Path | None, typer.Option(help="Also write one CSV line a row.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a readable statement.")] = None,
    currency: Annotated[str, typer.Option(help="Printed beside amounts.")] = "",
    as_json: Json = False,
) -> Made:
    """Pay for data by what it is worth: nothing for nothing, nothing more for copies, the budget to the cent.

    Example:  headwater price values.parquet --budget 2500 --by provider --out ledger.csv --html statement.html
    """
    from headwater.api.valuing import price as share_out
    from headwater.valuation.prices import money

    found = share_out(
        values,
        budget,
        by=by,
        reserve=reserve,
        unit=unit,
        column=column,
        currency=currency,
        out=out,
        rows=rows,
        html=html,
    )
    total, lines = money(found.prices.terms.budget), found.accounts
    if html is not None:
        say(f"statement: {html}")
    if as_json:
        paid = {line.provider: money(line.cents) for line in lines}
        emit_json({"out": str(out), "budget": total, "paid": paid, "paid_rows": sum(line.paid for line in lines)})
    else:
        table = [[a.provider, a.rows, a.paid, a.clusters, a.worth, money(a.cents)] for a in lines]
        emit_table("ledger", ["provider", "rows", "paid", "distinct", "worth", f"amount {currency}".strip()], table)
        say(f"{out}: {total} {currency}".rstrip())
    return Made(out)
