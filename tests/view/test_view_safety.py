"""Attacks: other hosts, other origins, large bodies, paths that lead out, filters that do more than read, strangers."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from view_runs import EVIL, QUESTION, running, runs, web  # noqa: F401 - fixtures

from headwater.index.store import open_index
from headwater.view.app import make_app
from headwater.view.safety import LARGEST_BODY, Guard
from headwater.view.serve import NAMES, Running, _is_loopback
from headwater.view.shelf import Shelf
from headwater.view.site import AppSite


def test_every_answer_carries_the_policy(web: httpx.Client) -> None:
    for place in ("/", "/i/rows", "/i/rows.json", "/nowhere", "/assets/app.js", "/openapi.json", "/home.csv"):
        headers = web.get(place).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "script-src 'self';" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in headers
    report = web.get("/r/report").headers["content-security-policy"]
    assert report.startswith("sandbox;")
    assert "script-src" not in report


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]", "localhost.x"]
)
def test_another_host_is_refused(web: httpx.Client, host: str) -> None:
    assert web.get("/home.json", headers={"host": host}).status_code == 421
    assert web.get("/home.json", headers={"host": f"localhost:{web.base_url.port}"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://127.0.0.1:1"},
    ],
)
@pytest.mark.parametrize("place", ["/i/rows/ask", "/api/trace", "/jobs/x/cancel", "/ask-both"])
def test_a_post_from_elsewhere_is_refused(web: httpx.Client, running: Running, place: str, headers: Any) -> None:
    assert web.post(place, data={"prompt": "x"}, headers=headers).status_code == 403
    assert running.site.jobs.all_traced() == []


def test_a_form_cannot_call_the_api(web: httpx.Client) -> None:
    found = web.post("/api/trace", content='{"index": "rows", "prompt": "x"}', headers={"content-type": "text/plain"})
    assert (found.status_code, found.json()["where"]) == (400, "content-type")


@pytest.mark.parametrize("place", ["/api/trace", "/i/rows/ask"])
def test_a_large_body_is_refused_before_it_is_read(web: httpx.Client, place: str) -> None:
    kind = {"content-type": "application/json"}
    head = f"POST {place} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {50 << 20}\r\n\r\n"
    with socket.create_connection((web.base_url.host, web.base_url.port or 80), timeout=20) as line:
        line.sendall(head.encode() + b"x" * 1000)
        assert b" 413 " in line.recv(100)

    def drip() -> Any:
        for _ in range(50 << 4):
            yield b"x" * (1 << 16)

    with contextlib.suppress(httpx.TransportError):  # the server hung up, which is as good
        assert web.post(place, content=drip(), headers=kind).status_code == 413
    assert LARGEST_BODY < 50 << 20


@pytest.mark.parametrize(
    "place",
    [
        "/t/..%2f..%2fetc%2fpasswd",
        "/t/%2fetc%2fpasswd",
        "/r/../notes.txt",
        "/assets/..%2fapp.py",
        "/assets/../../etc/passwd",
        "/i/rows/../../notes.txt",
        "/t/notes",
        "/t/leads-out",
        "/t/outside",
        "//etc/passwd",
    ],
)
def test_only_what_is_on_the_shelf_is_served(web: httpx.Client, place: str) -> None:
    found = web.get(place)
    assert found.status_code == 404
    assert "a secret" not in found.text
    assert "root:" not in found.text


def test_a_row_whose_id_is_a_path_is_a_row(web: httpx.Client) -> None:
    assert web.get("/i/rows/row.json", params={"id": "../../etc/passwd"}).json()["row"]["grade"] == 1


@pytest.mark.parametrize(
    "where",
    ["1 = 1; DELETE FROM rows", "repeat('x', 999999999) = 'x'", "id IN (SELECT id FROM rows)", "1=1) OR (1=1", "'"],
)
def test_a_filter_changes_nothing(web: httpx.Client, runs: Path, where: str) -> None:
    before = open_index(runs / "rows.lance").dataset.version
    for place in ("/i/rows", "/i/rows.json", "/api/rows"):
        found = web.get(place, params={"where": where, "index": "rows"} if place == "/api/rows" else {"where": where})
        assert found.status_code in (400, 422), found.text[:300]
    after = open_index(runs / "rows.lance")
    assert (after.dataset.version, after.count) == (before, 60)


@pytest.mark.parametrize(
    "body",
    [
        {"index": "rows", "prompt": QUESTION, "response": "x", "top": 10**9},
        {"index": "rows", "prompt": "x" * 30_000},
        {"index": "rows", "prompt": QUESTION, "max_new_tokens": 10**6},
        {"index": "rows", "prompt": QUESTION, "where": "repeat('x', 99999999) = 'x'"},
        {"index": "rows", "prompt": QUESTION, "wait": True},
        {"index": "rows", "prompt": QUESTION, "path": "/etc/passwd"},
        {"index": "rows"},
        {"index": "../../etc", "prompt": QUESTION},
        {"index": "rows", "messages": [{"role": 3}]},
        [1],
    ],
)
def test_the_api_is_bounded(web: httpx.Client, body: Any) -> None:
    found = web.post("/api/trace", json=body)
    assert found.status_code in (400, 404)
    assert found.json()["error"]


def test_long_addresses_and_deep_json_are_refused(web: httpx.Client) -> None:
    assert web.get("/i/rows", params={"q": "x" * 62_000}).status_code in (400, 414)
    deep = "[" * 50_000 + "]" * 50_000
    headers = {"content-type": "application/json"}
    assert web.post("/api/trace", content=deep, headers=headers).status_code == 400


def test_csv_cannot_become_a_formula(web: httpx.Client) -> None:
    from headwater.view.results import as_csv

    assert as_csv([{"=1+1": "@SUM(A1)", "a": '=cmd|"/C calc"!A0'}]).splitlines() == [
        "'=1+1,a",
        '\'@SUM(A1),"\'=cmd|""/C calc""!A0"',
    ]
    assert EVIL.replace('"', '""') in web.get("/i/rows.csv?size=200").text


@pytest.fixture
def guarded(runs: Path) -> httpx.AsyncClient:
    app: Guard = make_app(AppSite.of(Shelf([runs]), allowed=False), hosts=None, token="right")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://10.0.0.1:8127")


def test_another_machine_needs_the_token(guarded: httpx.AsyncClient) -> None:
    import asyncio

    async def visit() -> None:
        async with guarded:
            for wrong in ({}, {"token": "wrong"}, {"token": ""}):
                assert (await guarded.get("/home.json", params=wrong)).status_code == 401
            bearer = {"authorization": "Bearer right"}
            assert (await guarded.get("/home.json", headers=bearer)).status_code == 200
            assert "right" not in guarded.cookies.values()
            first = await guarded.get("/", params={"token": "right"})
            assert first.status_code == 200
            assert "HttpOnly; SameSite=Strict" in first.headers["set-cookie"]
            assert "right" not in first.text
            assert (await guarded.get("/home.json")).status_code == 200, "the cookie is enough"

    asyncio.run(visit())


def test_only_loopback_goes_without_a_token() -> None:
    assert all(_is_loopback(name) for name in (*NAMES, "127.0.0.2"))
    assert not any(_is_loopback(name) for name in ("0.0.0.0", "::", "10.0.0.1", "example.org"))
