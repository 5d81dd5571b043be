"""The app from Python: `hw.view(trace)` or `hw.view("runs/demo")` starts it in a thread and opens a browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

from headwater.core.trace import Trace
from headwater.view.serve import Running, open_site


def view(*shown: str | Path | Trace, port: int = 0, browser: bool = True, **models: Any) -> Running:
    """Show traces, and runs by their paths, in the local app; it runs in a thread until `close()`.

    Args:
        shown: traces, and paths of indices, files and folders.
        port: the port; 0 takes a free one.
        browser: whether to open a browser.
        models: `model`, `loading` and `allowed`, as in `headwater.view.models.Models`.

    Raises:
        ModelError: the extra `view` is not installed; says how to install it.
        StoreError: a path does not exist.
    """
    from headwater.view.shelf import Shelf
    from headwater.view.site import AppSite

    traces = [one for one in shown if isinstance(one, Trace)]
    runs = [one for one in shown if not isinstance(one, Trace)]
    running = open_site(runs, port=port, site=AppSite.of(Shelf(runs, traces=traces), **models))
    if len(shown) == 1 and traces:
        running.url = f"{running.url}/t/{running.site.shelf.of('trace')[0].key}"
    if browser:
        webbrowser.open(running.url)
    return running
