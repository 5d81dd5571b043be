"""The report of a trace as one HTML file: no network, readable on a phone, in the dark and on paper.

All text from rows, queries and options passes through Jinja's escaping, and the templates put it only into text or
quoted attributes, never into CSS or a script. Should this fail, the page's content security policy still forbids
requests and every script but one: the page's own, by its hash. It finds rows by their text and shows the value of a
token that is clicked. Everything else works without it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from headwater.core.files import write_text
from headwater.core.trace import Trace
from headwater.report.colours import STEPS, stylesheet
from headwater.report.detail import details, first_queries, largest
from headwater.report.fields import Layout, Shaded
from headwater.report.tables import Table, cell_text, numeric_columns
from headwater.report.texts import LONGEST_NAME, LONGEST_TEXT, shortened
from headwater.report.views import view_queries

_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that HTML cannot contain: controls other than tab and line feed, lone surrogates, non-characters."""

_BARE = re.compile(r"[\w.+−]+")
"""Values of attributes that are the same without quotes."""


def render_trace(trace: Trace, *, title: str | None = None, tables: Sequence[Table] = ()) -> str:
    """The whole page for a trace; `tables` follow the queries.

    The page shows three keys of `trace.about` beside each query's colour scale: `sign`, `token values` (how they relate
    to the score) and `coverage`. It lists all keys at the end. The order of the hits shows whether the trace looked for
    the highest or the lowest scores. The page stays below `detail.largest(trace)` bytes: long texts and the shades of
    their tokens are left out as far as needed, and the page says what is left out.

    Raises:
        DataError: a token map or grid whose numbers do not fit its tokens.
        NumericError: a score, loss or token value that is not finite; the message names query and row.
    """
    trace = first_queries(trace)
    several = "What taught the model these answers?"
    page, layout = "", Layout()
    for detail in details(trace):
        page = render(
            "trace.html.j2",
            title=title or ("What taught the model this answer?" if len(trace.queries) == 1 else several),
            trace=trace,
            queries=view_queries(trace, detail, layout),
            detail=detail,
            grids_left_out=not detail.grids and any(hit.grid for query in trace.queries for hit in query.hits),
            tables=with_alignment(tables),
            steps=range(1, STEPS + 1),
            **_finder(),
        )
        if len(page.encode("utf-8", "surrogatepass")) <= largest(trace):
            break
    return page


def framed(trace: Trace) -> str:
    """The page of a trace in a frame of its own, for notebooks: its style and script touch nothing around it."""
    page = escape(render_trace(trace))
    look = "width:100%;height:42rem;border:1px solid #8884;border-radius:8px"
    return f'<iframe title="trace" sandbox="allow-scripts" style="{look}" srcdoc="{page}"></iframe>'


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
    return environment().get_template(template).render(colours=Markup(stylesheet()), **values)


@lru_cache(maxsize=1)
def _finder() -> dict[str, Markup]:
    """The page's script, and its hash for the content security policy."""
    script = resources.files("headwater.report").joinpath("templates/find.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"script": Markup(script), "script_hash": Markup(f"sha256-{digest}")}


def with_alignment(tables: Iterable[Table]) -> list[tuple[Table, list[bool]]]:
    """Each table, and which of its columns are set flush right."""
    return [(table, numeric_columns(table.columns, table.rows)) for table in tables]


@lru_cache(maxsize=4)
def environment(*packages: str) -> Environment:
    """How templates are filled: all text is escaped, undefined names are errors, control characters are visible.

    Templates are looked for in these packages, and then among the report's own.
    """
    made = Environment(
        loader=ChoiceLoader([*map(PackageLoader, packages), PackageLoader("headwater.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    made.filters["drawn"] = _drawn
    made.filters["cell"] = cell_text
    made.filters["name"] = partial(shortened, most=LONGEST_NAME)
    return made


def _drawn(pieces: Iterable[Shaded]) -> Markup:
    """Shaded pieces as markup, without white space between them, which would be read as text."""
    return Markup("".join(map(_drawn_piece, pieces)))


def _drawn_piece(piece: Shaded) -> str:
    text, lead = escape(_printable(piece.text)), escape(piece.lead)
    if not piece.css:
        return f"{lead}{text}"
    title = f" title={_attribute(piece.title)}" if piece.title else ""
    return f"{lead}<span class={_attribute(piece.css)}{title}>{text}</span>"


def _attribute(value: str) -> str:
    """The value of an attribute; words of letters, digits, signs and points need no quotes, which keeps pages small."""
    return value if _BARE.fullmatch(value) else f'"{escape(value)}"'


def _printable(value: Any) -> Any:
    """Text as a page can show it.

    It is at most `LONGEST_TEXT` characters long and has none of `_NOT_TEXT`: controls become their visible pictures,
    all others U+FFFD.
    """
    if isinstance(value, str) and not isinstance(value, Markup):
        return _NOT_TEXT.sub(_picture, shortened(value, LONGEST_TEXT))
    return value


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"
