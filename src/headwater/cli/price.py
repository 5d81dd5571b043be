"""`headwater price`: divide a budget among rows and their providers, to the cent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.console import emit_json, emit_table, say
from headwater.cli.options import Json, Made, Writes, with_groups


@with_groups
def price(
    values: Annotated[Path, typer.Argument(help="Values file of `headwater value`.")],
    budget: Annotated[str, typer.Option(help="The amount to pay in all: 2500 or 99.90.")],
    out: Annotated[Path, typer.Option(help="Ledger to write: CSV, one line a provider."), Writes],
    by: Annotated[str | None, typer.Option(help="Metadata column that names the provider.")] = None,
    reserve: Annotated[float, typer.Option(help="Do not buy rows with a lower value.")] = 0.0,
    unit: Annotated[str, typer.Option(help="Pay by row (value) or by character (value times length).")] = "row",
    column: Annotated[str, typer.Option(help="The column that holds the value.")] = "value",
    rows: Annotated[Path | None, typer.Option(help="Also write one CSV line a row."), Writes] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a readable statement."), Writes] = None,
    currency: Annotated[str, typer.Option(help="Shown beside amounts.")] = "",
    as_json: Json = False,
) -> Made:
    """Divide a budget among rows in proportion to their value, to the cent; copies of a row earn nothing more.

    Example:  headwater price values.parquet --budget 2500 --by provider --out ledger.csv --html statement.html
    """
    from headwater.api.choosing import price as divide
    from headwater.valuation.prices import money

    files = {"out": out, "rows": rows, "html": html}
    found = divide(values, budget, by=by, reserve=reserve, unit=unit, column=column, currency=currency, **files)
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
