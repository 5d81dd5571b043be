"""The app: addresses to views, in three formats each; the queue's pages; and the API.

Views read files and indices, which takes time, so each runs in a thread, at most `THREADS` at once; the event loop only
hands them out. Every view is built from one version of an index.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from headwater.core.errors import DataError, HeadwaterError, MismatchError, UsageError
from headwater.view import asking, browse, comparing, groups, home, results
from headwater.view.api import api_routes, openapi_view
from headwater.view.jobs import FINAL, ModelJob, ended
from headwater.view.pages import FORMATS, assets, rendered
from headwater.view.safety import HEADERS, POLICY, Guard
from headwater.view.shelf import nameless
from headwater.view.site import AppSite, MissingError, View, address

THREADS = 16
"""How many views are made at once; others wait."""
TICK = 0.06
"""Seconds between two looks at a job whose page is open."""

Given = Mapping[str, list[str]]
Make = Callable[[AppSite, Mapping[str, str], Given], View]


def _one(given: Given, name: str) -> str:
    return given[name][-1] if given.get(name) else ""


def _grouped(site: AppSite, column: str, value: list[str] | None) -> View:
    """The groups of a column, or one of them; `(none)` are the rows without a value."""
    if not column:
        raise UsageError("no column is named", where="by", remedy="/by?column=provider")
    return (
        groups.group(site, column, "" if value[-1] == "(none)" else value[-1]) if value else groups.groups(site, column)
    )


VIEWS: dict[str, Make] = {
    "/home": lambda site, at, given: home.home(site),
    "/i/{key}": lambda site, at, given: browse.rows(site, at["key"], given),
    "/i/{key}/row": lambda site, at, given: browse.row(site, at["key"], _one(given, "id")),
    "/i/{key}/near": lambda site, at, given: browse.neighbours(
        site, at["key"], _one(given, "id"), _one(given, "by") or "influence"
    ),
    "/i/{key}/ask": lambda site, at, given: asking.ask(site, at["key"], given),
    "/i/{key}/trace": lambda site, at, given: asking.traced(site, at["key"], given),
    "/t/{key}": lambda site, at, given: asking.trace_file(site, at["key"]),
    "/v/{key}": lambda site, at, given: results.values(site, at["key"], _one(given, "by")),
    "/l/{key}": lambda site, at, given: results.ledger(site, at["key"]),
    "/u/{key}": lambda site, at, given: results.unlearning(site, at["key"]),
    "/e/{key}": lambda site, at, given: results.evaluation(site, at["key"]),
    "/by": lambda site, at, given: _grouped(site, _one(given, "column"), given.get("value")),
    "/compare": lambda site, at, given: comparing.compare(site, _one(given, "a"), _one(given, "b")),
    "/both": lambda site, at, given: asking.both(site, _one(given, "a"), _one(given, "b"), _one(given, "prompt")),
    "/api": lambda site, at, given: openapi_view(),
}
"""Path to view; each is also there with `.json` and `.csv` behind the path."""


def make_app(site: AppSite, *, hosts: Iterable[str] | None, token: str = "") -> Guard:
    """The ASGI app of a site; `hosts` and `token` as in `Guard`."""
    limiter: list[anyio.CapacityLimiter] = []

    async def respond(request: Request, make: Make, suffix: str) -> Response:
        given = {name: request.query_params.getlist(name) for name in request.query_params if name != "token"}
        path = request.url.path.removesuffix(suffix) if suffix else request.url.path
        if not limiter:
            limiter.append(anyio.CapacityLimiter(THREADS))
        making = partial(make, site, dict(request.path_params), given)
        page = partial(_made, site, making, suffix, "/home" if path == "/" else path, _query(request))
        status, text = await anyio.to_thread.run_sync(page, limiter=limiter[0], abandon_on_cancel=True)
        headers = {} if suffix != ".csv" else {"content-disposition": f'attachment; filename="{_file_name(path)}.csv"'}
        return Response(text, status, headers, FORMATS[suffix])

    routes = [Route("/", partial(_view, respond, VIEWS["/home"], ""))]
    for path, make in VIEWS.items():
        routes += [Route(path + suffix, partial(_view, respond, make, suffix)) for suffix in (".json", ".csv", "")]
    routes += [
        Route("/assets/{name}", _asset),
        Route("/r/{key}", partial(_report, site)),
        Route("/i/{key}/ask", partial(_asked, site, respond), methods=["POST"]),
        Route("/ask-both", partial(_asked_both, site, respond), methods=["POST"]),
        Route("/jobs/{id}", partial(_job, site, respond)),
        Route("/jobs/{id}/events", partial(_events, site)),
        Route("/jobs/{id}/cancel", partial(_cancel, site), methods=["POST"]),
        *api_routes(site, respond),
        Route("/{rest:path}", partial(_view, respond, _nowhere, "")),
    ]
    return Guard(Starlette(routes=routes), hosts=hosts, token=token)


async def _view(respond: Any, make: Make, suffix: str, request: Request) -> Response:
    found: Response = await respond(request, make, suffix)
    return found


def _made(site: AppSite, make: Callable[[], View], suffix: str, path: str, query: str) -> tuple[int, str]:
    """The status and text of a view, or of the page that says why there is none."""
    try:
        view = make()
        return view.status, rendered(site, view, suffix, path=path, query=query)
    except HeadwaterError as error:
        view = failed(error)
    except Exception as error:  # a fault of headwater; the app goes on, and the terminal has the traceback
        logging.getLogger("headwater.view").exception("a page could not be made")
        view = replace(failed(DataError(f"a fault in headwater: {type(error).__name__}")), status=500)
    return view.status, rendered(site, view, suffix, path=path, query=query)


def failed(error: HeadwaterError) -> View:
    """The view that says what is wrong and what to do, without a path of this machine."""
    kinds = ((MissingError, 404), (UsageError, 400), (MismatchError, 409))
    status = next((code for kind, code in kinds if isinstance(error, kind)), 422)
    said = {"error": nameless(error.what), "where": nameless(error.where), "remedy": nameless(error.remedy)}
    title = "There is nothing here" if status == 404 else "This did not work"
    return View("failed.html.j2", title, said, [said], {"said": said}, status)


def _nowhere(site: AppSite, at: Mapping[str, str], given: Given) -> View:
    raise MissingError("no view has this address", remedy="the start page lists all")


def _query(request: Request) -> str:
    """The query of an address, without the token."""
    return re.sub(r"(^|&)token=[^&]*", "", request.url.query).lstrip("&")


def _file_name(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", path).strip("-") or "headwater"


async def _asset(request: Request) -> Response:
    found = assets().get(request.path_params["name"])
    if found is None:
        return Response("there is no such file\n", 404, media_type="text/plain")
    kind, content = found
    return Response(content, headers={"content-type": kind, "cache-control": "public, max-age=31536000, immutable"})


async def _report(site: AppSite, request: Request) -> Response:
    """A report's page as it was written; its own policy allows its style, and here no script and no form at all."""

    def read() -> str:
        item = site.item(request.path_params["key"], "report")
        text = Path(item.path).read_text(encoding="utf-8", errors="replace")
        return re.sub(r"(<dd[^>]*>)([^<]*)", lambda found: found[1] + nameless(found[2]), text)

    try:
        text = await anyio.to_thread.run_sync(read)
    except HeadwaterError as error:
        return Response(rendered(site, failed(error), "", path=request.url.path), 404, media_type="text/html")
    policy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
    return Response(text, headers={"content-type": "text/html; charset=utf-8", "content-security-policy": policy})


async def _asked(site: AppSite, respond: Any, request: Request) -> Response:
    """A form's question: into the queue, or straight to its trace if that is known."""
    body = (await request.body()).decode("utf-8", "replace")
    given = parse_qs(body, keep_blank_values=False, max_num_fields=5000)
    key = request.path_params["key"]
    try:
        place = await anyio.to_thread.run_sync(partial(queued, site, key, given))
    except HeadwaterError as error:
        return await _refused(respond, request, error)
    return RedirectResponse(place, 303)


async def _asked_both(site: AppSite, respond: Any, request: Request) -> Response:
    """A question to the models of two indices: both into the queue."""
    given = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=20)
    keys, prompt = [_one(given, name) for name in ("a", "b")], _one(given, "prompt").replace("\r\n", "\n")
    try:
        for key in keys:
            await anyio.to_thread.run_sync(partial(queued, site, key, {"prompt": [prompt]}))
    except HeadwaterError as error:
        return await _refused(respond, request, error)
    return RedirectResponse(address("/both", {"a": keys[0], "b": keys[1], "prompt": prompt}), 303)


async def _refused(respond: Any, request: Request, fault: HeadwaterError) -> Response:
    def fail(*_: Any) -> View:
        raise fault

    found: Response = await respond(request, fail, "")
    return found


def queued(site: AppSite, key: str, given: Mapping[str, list[str]]) -> str:
    """Queue a question, and return the address of its page: the job's, or that of the trace if it is known already."""
    item, index = site.index(key)
    question = asking.question_of(key, given)
    kept = site.jobs.traced(question.name)
    if kept is not None and kept.version == index.dataset.version:
        return address(f"/i/{key}/trace", asking.parameters_of(kept.question))
    return f"/jobs/{site.jobs.add(question, item).id}"


def _job_of(site: AppSite, job_id: str) -> ModelJob:
    job = site.jobs.get(job_id)
    if job is None:
        raise MissingError("this question is not known any more", remedy="ask it again")
    return job


async def _job(site: AppSite, respond: Any, request: Request) -> Response:
    job = site.jobs.get(request.path_params["id"])
    if job is not None and job.traced is not None:
        place = address(f"/i/{job.item.key}/trace", asking.parameters_of(job.traced.question))
        return RedirectResponse(place, 303)
    found: Response = await respond(request, lambda *_: asking.job(site, _job_of(site, request.path_params["id"])), "")
    return found


async def _events(site: AppSite, request: Request) -> Response:
    """What a job tells, as server-sent events, until it ends."""
    job = site.jobs.get(request.path_params["id"])
    if job is None:
        return JSONResponse({"error": "this question is not known any more"}, 404)

    async def told() -> AsyncIterator[str]:
        last = None
        while True:
            now = job.told() | {"ahead": site.jobs.ahead(job)}
            if now != last:
                yield f"data: {JSONResponse(now).body.decode()}\n\n"  # type: ignore[union-attr]
                last = now
            if now["state"] in FINAL:
                return
            await asyncio.sleep(TICK)

    return StreamingResponse(told(), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def _cancel(site: AppSite, request: Request) -> Response:
    job = site.jobs.get(request.path_params["id"])
    if job is not None:
        site.jobs.cancel(job)
        await ended(job, 10)
    return RedirectResponse(f"/jobs/{request.path_params['id']}", 303)


__all__ = ["HEADERS", "POLICY", "VIEWS", "failed", "make_app", "queued"]
