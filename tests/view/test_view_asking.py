"""Questions in the app give what the library gives; a job can be watched, cancelled, and fails alone."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from view_runs import ANSWER, QUESTION, ROWS, running, runs, web  # noqa: F401 - fixtures

import headwater as hw
from headwater.core.errors import UsageError
from headwater.data.rows import Row
from headwater.methods.lexical import bm25_scores
from headwater.view.client import Client
from headwater.view.jobs import WAITING, CancelledError, Inquiry, Jobs, KeptTrace, ModelJob
from headwater.view.serve import Running
from headwater.view.shelf import Item
from headwater.view.spans import passages, words_of
from zoo import tiny_loaded

ITEM = Item("index", "x", "x", "x")


@pytest.fixture(scope="module")
def session(runs: Path) -> Any:
    return hw.open_session(runs / "rows.lance")


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"span": "few"},
        {"span": ["Fact", "few"]},
        {"by": "embedding"},
        {"by": "rise+embedding"},
        {"lowest": True},
        {"where": "topic = 'bees'"},
    ],
    ids=str,
)
def test_the_app_traces_as_the_library_does(running: Running, session: Any, asked: dict[str, Any]) -> None:
    found = Client(running.url).trace("rows", QUESTION, response=ANSWER, top=6, **asked)
    right = hw.trace(session, prompt=QUESTION, response=ANSWER, top=6, tokens=True, **asked)
    mine = [(hit["id"], hit["score"]) for hit in found["hits"]]
    assert mine == [(hit.id, pytest.approx(hit.score, rel=1e-5)) for hit in right.queries[0].hits]
    first, hit = found["hits"][0], right.queries[0].hits[0]
    assert first["row_tokens"]["tokens"] == list(hit.row_tokens.tokens)
    mine, theirs = ([v or 0.0 for v in values] for values in (first["row_tokens"]["values"], hit.row_tokens.values))
    assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-7)


def test_shared_words_score_as_bm25_does(running: Running, session: Any) -> None:
    rows = [Row(row["id"], n, prompt=row["prompt"], response=row["response"]) for n, row in enumerate(ROWS)]
    right = dict(
        zip(
            [r.id for r in rows], bm25_scores(rows, [Row("q", 0, prompt="", response=ANSWER)]).values[:, 0], strict=True
        )
    )
    found = Client(running.url).trace("rows", QUESTION, response=ANSWER, by="bm25", top=30)["hits"]
    assert [hit["score"] for hit in found] == pytest.approx([right[hit["id"]] for hit in found], rel=1e-5)
    assert [hit["score"] for hit in found] == pytest.approx(
        sorted(right.values(), reverse=True)[: len(found)], rel=1e-5
    )
    only = Client(running.url).trace("rows", QUESTION, response=ANSWER, by="bm25", where="grade = 2", top=9)["hits"]
    assert {ROWS[int(hit["id"][3:])]["grade"] for hit in only} == {2}


def test_scores_of_named_rows_are_the_traces(running: Running) -> None:
    client = Client(running.url)
    hits = client.trace("rows", QUESTION, response=ANSWER, top=6)["hits"]
    asked = [hits[4]["id"], "nobody", hits[0]["id"]]
    scores = client.score("rows", QUESTION, asked, response=ANSWER)
    assert scores == {
        asked[0]: pytest.approx(hits[4]["score"]),
        "nobody": None,
        asked[2]: pytest.approx(hits[0]["score"]),
    }


def test_an_answer_is_heard_token_by_token_and_traced_as_it_was_written(running: Running, session: Any) -> None:
    heard: list[str] = []
    said = hw.answer(session, QUESTION, max_new_tokens=6, on_text=heard.append)
    assert len(heard) == len(said.ids) == 6
    assert heard[-1] == said.text
    assert said.text == hw.answer(session, QUESTION, max_new_tokens=6).text
    right = hw.trace(session, prompt=QUESTION, max_new_tokens=6, top=3).queries[0]
    kept = hw.trace(session, prompt=QUESTION, response=said, top=3).queries[0]
    assert kept.generated
    assert [(h.id, h.score) for h in kept.hits] == [(h.id, h.score) for h in right.hits]
    found = Client(running.url).trace("rows", QUESTION, max_new_tokens=6, top=3)
    assert found["response"] == said.text
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in right.hits]


def test_a_forms_question_goes_by_its_job_to_its_trace(web: httpx.Client) -> None:
    sent = web.post("/i/rows/ask", data={"prompt": QUESTION, "response": ANSWER, "word": ["1", "2"], "top": "4"})
    assert sent.status_code == 303
    with web.stream("GET", f"{sent.headers['location']}/events") as events:
        told = [json.loads(line[5:]) for line in events.iter_lines() if line.startswith("data:")]
    assert told[-1]["state"] == "done"
    place = web.get(sent.headers["location"])
    assert place.status_code == 303
    found = web.get(place.headers["location"].replace("/trace?", "/trace.json?")).json()
    assert found["spans"] == ["3 of"]
    assert len(found["hits"]) == 4
    page = web.get(place.headers["location"]).text
    assert page.count(" checked>") == 2
    again = web.post("/i/rows/ask", data={"prompt": QUESTION, "response": ANSWER, "word": ["1", "2"], "top": "4"})
    assert again.headers["location"] == place.headers["location"], "known already"


def test_a_chat_is_asked_further_and_shown_turn_by_turn(tmp_path: Path, web: httpx.Client) -> None:
    from headwater.view.serve import open_site

    loaded = tiny_loaded("llama", chat=True)
    loaded.model.save_pretrained(tmp_path / "model")
    loaded.tokenizer.save_pretrained(tmp_path / "model")
    hw.build(tmp_path / "talks.lance", model=str(tmp_path / "model"), data=ROWS[:4], method="rise")
    first = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    with open_site([tmp_path / "talks.lance"]) as app, httpx.Client(base_url=app.url, timeout=60) as talks:

        def asked(**fields: str) -> tuple[dict[str, Any], str]:
            sent = talks.post("/i/talks/ask", data={"top": "3", "max_new_tokens": "4", **fields})
            with talks.stream("GET", f"{sent.headers['location']}/events") as events:
                assert [json.loads(line[5:]) for line in events.iter_lines() if line][-1]["state"] == "done"
            place = talks.get(sent.headers["location"]).headers["location"]
            return talks.get(place.replace("/trace?", "/trace.json?")).json(), talks.get(place).text

        data, page = asked(system="Be brief.", prompt=QUESTION, response=ANSWER)
        assert data["prompt"] == first
        assert '<div class="label"><bdi>system</bdi></div>' in page
        assert "text as the model saw it" not in page, "each turn is found in what the model read"
        data, page = asked(messages=json.dumps(first), response=ANSWER, more="And the tides?")
        said = [{"role": "assistant", "content": ANSWER}, {"role": "user", "content": "And the tides?"}]
        assert data["prompt"] == [*first, *said]
        assert data["generated"]
        assert "user, turn 4" in page
        assert 'name="system"' in talks.get("/i/talks/ask").text
    assert 'name="system"' not in web.get("/i/rows/ask").text, "its tokenizer has no chat template"


def test_all_methods_stand_side_by_side(web: httpx.Client, session: Any) -> None:
    body = {"index": "rows", "prompt": QUESTION, "response": ANSWER, "by": "*", "top": 5}
    assert web.post("/api/trace", json=body).status_code == 200
    query = {"prompt": QUESTION, "response": ANSWER, "by": "*", "top": "5"}
    found = web.get("/i/rows/trace.json", params=query).json()
    assert list(found["methods"]) == ["", "embedding", "rise+embedding", "bm25"]
    ranks = {line["embedding"]: line["id"] for line in found["rows"] if line["embedding"]}
    right = hw.trace(session, prompt=QUESTION, response=ANSWER, by="embedding", top=5).queries[0].hits
    assert [ranks[n] for n in range(1, 6)] == [hit.id for hit in right]


def test_a_question_that_fails_does_not_end_the_app(running: Running) -> None:
    client = Client(running.url)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        client.trace("rows", QUESTION, response=ANSWER, span="nowhere in it")
    assert "nowhere in it" in caught.value.response.json()["error"]
    assert client.trace("rows", QUESTION, response=ANSWER, top=2)["hits"]


def test_without_a_model_words_are_compared_and_the_rest_says_why(runs: Path) -> None:
    from headwater.view.serve import open_site

    with open_site([runs], allowed=False) as app:
        client = Client(app.url)
        assert client.trace("rows", QUESTION, response=ANSWER, by="bm25", top=2)["hits"]
        with pytest.raises(httpx.HTTPStatusError) as caught:
            client.trace("rows", QUESTION, response=ANSWER)
        assert "--no-model" in caught.value.response.json()["error"]


def slow(job: ModelJob, tell: Any, hear: Any) -> KeptTrace:
    """A run that goes on until it is ended."""
    job.state = "answering"
    for number in range(10_000):
        hear(f"word {number}")
        time.sleep(0.002)
    raise AssertionError("nobody ended it")


def wait_for(job: ModelJob, state: str) -> None:
    end = time.monotonic() + 20
    while job.state != state:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_jobs_are_cancelled_while_they_run_and_while_they_wait() -> None:
    jobs = Jobs(slow)
    first, second = (jobs.add(Inquiry("x", text), ITEM) for text in ("one", "two"))
    wait_for(first, "answering")
    assert jobs.ahead(second) == 1
    jobs.cancel(second)
    assert second.state == "cancelled"
    jobs.cancel(first)
    first.ended.result(10)
    assert first.state == "cancelled"
    assert first.text.startswith("word")
    third = jobs.add(Inquiry("x", "three"), ITEM)
    wait_for(third, "answering")
    jobs.cancel(third)


def test_a_trace_is_ended_at_its_next_block(session: Any) -> None:
    def stop(step: str, share: float) -> None:
        if step == "searching the rows" and share > 0:
            raise CancelledError

    with pytest.raises(CancelledError):
        hw.trace(session, prompt=QUESTION, response=ANSWER, on_progress=stop)


def test_an_answers_address_does_not_depend_on_how_long_it_might_have_been() -> None:
    long, short = (Inquiry("x", "why?", "So.", max_new_tokens=most) for most in (128, 4))
    assert long.name == short.name
    assert long.parameters() == short.parameters()
    asked = Inquiry("x", "why?", max_new_tokens=4)
    assert asked.name != Inquiry("x", "why?").name
    assert asked.parameters()["max_new_tokens"] == 4


def test_the_queue_is_bounded() -> None:
    jobs = Jobs(slow)
    added: list[ModelJob] = []

    def fill() -> None:
        for number in range(WAITING + 5):
            added.append(jobs.add(Inquiry("x", f"q{number}"), ITEM))  # noqa: PERF401 - what was added counts

    with pytest.raises(UsageError, match="wait already"):
        fill()
    assert len(added) in (WAITING, WAITING + 1)
    for job in added:
        jobs.cancel(job)
    assert threading.active_count() < 50


def test_selected_words_are_passages() -> None:
    said = "The armada met, above Zephon; 月は青い。"
    words, rest = words_of(said)
    assert "".join(word.lead + word.text for word in words) + rest == said
    assert [word.text for word in words] == ["The", "armada", "met,", "above", "Zephon;", "月", "は", "青", "い", "。"]
    assert passages(said, [1, 2, 4]) == ("armada met", "Zephon")
    assert passages(said, [5, 6, 99, -1]) == ("月は",)
    again, _ = words_of(said, ["armada met", "青"])
    assert [word.text for word in again if word.selected] == ["armada", "met,", "青"]
