"""Rewrite the tables that are generated from the code: the README's method table from the catalog.

Run:  make docs
"""

from __future__ import annotations

import re
from pathlib import Path

from headwater.methods.catalog import CATALOG, STREAMING
from headwater.report import markdown_table

README = Path(__file__).parent.parent / "README.md"


def method_table() -> str:
    """The catalog as a Markdown table."""
    rows = [
        [f"`{e.name}`", e.summary, e.reads, e.stores, e.cost, ", ".join(f"`{p}`" for p in e.presets), e.source]
        for e in (*CATALOG.values(), *STREAMING.values())
    ]
    return markdown_table(["method", "what it is", "reads", "bytes a row", "cost a row", "presets", "source"], rows)


def rewritten(text: str) -> str:
    """The README with its generated part made anew."""
    begin, end = "<!-- methods:begin (make docs) -->", "<!-- methods:end -->"
    return re.sub(
        f"{re.escape(begin)}.*{re.escape(end)}",
        lambda _: f"{begin}\n{method_table().strip()}\n{end}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(encoding="utf-8")), encoding="utf-8")
