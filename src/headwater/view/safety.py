"""What every request passes: is it for us, from us, small enough and in time; and what every answer carries.

A page of another site can make a browser send requests here. DNS can be turned so that such a request seems to go to
that site (rebinding): so the `Host` must be one of ours. A form of another site can post: so a POST must come from our
own origin, or from a program that is no browser. A page can be drawn in a frame: the policy forbids it.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 1 << 20
LONGEST_URL = 60_000
SECONDS = 60.0
"""A request that takes longer is ended; those that wait for a trace have a bound of their own."""
PATIENT = ("/api/trace", "/api/score", "/jobs/")
"""Paths of requests that may take as long as a trace does."""
COOKIE = "headwater-token"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-cache",
}


class Guard:
    """ASGI middleware; see the module's docstring.

    Args:
        app: what answers the requests that pass.
        hosts: names of this machine that a request may be for, without the port; None takes any, with a token.
        token: what every request must bring, as `?token=`, a cookie or `Authorization: Bearer`; empty for none.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str] | None, token: str = "") -> None:
        self.app, self.token = app, token
        self.hosts = None if hosts is None else frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        started, small = False, _Bounded(receive)

        async def sending(message: Message) -> None:
            nonlocal started
            if small.exceeded:
                return  # what the app makes of the error; the answer is given below
            if message["type"] == "http.response.start":
                started = True
                self._mark(scope, message)
            await send(message)

        try:
            bound = None if scope["path"].startswith(PATIENT) else SECONDS
            await asyncio.wait_for(self.app(scope, small, sending), bound)
        except _TooLargeError:
            if not started:
                await _answer(send, 413, f"a request may have {LARGEST_BODY:,} bytes at most")
        except TimeoutError:
            if not started:
                await _answer(send, 503, f"this took longer than {SECONDS:.0f} seconds; ask for less")

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """The status and reason of a request that may not pass; None for one that may."""
        if len(scope["path"]) + len(scope["query_string"]) > LONGEST_URL:
            return 414, "the address is too long"
        host = _host(headers.get("host", ""))
        if self.hosts is not None and host not in self.hosts:
            return 421, "this address is not one of headwater's; open the one that the command printed"
        if scope["method"] not in ("GET", "HEAD"):
            site, origin = headers.get("sec-fetch-site", "none"), headers.get("origin")
            own = f"{scope['scheme']}://{headers.get('host', '')}"
            if site not in ("same-origin", "none") or (origin is not None and origin != own):
                return 403, "a request that changes something must come from headwater's own pages"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            return 413, f"a request may have {LARGEST_BODY:,} bytes at most"
        if self.token and not self._known(scope, headers):
            return 401, "a token is needed: open the address that the command printed"
        return None

    def _known(self, scope: Scope, headers: dict[str, str]) -> bool:
        cookie = SimpleCookie(headers.get("cookie", ""))
        brought = [
            *parse_qs(scope["query_string"].decode("latin-1")).get("token", []),
            headers.get("authorization", "").removeprefix("Bearer "),
            cookie[COOKIE].value if COOKIE in cookie else "",
        ]
        return any(hmac.compare_digest(one.encode(), self.token.encode()) for one in brought)

    def _mark(self, scope: Scope, message: Message) -> None:
        """Add the headers that every answer carries, and the cookie for who came with the token in the address."""
        present = {name.lower() for name, _ in message["headers"]}
        found = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in present]
        if self.token and b"token=" in scope["query_string"]:
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            found.append((b"set-cookie", cookie.encode()))
        message["headers"] = [*message["headers"], *found]


class _TooLargeError(Exception):
    pass


class _Bounded:
    """A request's body, until it is too large."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._seen = receive, 0

    @property
    def exceeded(self) -> bool:
        """Whether it is too large."""
        return self._seen > LARGEST_BODY

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self.exceeded:
            raise _TooLargeError
        return message


def _host(given: str) -> str:
    """The name in a `Host` header, without the port."""
    try:
        return (urlsplit(f"//{given}").hostname or "").lower()
    except ValueError:
        return ""


async def _answer(send: Any, status: int, reason: str) -> None:
    body = f"headwater: {reason}\n".encode()
    kind = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), "connection": "close"}
    headers = {**HEADERS, **kind}
    listed = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})
