"""The statement of a purchase: one page a person can read and print, with every provider's account.

As in `page`, all text reaches the page through Jinja's escaping, and a content security policy forbids the rest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headwater.report.page import environment, write_page
from headwater.report.tables import number_text
from headwater.valuation.ledger import ProviderAccount
from headwater.valuation.prices import Prices, money
from headwater.valuation.values import Values

_UNITS = {"row": "a row's value", "character": "a row's value times its characters"}


def render_statement(values: Values, prices: Prices, accounts: Sequence[ProviderAccount], *, currency: str = "") -> str:
    """The whole page."""
    terms = prices.terms
    identity = values.about.get("identity", {})
    method = identity.get("method") or identity.get("student", {})
    facts = {
        "method": method.get("name") or "student of " + str(method.get("teacher", {}).get("name", "a method")),
        "targets": ", ".join(values.about.get("targets", {})) or "not recorded",
        "paid by": _UNITS[terms.unit],
        "reserve": number_text(terms.reserve),
        "rows offered": f"{len(prices.cents):,}",
        "rows paid": f"{int((prices.cents > 0).sum()):,}",
        "values file": values.path,
        "pool digest": values.about.get("pool", "not recorded"),
    }
    return (
        environment()
        .get_template("statement.html.j2")
        .render(
            accounts=[_view(account, terms.budget) for account in accounts],
            facts=facts,
            total=money(terms.budget),
            currency=currency,
        )
    )


def write_statement(
    path: str | os.PathLike[str],
    values: Values,
    prices: Prices,
    accounts: Sequence[ProviderAccount],
    *,
    currency: str = "",
) -> Path:
    """Write the page to `path` all at once."""
    return write_page(path, render_statement(values, prices, accounts, currency=currency))


def _view(account: ProviderAccount, budget: int) -> dict[str, Any]:
    return {
        "provider": account.provider,
        "rows": f"{account.rows:,}",
        "paid": f"{account.paid:,}",
        "clusters": f"{account.clusters:,}",
        "worth": number_text(account.worth),
        "share": f"{100 * account.cents / budget:.1f} %",
        "bar": round(100 * account.cents / budget, 1),
        "amount": money(account.cents),
        "best": [(row, money(cents)) for row, cents in account.best],
    }
