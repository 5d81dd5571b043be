"""The report of a trace as one HTML file: no script, no network, readable on a phone, in the dark and on paper.

All text from rows, queries and options passes through Jinja's escaping, and the templates put it only into text or
quoted attributes, never into CSS. Should this fail, the page's content security policy still forbids scripts and
requests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from headwater.core.files import write_text
from headwater.core.trace import Trace
from headwater.report.colours import STEPS, stylesheet
from headwater.report.tables import Table, cell_text, numeric_columns
from headwater.report.views import view_queries

_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that HTML cannot contain: controls other than tab and line feed, lone surrogates, non-characters."""


def render_trace(trace: Trace, *, title: str | None = None, tables: Sequence[Table] = ()) -> str:
    """The whole page for a trace; `tables` follow the queries.

    The page shows three keys of `trace.about` beside each query's colour scale: `sign`, `token values` (how they relate
    to the score) and `coverage`. It lists all keys at the end. The order of the hits shows whether the trace looked for
    the highest or the lowest scores.

    Raises:
        DataError: a token map or grid whose numbers do not fit its tokens.
        NumericError: a score, loss or token value that is not finite; the message names query and row.
    """
    queries = view_queries(trace)
    several = "What taught the model these answers?"
    return render(
        "trace.html.j2",
        title=title or ("What taught the model this answer?" if len(queries) == 1 else several),
        trace=trace,
        queries=queries,
        tables=with_alignment(tables),
        steps=range(1, STEPS + 1),
    )


def write_report(
    path: str | os.PathLike[str], trace: Trace, *, title: str | None = None, tables: Sequence[Table] = ()
) -> Path:
    """Write the report of a trace as one HTML page.

    Args:
        path: the file to write, all at once.
        trace: the trace.
        title: title of the page; None is a question.
        tables: tables to show after the queries.

    Raises:
        DataError, NumericError: as `render_trace`; then nothing is written.
        StoreError: the file cannot be written.
    """
    return write_text(Path(path), render_trace(trace, title=title, tables=tables))


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; it also gets the stylesheet, as `colours`."""
    return _environment().get_template(template).render(colours=Markup(stylesheet()), **values)


def with_alignment(tables: Iterable[Table]) -> list[tuple[Table, list[bool]]]:
    """Each table, and which of its columns are set flush right."""
    return [(table, numeric_columns(table.columns, table.rows)) for table in tables]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """How templates are filled: all text is escaped, undefined names are errors, control characters are visible."""
    made = Environment(
        loader=PackageLoader("headwater.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    made.filters["cell"] = cell_text
    return made


def _printable(value: Any) -> Any:
    """Text without the characters of `_NOT_TEXT`: controls become their visible pictures, all others U+FFFD."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _NOT_TEXT.sub(_picture, value)
    return value


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"
