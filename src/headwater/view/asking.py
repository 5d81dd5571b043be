"""Views of a question: the form, the job on its way, the finished trace, and its methods side by side."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from headwater.core.errors import UsageError
from headwater.core.plain import json_ready, plain_json
from headwater.core.trace import Hit, QueryTrace, Trace
from headwater.index.store import Index, quoted
from headwater.report.colours import STEPS
from headwater.report.detail import details
from headwater.report.fields import Layout
from headwater.report.tables import number_text
from headwater.report.views import QueryView, view_queries
from headwater.valuation.duplicates import clusters
from headwater.view.filters import as_cell, checked, column_name
from headwater.view.jobs import Inquiry, KeptTrace, ModelJob
from headwater.view.known import hits_of
from headwater.view.models import SIDES, ways_of
from headwater.view.shelf import Item
from headwater.view.site import AppSite, View
from headwater.view.spans import passages, words_of

MOST_FACETS, MOST_VALUES = 6, 8


def question_of(index: str, given: Mapping[str, Sequence[str]]) -> Inquiry:
    """The question that the fields of a form or the parameters of an address ask; words are selected by number."""

    def one(name: str) -> str:
        return given[name][-1] if given.get(name) else ""

    response = one("response").replace("\r\n", "\n") or None
    spans = tuple(span for span in given.get("span", ()) if span)
    numbers = [int(number) for number in given.get("word", ()) if number.isdecimal() and len(number) < 6]
    if numbers and response is not None:
        spans = passages(response, numbers)
    prompt: Any = one("prompt").replace("\r\n", "\n")
    if chat := one("messages"):
        prompt = messages_of(chat)
    elif system := one("system").replace("\r\n", "\n"):
        prompt = (_message("system", system), _message("user", prompt))
    if more := one("more").replace("\r\n", "\n"):
        before = (_message("user", prompt),) if isinstance(prompt, str) else prompt
        prompt = (*before, _message("assistant", response or ""), _message("user", more))
        response, spans = None, ()
    top, most = one("top") or "20", one("max_new_tokens") or "128"
    if not top.isdecimal() or not most.isdecimal():
        raise UsageError(f"'{top[:20]}' hits, '{most[:20]}' tokens", where="ask", remedy="give whole numbers")
    return Inquiry(
        index, prompt, response, spans, one("by"), checked(one("where")), one("lowest") in ("1", "true"), int(top),
        int(most),
    )  # fmt: skip


def takes_chats(index: Index) -> bool:
    """Whether the index's template writes chats; one that nobody chose, of a tokenizer without its own, does not."""
    return bool(index.manifest.tokenization.get("template", {}).get("chats", True))


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def messages_of(chat: Any) -> tuple[dict[str, Any], ...]:
    """A chat from JSON text or a list of messages."""
    try:
        raw = json.loads(chat) if isinstance(chat, str) else chat
    except ValueError:
        raise UsageError("the messages are not JSON", where="messages", remedy='[{"role": "user", ...}]') from None
    if not isinstance(raw, list) or not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in raw):
        raise UsageError("not a list of messages", where="messages", remedy='[{"role": "user", "content": "…"}]')
    return tuple(raw)


def parameters_of(question: Inquiry, **changed: Any) -> dict[str, Any]:
    """The parameters of the address that asks this question."""
    return replace(question, **changed).parameters()


def turns_of(question: Inquiry) -> list[tuple[str, str]]:
    """The prompt as people read it: who says what, in order."""
    if isinstance(question.prompt, str):
        return [("question", question.prompt)]
    return [(str(message["role"]), _said(message.get("content"))) for message in question.prompt]


def _said(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=json_ready)


def ask(site: AppSite, key: str, given: Mapping[str, Sequence[str]]) -> View:
    """The form."""
    item, index = site.index(key)
    filled = {name: values[-1] for name, values in given.items() if values}
    data = {"index": key, "ways": list(ways_of(index)), "live": site.live_model}
    shown = {
        "item": item,
        "ways": ways_of(index),
        "filled": filled,
        "live": site.live_model,
        "chats": takes_chats(index),
        "opening": _examples(index),
    }
    return View("ask.html.j2", f"Ask {item.title}", data, [], shown)


def _examples(index: Index) -> list[str]:
    """Up to three prompts of the index, to start with."""
    if "prompt" not in index.plain or not index.count:
        return []
    rows = index.take(sorted({0, index.count // 2, index.count - 1}), ["prompt"]).column("prompt").to_pylist()
    return [text for text in rows if text and len(text) < 120]


def job(site: AppSite, found: ModelJob) -> View:
    """A question on its way."""
    told = found.told() | {"ahead": site.jobs.ahead(found)}
    shown = {"job": found, "item": found.item, "turns": turns_of(found.question), "told": told}
    shown["again"] = found.question.parameters()
    return View("job.html.j2", "Tracing", told, [told], shown)


def traced(site: AppSite, key: str, given: Mapping[str, Sequence[str]]) -> View:
    """A trace by its address; one that is not known any more is offered to be made again."""
    item, index = site.index(key)
    question = question_of(key, given)
    kept = site.jobs.traced(question.name)
    ways = ways_of(index)
    if kept is None:
        data = {"index": key, "trace": None, "error": "this has not been traced since the app started: POST /api/trace"}
        shown = {
            "item": item,
            "question": question,
            "turns": turns_of(question),
            "ways": ways,
            "live": site.live_model,
        }
        shown["fields"] = fields_of(question)
        return View("untraced.html.j2", "Not traced yet", data, [], shown, status=200)
    if question.by == SIDES:
        return sides_view(item, kept, ways)
    return trace_view(item, kept, ways, further=site.live_model and takes_chats(index), live=site.live_model)


def fields_of(question: Inquiry, **changed: Any) -> list[tuple[str, str]]:
    """The hidden fields of a form that asks this question."""
    given = parameters_of(question, **changed).items()
    flat = [(name, one) for name, value in given for one in (value if isinstance(value, list) else [value])]
    return [(name, "1" if one is True else str(one)) for name, one in flat if one not in (None, "", False)]


def trace_json(kept: KeptTrace) -> dict[str, Any]:
    """A finished trace, JSON-ready: the question, the answer, each hit with its row and its token values."""
    question = kept.question
    data = {"index": question.index, "version": kept.version, "name": question.name}
    data |= {"prompt": question.prompt, "response": question.response, "spans": list(question.spans)}
    data |= {"by": question.by, "where": question.where, "lowest": question.lowest, "seconds": round(kept.seconds, 3)}
    (query,) = kept.trace.queries
    data |= {"generated": query.generated, "about": dict(kept.trace.about)}
    return {**plain_json(data), "hits": [_hit_json(hit) for hit in query.hits]}


def _hit_json(hit: Hit) -> dict[str, Any]:
    """A hit as JSON has it. Its token values are many and all numbers, so they do not go through `plain_json`."""
    given = {"row": dict(hit.row), "metadata": dict(hit.metadata), "record": dict(hit.record), "modules": hit.modules}
    maps = {"row_tokens": hit.row_tokens, "query_tokens": hit.query_tokens}
    tokens = {n: m and {"tokens": m.tokens, "values": [_number(v) for v in m.values]} for n, m in maps.items()}
    grid = hit.grid and {
        "row_tokens": hit.grid.row_tokens,
        "query_tokens": hit.grid.query_tokens,
        "values": [[_number(value) for value in line] for line in hit.grid.values],
    }
    return {"rank": hit.rank, "id": hit.id, "score": _number(hit.score), **plain_json(given), **tokens, "grid": grid}


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def trace_view(item: Item, kept: KeptTrace, ways: Mapping[str, str], *, live: bool, further: bool) -> View:
    """The page of a finished trace; `further` says whether the next message of its chat can be asked."""
    question, (query,) = kept.question, kept.trace.queries
    view, detail = _viewed(kept.trace)
    words, rest = words_of(question.response or "", question.spans)
    shown = {
        "item": item,
        "kept": kept,
        "question": question,
        "turns": turns_of(question),
        "trace": kept.trace,
        "view": view[0],
        "has_brief": bool(view[0].row_words or view[0].query_words),
        "groups": _folded(query.hits, [*view[0].hits, *view[0].folded]),
        "words": words,
        "rest": rest,
        "facets": _facets(question, query.hits),
        "ways": ways,
        "steps": range(1, STEPS + 1),
        "detail": detail,
        "parameters": lambda **changed: parameters_of(question, **changed),
        "fields": lambda **changed: fields_of(question, **changed),
        "live": live,
        "further": further,
        "sides": SIDES,
    }
    return View("traced.html.j2", _title(question), trace_json(kept), kept.trace.hits(), shown)


def trace_file(site: AppSite, key: str) -> View:
    """A file of hits."""
    item = site.item(key, "trace")
    trace = hits_of(item)
    views, detail = _viewed(trace)
    shown = {"item": item, "trace": trace, "views": views, "detail": detail, "steps": range(1, STEPS + 1)}
    shown["indices"] = site.shelf.of("index")
    shown["ids"] = [[hit.id for hit in query.hits] for query in trace.queries]
    data = {"name": key, "about": dict(trace.about), "hits": plain_json(trace.hits())}
    return View("tracefile.html.j2", item.title, data, trace.hits(), shown)


def both(site: AppSite, a: str, b: str, prompt: str) -> View:
    """One question to the models of two indices, side by side."""
    sides = []
    for key in (a, b):
        item, _ = site.index(key)
        side: dict[str, Any] = {"key": key, "title": item.title, "trace": None, "error": "", "step": "not asked yet"}
        question = Inquiry(key, prompt)
        if kept := site.jobs.traced(question.name):
            hits = kept.trace.queries[0].hits
            lines = [{"id": h.id, "score": h.score, "text": " → ".join(h.row.values())[:200]} for h in hits[:10]]
            side |= {"trace": kept.question.name, "response": kept.question.response, "hits": lines}
            side["parameters"] = kept.question.parameters()
        elif job := site.jobs.asked(question.name):
            side |= {
                "error": job.error or ("cancelled" if job.state == "cancelled" else ""),
                "step": job.step or job.state,
            }
        sides.append(side)
    waiting = any(not side["trace"] and not side["error"] for side in sides)
    data = {"prompt": prompt, "sides": [{n: v for n, v in side.items() if n != "parameters"} for side in sides]}
    table = [{"index": s["key"], "response": s.get("response"), **h} for s in sides for h in s.get("hits", [])]
    shown = {"a": a, "b": b, "prompt": prompt, "sides": sides, "waiting": waiting}
    return View("both.html.j2", "Two models", data, table, shown)


def _title(question: Inquiry) -> str:
    said = " ".join((question.response or "").split())
    return f"What taught the model: {said[:80]}"


def _viewed(trace: Trace) -> tuple[list[QueryView], Any]:
    detail = next(iter(details(trace)))
    return view_queries(trace, detail, Layout()), detail


def _folded(hits: Sequence[Hit], views: Sequence[Any]) -> list[dict[str, Any]]:
    """The hits, each with those after it that say nearly the same."""
    texts = [(hit.row.get("prompt", ""), hit.row.get("response") or hit.row.get("text", "")) for hit in hits]
    groups: dict[int, dict[str, Any]] = {}
    for hit, view, cluster in zip(hits, views, clusters(texts).tolist() if texts else [], strict=True):
        if cluster in groups:
            groups[cluster]["alike"].append((view, hit.id))
        else:
            groups[cluster] = {"first": (view, hit.id), "alike": []}
    return list(groups.values())


def _facets(question: Inquiry, hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """The metadata of the hits: how many have each value, and the question with only rows that do."""
    found = []
    for name in dict.fromkeys(name for hit in hits for name in hit.metadata):
        values = [hit.metadata.get(name) for hit in hits]
        if not all(isinstance(v, str | bool | int | None) for v in values) or "`" in name:
            continue
        counted = Counter(values)
        if len(counted) > MOST_VALUES * 2 or (len(counted) == len(hits) and len(hits) > 3):
            continue
        lines = [_narrowed(question, name, value, count) for value, count in counted.most_common(MOST_VALUES)]
        found.append({"name": name, "values": lines, "chosen": False})
    return found[:MOST_FACETS]


def _narrowed(question: Inquiry, name: str, value: Any, count: int) -> dict[str, Any]:
    column = column_name(name)
    literal = quoted(value) if isinstance(value, str) else as_cell(value)
    only = f"{column} IS NULL" if value is None else f"{column} = {literal}"
    where = f"({question.where}) AND {only}" if question.where else only
    return {"label": "(none)" if value is None else as_cell(value), "count": count, "where": where}


def sides_view(item: Item, kept: KeptTrace, ways: Mapping[str, str]) -> View:
    """The methods of one index side by side: where influence and likeness disagree."""
    traces = {by: trace.queries[0] for by, trace in kept.others.items()}
    table = _side_by_side(traces)
    question = kept.question
    names = {by: ways.get(by, by or "score") for by in traces}
    data = {"index": item.key, "response": question.response, "methods": names, "rows": plain_json(table)}
    shown = {
        "item": item,
        "question": question,
        "turns": turns_of(question),
        "names": names,
        "lines": table,
        "top": question.top,
        "parameters": lambda **changed: parameters_of(question, **changed),
        "ways": ways,
        "agree": _agreement(traces),
    }
    return View("sides.html.j2", "Methods side by side", data, table, shown)


def _side_by_side(traces: Mapping[str, QueryTrace]) -> list[dict[str, Any]]:
    """One line a row that any method found: its rank in each (None: not among its first), best rank first."""
    lines: dict[str, dict[str, Any]] = {}
    for by, query in traces.items():
        for hit in query.hits:
            text = " ".join(" → ".join(hit.row.values()).split())
            line = lines.setdefault(hit.id, {"id": hit.id, "text": text[:200], **dict.fromkeys(traces)})
            line[by] = hit.rank
    return sorted(lines.values(), key=lambda line: sorted(line[by] or 10**6 for by in traces))


def _agreement(traces: Mapping[str, QueryTrace]) -> list[tuple[str, str, str]]:
    """For each pair of methods, the share of the first's rows that the second found too."""
    ids = {by: {hit.id for hit in query.hits} for by, query in traces.items()}
    pairs = [(a, b) for n, a in enumerate(ids) for b in list(ids)[n + 1 :]]
    return [(a, b, number_text(100 * len(ids[a] & ids[b]) / max(len(ids[a]), 1), digits=3)) for a, b in pairs]
