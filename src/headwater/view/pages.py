"""Turn a view into a page, JSON or CSV, and serve the style sheet and scripts, which all come with the package.

Templates are this room's and the report's; the environment escapes all text. The style sheet is the report's, and what
the app adds to it.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache, partial
from importlib import resources
from typing import Any

from markupsafe import Markup

from headwater import __version__
from headwater.report.colours import stylesheet
from headwater.report.page import environment
from headwater.view.results import as_csv
from headwater.view.site import AppSite, Href, View, address

FORMATS = {
    "": "text/html; charset=utf-8",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
}

_SCRIPTS = ("app.js", "htmx.min.js")


@lru_cache(maxsize=1)
def assets() -> dict[str, tuple[str, bytes]]:
    """The style sheet and scripts: name to media type and content."""
    here = resources.files("headwater.view")
    report = resources.files("headwater.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    own = here.joinpath("static/app.css").read_text(encoding="utf-8")
    style = f"{stylesheet()}\n{report}\n{own}"
    scripts = {name: here.joinpath(f"static/{name}").read_bytes() for name in _SCRIPTS}
    found = {name: ("text/javascript; charset=utf-8", content) for name, content in scripts.items()}
    return {"app.css": ("text/css; charset=utf-8", style.encode()), **found}


@lru_cache(maxsize=1)
def asset_version() -> str:
    """A short digest of all assets, which is in their addresses so that browsers keep them."""
    whole = hashlib.sha256(b"".join(content for _, content in assets().values()))
    return whole.hexdigest()[:12]


def rendered(site: AppSite, view: View, suffix: str, *, path: str, query: str = "", href: Href = address) -> str:
    """The view in one format of `FORMATS`; `path` and `query` are where it is, without the format's suffix."""
    if suffix == ".json":
        return json.dumps(view.data, ensure_ascii=False, indent=1, default=str) + "\n"
    if suffix == ".csv":
        return as_csv(view.table)
    tail = f"?{query}" if query else ""
    known: dict[str, Any] = {
        "site": site,
        "title": view.title,
        "data": view.data,
        "href": href,
        "here": f"{path}{tail}",
        "also": {"JSON": f"{path}.json{tail}", "CSV": f"{path}.csv{tail}"} if not site.static else {},
        "assets": partial(asset_address, static=site.static),
        "version": __version__,
        "meta": _META,
    }
    return environment("headwater.view").get_template(view.template).render(**known, **view.shown)


def asset_address(name: str, *, static: bool = False) -> str:
    """The address of the style sheet or a script."""
    return f"assets/{name}" if static else f"/assets/{name}?v={asset_version()}"


_META = Markup(  # htmx may neither evaluate text nor write styles nor ask other sites
    '<meta name="htmx-config" content=\''
    '{"allowEval":false,"includeIndicatorStyles":false,"selfRequestsOnly":true,"historyCacheSize":0}'
    "'>"
)
