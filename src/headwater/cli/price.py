"""`headwater price`: a budget shared out among rows and their providers, to the cent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.arguments import Json
from headwater.cli.console import emit_json, emit_table, say
from headwater.core.errors import UsageError


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
) -> None:
    """Pay for data by what it is worth: nothing for nothing, nothing more for copies, the budget to the cent.

    Example:  headwater price values.parquet --budget 2500 --by provider --out ledger.csv --html statement.html
    """
    from headwater.report.statement import write_statement
    from headwater.valuation.ledger import accounts, write_ledger, write_row_prices
    from headwater.valuation.prices import Terms, money, to_cents
    from headwater.valuation.prices import price as price_rows
    from headwater.valuation.values import read_values

    if unit not in ("row", "character"):
        raise UsageError(f"unknown unit '{unit}'", where="--unit", remedy="row or character")
    terms = Terms(to_cents(budget), reserve, unit, by, column)  # type: ignore[arg-type]
    valued = read_values(values)
    priced = price_rows(valued, terms)
    lines = accounts(valued, priced)
    write_ledger(out, lines, terms.budget)
    if rows is not None:
        write_row_prices(rows, valued, priced)
    if html is not None:
        write_statement(html, valued, priced, lines, currency=currency)
        say(f"statement: {html}")
    if as_json:
        paid = {line.provider: money(line.cents) for line in lines}
        emit_json(
            {"out": str(out), "budget": money(terms.budget), "paid": paid, "paid_rows": sum(a.paid for a in lines)}
        )
        return
    table = [[a.provider, a.rows, a.paid, a.clusters, a.worth, money(a.cents)] for a in lines]
    emit_table("ledger", ["provider", "rows", "paid", "distinct", "worth", f"amount {currency}".strip()], table)
    say(f"{out}: {money(terms.budget)} {currency}".rstrip())
