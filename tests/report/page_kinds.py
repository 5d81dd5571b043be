"""Every kind of page, with texts in many scripts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from report_sample import howdy_trace
from scripts_sample import TEXTS, scripts_trace

from headwater.core.trace import TokenGrid
from headwater.evaluation.board import board, columns_of
from headwater.evaluation.metrics import Estimate
from headwater.evaluation.result import Cost, Line, Result
from headwater.report import Table, render_trace
from headwater.report.results import Section, render_results, write_leaderboard
from headwater.report.statement import render_statement
from headwater.report.unlearning import render_unlearning_report
from headwater.unlearning.account import Account, Sample
from headwater.valuation.ledger import accounts
from headwater.valuation.prices import Terms, price
from headwater.valuation.values import Values


def trace_page() -> str:
    """All of a trace: maps, losses, metadata, a grid, a table."""
    trace = scripts_trace(2, 3)
    first = trace.queries[1].hits[0]
    assert first.row_tokens
    assert first.query_tokens
    rows, columns = first.row_tokens.tokens[20:36], first.query_tokens.tokens[-12:]
    values = tuple(tuple((-1) ** i * 0.01 * (i % 7) * (j % 5) for j in range(12)) for i in range(16))
    hits = (replace(first, grid=TokenGrid(rows, columns, values)), *trace.queries[1].hits[1:])
    queries = (trace.queries[0], replace(trace.queries[1], hits=hits), howdy_trace().queries[0])
    table = Table("Results", ("method", "P@10"), (("rise", 0.98), ("bm25", None)), "A note.")
    return render_trace(replace(trace, queries=queries), tables=[table])


def large_trace_page() -> str:
    """Fifty queries with twenty hits each."""
    return render_trace(scripts_trace(50, 20))


def purchase(rows: int = 40) -> tuple[Values, object]:
    """Values with intervals, and their prices for providers with names in many scripts."""
    names = [
        "مزود البيانات",
        "数据供应商有限公司",
        "acme-corpora-international-holdings-limited",
        "नदी",
        "rocket 👩🏽‍🚀",
    ]
    value = np.linspace(0.5, -0.3, rows)
    table = pa.table(
        {
            "id": [f"row-{i}" for i in range(rows)],
            "value": value,
            "low": value - 0.2,
            "high": value + 0.2,
            "provider": [names[i % len(names)] for i in range(rows)],
            "characters": [100] * rows,
        }
    )
    about = {"identity": {"method": {"name": "rise"}}, "targets": {"rivers": 12}, "pool": "3f" * 32}
    values = Values(table, about, "runs/values-of-the-spring-pool.parquet")
    return values, price(values, Terms(123456, by="provider", only_certain=False))


def statement_page() -> str:
    """The statement of a purchase."""
    values, prices = purchase()
    return render_statement(values, prices, accounts(values, prices), currency="EUR")


def account(rate: float = 0.000448123) -> Account:
    """A finished run of unlearning."""
    summary = {
        "model": "tiny-llama-howdy",
        "adapter": "loras/howdy",
        "method": "rapidun",
        "outcome": "forgotten",
        "forget rows": 12,
        "retain rows": 30,
        "guard rows": 6,
        "rate": rate,
        "steps": 40,
        "forget loss before": 0.8912345678,
        "forget loss after": 4.2312345678,
        "forget loss of unseen rows (target)": 4.1987654321,
        "retain loss before": 1.1234567,
        "retain loss after": 1.1934567,
        "retain perplexity ratio": 1.0725123,
        "seconds": {"training": 12.3},
        "warnings": ["few rows to retain"],
    }
    samples = tuple(
        Sample(kind, text, text, "I do not know. " * 4)
        for kind, text in zip(("forget", "retain", "asked", "forget", "retain"), TEXTS.values(), strict=True)
    )
    readings = tuple((step, 0.9 + step / 12, 1.12 + step / 600) for step in range(0, 41, 5))
    weights = {"forget": [(0.1 * i, 0.05 * i, 1.0 + 0.1 * i) for i in range(12)]}
    return Account(summary, samples, readings, weights)


def unlearning_page() -> str:
    """The account of a run of unlearning."""
    return render_unlearning_report(account())


def results_page() -> str:
    """Results of an evaluation with a plot."""
    rows = tuple((name, 0.9 - i / 10, 0.5, None, 1.2, 4096, 0.01) for i, name in enumerate(("rise", "bm25", "random")))
    table = Table("Detection", ("method", "P@10", "AP", "LDS", "build s", "bytes a row", "query s"), rows, "A note.")
    bars = [(str(row[0]), float(row[1] or 0), float(row[1] or 0) - 0.1, float(row[1] or 0) + 0.1) for row in rows]
    return render_results("Detection of planted rows", [Section(table, bars, "P@10")], {"machine": "2 cores"})


def leaderboard_page() -> str:
    """Three evaluations merged, with names of methods and tasks of every length."""
    results = []
    for task, metric, names in (
        ("detection", "AP", ("rise", "rise+embedding", "bm25", "random")),
        ("lds", "LDS", ("rise", "graddot", "bm25")),
        ("removal", "drop", ("trackstar", "random")),
    ):
        lines = tuple(
            Line(
                name, {metric: Estimate(0.9 - i / 5, 0.8 - i / 5, 1.0 - i / 5)}, Cost(1.234, 4096, 0.0123), "数据 group"
            )
            for i, name in enumerate(names)
        )
        about = {"headwater": "0.1.0", "torch": "2", "machine": "2 cores", "seconds": 12.3, "made": "today"}
        results.append(
            Result(task, f"Evaluation of {task}", {"own": True}, (metric,), lines, ("A note.",), about=about)
        )
    with TemporaryDirectory() as folder:
        page = Path(folder) / "board.html"
        write_leaderboard(Path(folder) / "board.md", page, results, board(columns_of(results), results), own=True)
        return page.read_text(encoding="utf-8")


KINDS = {
    "trace": trace_page,
    "large trace": large_trace_page,
    "statement": statement_page,
    "unlearning": unlearning_page,
    "results": results_page,
    "leaderboard": leaderboard_page,
}
