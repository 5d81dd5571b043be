"""`headwater price`: divide a budget among rows and their providers, to the cent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.console import emit_json, emit_table, say
from headwater.cli.options import Json, Made, Writes, with_groups

if TYPE_CHECKING:
    from headwater.api.choosing import Purchase
    from headwater.cli.results import Priced


@with_groups
def price(
    values: Annotated[Path, typer.Argument(help="Values file of `headwater value`.")],
    budget: Annotated[str, typer.Option(help="The amount to pay in all: 2500 or 99.90.")],
    out: Annotated[Path, typer.Option(help="Ledger to write: CSV, one line a provider."), Writes],
    by: Annotated[str | None, typer.Option(help="Metadata column that names the provider.")] = None,
    reserve: Annotated[float, typer.Option(help="Do not buy rows with a lower value.")] = 0.0,
    unit: Annotated[str, typer.Option(help="Pay by row (value) or by character (value times length).")] = "row",
    column: Annotated[str, typer.Option(help="The column that holds the value.")] = "value",
    only_certain: Annotated[
        bool | None,
        typer.Option("--only-certain/--also-uncertain", help="Leave out rows whose value cannot be told from zero."),
    ] = None,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Draw unsure values towards their provider's mean first.")
    ] = False,
    rows: Annotated[Path | None, typer.Option(help="Also write one CSV line a row."), Writes] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a readable statement."), Writes] = None,
    currency: Annotated[str, typer.Option(help="Shown beside amounts.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Pay by values that `value` found unfit for it.")] = False,
    as_json: Json = False,
) -> Made:
    """Divide a budget among rows in proportion to their value, to the cent; copies of a row earn nothing more.

    Example:  headwater price values.parquet --budget 2500 --by provider --out ledger.csv --html statement.html
    """
    from headwater.api.choosing import price as divide
    from headwater.valuation.prices import money

    files: dict[str, Any] = {"out": out, "rows": rows, "html": html}
    terms: dict[str, Any] = {"by": by, "reserve": reserve, "unit": unit, "column": column, "currency": currency}
    terms |= {"only_certain": only_certain, "shrink": shrink, "force": force}
    found = divide(values, budget, **terms, **files)
    total, lines, unsure = money(found.prices.terms.budget), found.accounts, found.prices.unsure
    paid_rows = sum(line.paid for line in lines)
    _say_doubts(found, paid_rows)
    if html is not None:
        say(f"statement: {html}")
    if as_json:
        priced: Priced = {
            "out": str(out),
            "budget": total,
            "currency": currency,
            "only_certain": found.prices.only_certain,
            "paid": {line.provider: money(line.cents) for line in lines},
            "paid_rows": paid_rows,
            "uncertain_rows": None if unsure is None else unsure[0],
            "uncertain_amount": None if unsure is None else money(unsure[1]),
            "changeable": found.prices.changeable,
            "warnings": list(found.warnings),
        }
        emit_json("price", priced)
    else:
        table = [[a.provider, a.rows, a.paid, a.clusters, a.worth, money(a.cents)] for a in lines]
        emit_table("ledger", ["provider", "rows", "paid", "distinct", "worth", f"amount {currency}".strip()], table)
        say(f"{out}: {total} {currency}".rstrip())
    return Made(out)


def _say_doubts(found: Purchase, paid_rows: int) -> None:
    """Say how many paid rows are sure, what there is to doubt, and whose pay depends most on the labels."""
    from headwater.valuation.prices import money

    unsure, total = found.prices.unsure, money(found.prices.terms.budget)
    if unsure is None:
        say("note: these values have no intervals, so nothing says how many paid rows can be told from zero")
    elif unsure[0]:
        what = f"{unsure[0]:,} of {paid_rows:,} paid rows, with {money(unsure[1])} of {total}, cannot be told from zero"
        say(f"warning: {what}")
    if found.prices.only_certain:
        rows_paid = f"{paid_rows:,} of {len(found.prices.cents):,} rows can be told from zero and are paid"
        say(f"{rows_paid}; --also-uncertain pays the others too")
    for doubt in found.warnings:
        say(f"warning: {doubt}")
    if worst := max((found.prices.changeable or {}).items(), key=lambda pair: pair[1], default=None):
        name, share = worst
        say(f"most changeable: '{name}': other labels would change its pay by over 10 % with probability {share:.2f}")
