"""The report of a trace as one HTML file: no script, no network, readable on a phone, in the dark and on paper.

All text from rows, queries and options reaches the page through Jinja's escaping and lands only in text or quoted
attributes, never in CSS; a content security policy in the page forbids scripts and requests should either ever fail.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from headwater.core.files import write_text
from headwater.core.trace import Trace
from headwater.report.colours import STEPS, stylesheet
from headwater.report.tables import Table, cell_text, numeric_columns
from headwater.report.views import QueryView, view_queries

_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters HTML cannot carry: controls other than tab and line feed, lone surrogates, non-characters."""


def render_trace(trace: Trace, *, title: str | None = None, tables: Sequence[Table] = ()) -> str:
    """The whole page for a trace; `tables` follow the queries.

    Keys of `trace.about` with a place of their own, beside each query's colour scale: `sign`, `token values` (how they
    relate to the score) and `coverage`. All keys are listed at the end. Whether the trace went for the highest or the
    lowest scores is read off the order of the hits.

    Raises:
        DataError: a token map or grid whose numbers do not fit its tokens.
        NumericError: a score, loss or token value that is not finite; the message names query and row.
    """
    queries = view_queries(trace)
    return (
        environment()
        .get_template("trace.html.j2")
        .render(
            title=title or _title(queries),
            trace=trace,
            queries=queries,
            tables=[(table, numeric_columns(table.columns, table.rows)) for table in tables],
            colours=Markup(stylesheet()),
            steps=range(1, STEPS + 1),
        )
    )


def write_report(
    path: str | os.PathLike[str], trace: Trace, *, title: str | None = None, tables: Sequence[Table] = ()
) -> Path:
    """Write the page to `path`; raises as `render_trace` before anything is written, and as `write_page`."""
    return write_page(path, render_trace(trace, title=title, tables=tables))


def write_page(path: str | os.PathLike[str], text: str) -> Path:
    """Write a page to `path` all at once: a reader sees the old file or the new one, never a part.

    Raises:
        StoreError: the file cannot be written.
    """
    return write_text(Path(path), text)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The one way templates are filled: everything escaped, nothing undefined, control characters made visible."""
    filled = Environment(
        loader=PackageLoader("headwater.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    filled.filters["cell"] = cell_text
    return filled


def _printable(value: Any) -> Any:
    """What a template may output: control characters become their visible pictures, others U+FFFD."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _NOT_TEXT.sub(_picture, value)
    return value


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def _title(queries: Sequence[QueryView]) -> str:
    return "What taught the model this answer?" if len(queries) == 1 else "What taught the model these answers?"
