"""The ledger of a purchase as CSV: what each provider is paid, and for which rows."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headwater.core.files import whole_file
from headwater.valuation.prices import Prices, money
from headwater.valuation.values import Values

COLUMNS = ("provider", "rows", "paid_rows", "clusters", "worth", "share", "amount")


@dataclass(frozen=True)
class ProviderAccount:
    """The line of one provider.

    Attributes:
        provider: its name.
        rows: how many rows it offered.
        paid: how many of them are paid.
        clusters: how many rows it offered if near-duplicates count once.
        worth: Σ max(value − reserve, 0) over its rows; copies count in full.
        cents: what it is paid.
        best: ids of its best-paid rows with their cents, at most five.
    """

    provider: str
    rows: int
    paid: int
    clusters: int
    worth: float
    cents: int
    best: tuple[tuple[str, int], ...]


def accounts(values: Values, prices: Prices) -> tuple[ProviderAccount, ...]:
    """One line a provider, the best paid first; the cents sum to the budget."""
    providers = np.array(prices.providers)
    found = []
    for name in sorted(set(prices.providers)):
        own = np.flatnonzero(providers == name)
        cents = prices.cents[own]
        top = own[np.argsort(-cents, kind="stable")[:5]]
        best = tuple((values.ids[i], int(prices.cents[i])) for i in top if prices.cents[i])
        distinct = len(set(prices.clusters[own].tolist()))
        worth = float(prices.worth[own].sum())
        found.append(ProviderAccount(name, len(own), int((cents > 0).sum()), distinct, worth, int(cents.sum()), best))
    return tuple(sorted(found, key=lambda account: -account.cents))


def write_ledger(path: str | Path, lines: tuple[ProviderAccount, ...], budget: int) -> Path:
    """Write one CSV line a provider, and a last line with the sums; amounts have two decimals."""
    rows = [
        [_plain(a.provider), a.rows, a.paid, a.clusters, f"{a.worth:.6g}", f"{a.cents / budget:.6f}", money(a.cents)]
        for a in lines
    ]
    sums = (sum(a.rows for a in lines), sum(a.paid for a in lines), sum(a.clusters for a in lines))
    total = ["TOTAL", *sums, "", "1.000000", money(budget)]
    return _write(path, [list(COLUMNS), *rows, total])


def write_row_prices(path: str | Path, values: Values, prices: Prices) -> Path:
    """Write one CSV line a row: id, provider, worth (as in `Prices`), near-duplicate cluster, amount."""
    columns = zip(values.ids, prices.providers, prices.worth, prices.clusters, prices.cents.tolist(), strict=True)
    rows = [[_plain(i), _plain(p), f"{w:.6g}", int(c), money(cents)] for i, p, w, c, cents in columns]
    return _write(path, [["id", "provider", "worth", "cluster", "amount"], *rows])


def _plain(text: str) -> str:
    """The text, quoted if a spreadsheet could take it for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


def _write(path: str | Path, rows: Sequence[Sequence[object]]) -> Path:
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return Path(path)
