"""The statement of a purchase: one page to read and print, with the account of every provider.

As in `page`, all text is escaped by Jinja, and a content security policy forbids scripts and requests.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.core.files import write_text
from headwater.report.page import render
from headwater.report.tables import number_text
from headwater.report.texts import LONGEST_NAME, shortened
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
        "paid rows that cannot be told from zero": _uncertain(prices),
        **({"only certain rows": "rows that cannot be told from zero are not paid"} if prices.only_certain else {}),
        **({"shrunk": "values are drawn towards their provider's mean by their error"} if terms.shrink else {}),
        **_trust(values.about.get("notes", {})),
        **_changeable(prices),
        **({"doubts about the values": "; ".join(values.warnings)} if values.warnings else {}),
        "values file": values.path,
        "pool digest": values.about.get("pool", "not recorded"),
    }
    views = [_view(account, terms.budget) for account in accounts]
    total = money(terms.budget)
    return render("statement.html.j2", accounts=views, facts=facts, total=total, currency=currency)


def _uncertain(prices: Prices) -> str:
    """How many paid rows have an interval that reaches down to zero; in words if the values have no intervals."""
    if prices.unsure is None:
        return "not known: these values have no intervals, as with a target of one part"
    rows, cents = prices.unsure
    share = f"{money(cents)} of {money(prices.terms.budget)}"
    return f"{rows:,} of {int((prices.cents > 0).sum()):,}, paid {share}: they cannot be told from zero"


def _trust(notes: Mapping[str, Any]) -> dict[str, str]:
    """The target's ceiling and the student's share of it, as `value` noted them."""
    found = {}
    for name, fact in notes.items():
        if name.endswith(("ceiling", "share of the ceiling", "student reads")) and isinstance(fact, float | str):
            found[name] = f"{fact:.2f}" if isinstance(fact, float) else fact
    return found


def _changeable(prices: Prices) -> dict[str, str]:
    if not prices.changeable:
        return {}
    name, share = max(prices.changeable.items(), key=lambda pair: pair[1])
    words = f"at most {share:.2f} (of {shortened(name, LONGEST_NAME)})"
    return {"probability that other labels would change a provider's pay by over 10 %": words}


def write_statement(
    path: str | os.PathLike[str],
    values: Values,
    prices: Prices,
    accounts: Sequence[ProviderAccount],
    *,
    currency: str = "",
) -> Path:
    """Write the page to `path`, all at once; raises `StoreError` if the file cannot be written."""
    return write_text(Path(path), render_statement(values, prices, accounts, currency=currency))


def _view(account: ProviderAccount, budget: int) -> dict[str, Any]:
    return {
        "provider": shortened(account.provider, LONGEST_NAME),
        "rows": f"{account.rows:,}",
        "paid": f"{account.paid:,}",
        "clusters": f"{account.clusters:,}",
        "worth": number_text(account.worth),
        "share": f"{100 * account.cents / budget:.1f} %",
        "bar": round(100 * account.cents / budget, 1),
        "amount": money(account.cents),
        "best": [(shortened(row, LONGEST_NAME), money(cents)) for row, cents in account.best],
    }
