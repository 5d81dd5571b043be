"""Start the app: on this machine alone, unless another host is asked for; then every request needs a token.

`open_site` runs it in a thread, for notebooks and tests; `serve` runs it until it is interrupted.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import secrets
import socket
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater.core.errors import ModelError, UsageError
from headwater.view.shelf import Shelf

PORT, LOCAL = 8127, "127.0.0.1"
NAMES = ("127.0.0.1", "localhost", "::1")
"""Names under which a browser on this machine asks for the app."""
NEEDED = ("starlette", "uvicorn")


def require_extra() -> None:
    """Raise `ModelError` that says what to install, if the packages of the extra `view` are missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        remedy = "pip install 'headwater[view]'"
        raise ModelError(f"the app needs {' and '.join(missing)}", where="headwater view", remedy=remedy)


@dataclass
class Running:
    """An app that runs in a thread.

    Attributes:
        url: its address, with the token if one is needed.
        site: what it shows.
    """

    url: str
    site: Any
    _server: Any
    _thread: threading.Thread

    def close(self) -> None:
        """Stop it."""
        self._server.should_exit = True
        self._thread.join(10)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repr_html_(self) -> str:
        """A link to the app, for notebooks; its pages refuse to stand in a frame of another page."""
        return f'<a href="{self.url}" target="_blank" rel="noopener">{self.url}</a>'


def open_site(
    runs: Sequence[str | Path],
    *,
    host: str = LOCAL,
    port: int = 0,
    site: Any = None,
    **models: Any,
) -> Running:
    """Run the app in a thread and return once it answers; `models` are arguments of `Models`.

    Raises:
        UsageError: the port is taken.
        StoreError: a run does not exist.
    """
    require_extra()
    from headwater.view.site import AppSite

    shown = site or AppSite.of(Shelf(runs), **models)
    server, listening, url = _server(shown, host, port)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True, name="headwater-view")
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    return Running(url, shown, server, thread)


def serve(
    runs: Sequence[str | Path],
    *,
    host: str = LOCAL,
    port: int = PORT,
    on_ready: Callable[[str], None],
    browser: bool = True,
    **models: Any,
) -> None:
    """Run the app until it is interrupted.

    Args:
        runs: indices, files and folders to show.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        on_ready: called with the app's address.
        browser: whether to open a browser.
        models: arguments of `Models`.
    """
    require_extra()
    from headwater.view.site import AppSite

    server, listening, url = _server(AppSite.of(Shelf(runs), **models), host, port)
    on_ready(url)
    if browser:
        threading.Timer(0.3, webbrowser.open, [url]).start()
    server.run(sockets=[listening])


def _server(site: Any, host: str, port: int) -> tuple[Any, socket.socket, str]:
    """A server that is ready to run, its socket, and its address."""
    import uvicorn

    from headwater.view.app import make_app

    listening = _listen(host, port)
    number = listening.getsockname()[1]
    local = _is_loopback(host)
    token = "" if local else secrets.token_urlsafe(24)
    hosts = (*NAMES, host) if local else None
    config = uvicorn.Config(
        make_app(site, hosts=hosts, token=token),
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
        limit_concurrency=1000,
        backlog=512,
    )
    shown = f"[{host}]" if ":" in host else host
    return uvicorn.Server(config), listening, f"http://{shown}:{number}" + (f"/?token={token}" if token else "")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once (TCP_NODELAY) only on sockets that name their protocol; else each waits 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        remedy = "choose another with --port, or --port 0 for any that is free"
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror}", where="--port", remedy=remedy
        ) from None
    return listening


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
