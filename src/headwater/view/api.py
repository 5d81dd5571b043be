"""The API for programs: `POST /api/trace`, `POST /api/score`, `GET /api/rows`, jobs; and its OpenAPI description."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headwater import __version__
from headwater.core.errors import HeadwaterError, UsageError
from headwater.index.store import quoted
from headwater.view import asking, browse
from headwater.view.filters import checked
from headwater.view.jobs import Inquiry, ModelJob, ended
from headwater.view.shelf import nameless
from headwater.view.site import AppSite, MissingError, View

MOST_SECONDS, SECONDS = 600.0, 60.0
"""The longest a request may wait for a trace, and how long it does if it does not say."""
MOST_IDS = 200

_FIELDS: dict[str, tuple[type, ...]] = {
    "index": (str,),
    "prompt": (str,),
    "messages": (list,),
    "response": (str,),
    "span": (str, list),
    "by": (str,),
    "where": (str,),
    "lowest": (bool,),
    "top": (int,),
    "max_new_tokens": (int,),
    "wait": (int, float),
    "ids": (list,),
}


def api_routes(site: AppSite, respond: Any) -> list[Route]:
    """The routes of the API."""

    async def rows(request: Request) -> Response:
        key = request.query_params.get("index", "")
        found: Response = await respond(request, lambda s, at, given: browse.rows(s, key, given), ".json")
        return found

    async def openapi(request: Request) -> Response:
        return JSONResponse(openapi_document())

    return [
        Route("/openapi.json", openapi),
        Route("/api/rows", rows),
        Route("/api/trace", partial(_traced, site), methods=["POST"]),
        Route("/api/score", partial(_scored, site), methods=["POST"]),
        Route("/api/jobs/{id}", partial(_job, site)),
        Route("/api/jobs/{id}/cancel", partial(_cancel, site), methods=["POST"]),
    ]


async def _traced(site: AppSite, request: Request) -> Response:
    try:
        given = await _body(request)
        question = question_from(given)
        return await _waited(site, question, _seconds(given), asking.trace_json)
    except HeadwaterError as error:
        return _error(error)


async def _scored(site: AppSite, request: Request) -> Response:
    """Scores of named rows: a trace among these rows alone."""
    try:
        given = await _body(request)
        ids = given.pop("ids", None)
        if not isinstance(ids, list) or not ids or len(ids) > MOST_IDS or not all(isinstance(i, str) for i in ids):
            raise UsageError("'ids' is not a list of rows", where="ids", remedy=f"1 to {MOST_IDS} ids of rows")
        only = f"id IN ({', '.join(map(quoted, ids))})"
        question = replace(question_from(given), where=only, top=len(set(ids)))

        def told(kept: Any) -> dict[str, Any]:
            whole = asking.trace_json(kept)
            scores = {hit["id"]: hit["score"] for hit in whole["hits"]}
            named = {name: whole[name] for name in ("index", "version", "prompt", "response", "spans", "by", "seconds")}
            return {**named, "scores": {i: scores.get(i) for i in ids}, "about": whole["about"]}

        return await _waited(site, question, _seconds(given), told)
    except HeadwaterError as error:
        return _error(error)


async def _waited(site: AppSite, question: Inquiry, seconds: float, tell: Any) -> Response:
    """The finished trace; or, if it takes longer, the job (status 202)."""
    item, index = await anyio.to_thread.run_sync(partial(site.index, question.index))
    kept = site.jobs.traced(question.name)
    if kept is None or kept.version != index.dataset.version:
        job = site.jobs.add(question, item)
        if not await ended(job, seconds):
            return JSONResponse({"job": job.told(), "at": f"/api/jobs/{job.id}"}, 202)
        if job.traced is None:
            return JSONResponse({"error": job.error or job.state, "job": job.told()}, 422)
        kept = job.traced
    return JSONResponse(await anyio.to_thread.run_sync(partial(tell, kept)))


async def _job(site: AppSite, request: Request) -> Response:
    job = site.jobs.get(request.path_params["id"])
    if job is None:
        return _error(MissingError("this question is not known any more", remedy="ask it again"))
    return JSONResponse(_job_json(job))


def _job_json(job: ModelJob) -> dict[str, Any]:
    result = asking.trace_json(job.traced) if job.traced else None
    return {"job": job.told(), "trace": result}


async def _cancel(site: AppSite, request: Request) -> Response:
    job = site.jobs.get(request.path_params["id"])
    if job is None:
        return _error(MissingError("this question is not known any more", remedy="ask it again"))
    site.jobs.cancel(job)
    await ended(job, 10)
    return JSONResponse({"job": job.told()})


async def _body(request: Request) -> dict[str, Any]:
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise UsageError("the body is not JSON", where="content-type", remedy="send application/json")
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise UsageError("the body is not JSON", where="body", remedy="send one JSON object") from None
    if not isinstance(given, dict):
        raise UsageError("the body is not an object", where="body", remedy='{"index": …, "prompt": …}')
    for name, value in given.items():
        if name not in _FIELDS:
            raise UsageError(f"unknown field '{name[:60]}'", where="body", remedy=f"known: {', '.join(_FIELDS)}")
        if value is not None and (
            not isinstance(value, _FIELDS[name]) or (value is True and bool not in _FIELDS[name])
        ):
            raise UsageError(f"'{name}' has the wrong type", where="body", remedy="see /api")
    return {name: value for name, value in given.items() if value is not None}


def question_from(given: Mapping[str, Any]) -> Inquiry:
    """The question of a JSON body.

    Raises:
        UsageError: no prompt, or both a prompt and messages.
    """
    if ("prompt" in given) == ("messages" in given):
        raise UsageError("give a prompt or messages", where="body", remedy='{"index": …, "prompt": …}')
    prompt = given.get("prompt") or asking.messages_of(given.get("messages"))
    span = given.get("span", ())
    spans: Sequence[Any] = (span,) if isinstance(span, str) else span
    if not all(isinstance(one, str) for one in spans):
        raise UsageError("'span' is not words", where="span", remedy="a text, or a list of texts")
    plain = {name: given[name] for name in ("response", "by", "lowest", "top", "max_new_tokens") if name in given}
    where = checked(given.get("where", ""))
    return Inquiry(str(given.get("index", "")), prompt, spans=tuple(spans), where=where, **plain)


def _seconds(given: Mapping[str, Any]) -> float:
    return float(min(max(given.get("wait", SECONDS), 0.0), MOST_SECONDS))


def _error(error: HeadwaterError) -> Response:
    status = 404 if isinstance(error, MissingError) else 400 if isinstance(error, UsageError) else 422
    said = {"error": nameless(error.what), "where": nameless(error.where), "remedy": nameless(error.remedy)}
    return JSONResponse(said, status)


def openapi_view() -> View:
    """The description of the API as a page."""
    document = openapi_document()
    calls = [
        {"path": path, "verb": verb.upper(), **about}
        for path, verbs in document["paths"].items()
        for verb, about in verbs.items()
    ]
    table = [{"path": c["path"], "verb": c["verb"], "summary": c["summary"]} for c in calls]
    return View("api.html.j2", "The API", document, table, {"calls": calls})


_TEXT, _WHOLE = {"type": "string"}, {"type": "integer", "minimum": 1}
_ASKED = {
    "index": {**_TEXT, "description": "the index's key, as on the start page"},
    "prompt": {**_TEXT, "description": "what the model is asked"},
    "messages": {"type": "array", "items": {"type": "object"}, "description": "a chat instead of a prompt"},
    "response": {**_TEXT, "description": "what it answered; without it, the model is asked"},
    "span": {"type": "array", "items": _TEXT, "description": "words of the answer to trace alone"},
    "by": {**_TEXT, "description": "a vector column, bm25, or empty for the method's own score"},
    "max_new_tokens": {**_WHOLE, "maximum": 1024, "description": "most tokens of the answer"},
    "wait": {
        "type": "number",
        "maximum": MOST_SECONDS,
        "description": "seconds to wait; after them, a job is answered",
    },
}
_TRACE = {
    **_ASKED,
    "where": {**_TEXT, "description": "SQL condition on the rows, which can only read"},
    "lowest": {"type": "boolean", "description": "the lowest scores instead of the highest"},
    "top": {**_WHOLE, "maximum": 200, "description": "hits"},
}
_SCORE = {**_ASKED, "ids": {"type": "array", "items": _TEXT, "maxItems": MOST_IDS, "description": "ids of rows"}}

_GETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "/home.json": ("Everything that was found under the given paths, and what has been traced.", ()),
    "/api/rows": (
        "A page of an index's rows; every metadata column of few values is a parameter too. Also /i/KEY.json, .csv.",
        ("index", "q", "where", "sort", "down", "page", "size"),
    ),
    "/i/{key}/row.json": ("One row: its text, tokens, loss, values, prices, and the traces that found it.", ("id",)),
    "/i/{key}/near.json": (
        "Rows whose stored vectors resemble a row's, by influence or a vector column.",
        ("id", "by"),
    ),
    "/i/{key}/trace.json": (
        "A trace that was made since the app started, by its question.",
        ("prompt", "messages", "response", "span", "by", "where", "lowest", "top"),
    ),
    "/t/{key}.json": ("A file of hits.", ()),
    "/v/{key}.json": ("Values: distribution, groups, both ends.", ("by",)),
    "/l/{key}.json": ("A ledger, or prices of rows.", ()),
    "/u/{key}.json": ("An unlearning run, before and after.", ()),
    "/e/{key}.json": ("An evaluation.", ()),
    "/by.json": (
        "A column's values, each with its rows, mean value, payment and hits; or all that is known of one.",
        ("column", "value"),
    ),
    "/compare.json": ("Two things of one kind, side by side.", ("a", "b")),
    "/api/jobs/{id}": ("A question on its way: its state, the answer so far, and the trace once it is done.", ()),
}


def openapi_document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, Any] = {}
    for path, (summary, names) in _GETS.items():
        inside = [n.strip("{}") for n in path.replace(".json", "").split("/") if n.startswith("{")]
        parameters = [{"name": n, "in": "path", "required": True, "schema": _TEXT} for n in inside]
        parameters += [{"name": n, "in": "query", "schema": _TEXT} for n in names]
        paths[path] = {"get": {"summary": summary, "parameters": parameters, "responses": _answers()}}
    paths["/api/trace"] = {"post": _posted("Trace an answer to the rows that taught it.", _TRACE)}
    paths["/api/score"] = {"post": _posted("The scores of rows that you name, for an answer.", _SCORE)}
    paths["/api/jobs/{id}/cancel"] = {
        "post": {
            "summary": "End a question: at its next token, or block of rows.",
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": _TEXT}],
            "responses": _answers(),
        }
    }
    info = {"title": "headwater view", "version": __version__, "description": "Every view of the app, as data."}
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def _posted(summary: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": dict(fields), "additionalProperties": False}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    waits = {"202": {"description": "it takes longer: a job to ask for"}}
    return {"summary": summary, "requestBody": body, "responses": _answers() | waits}


def _answers() -> dict[str, Any]:
    said = {"error": _TEXT, "where": _TEXT, "remedy": _TEXT}
    schema = {"type": "object", "properties": said}
    wrong = {"description": "what is wrong, and what to do", "content": {"application/json": {"schema": schema}}}
    return {"200": {"description": "as the page of the same address shows"}, "400": wrong, "404": wrong, "422": wrong}
