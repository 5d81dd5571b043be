"""Every view as a page, as JSON and as CSV: it says what the files say, and no text of theirs becomes markup."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from view_runs import ANSWER, EVIL, QUESTION, ROWS, running, runs, web  # noqa: F401 - fixtures

import headwater as hw
from headwater.core.errors import ModelError, StoreError, UsageError
from headwater.index.store import open_index
from headwater.search.codes import read_vectors
from headwater.view import serve
from headwater.view.api import openapi_document
from headwater.view.bundle import write_bundle
from headwater.view.client import Client
from headwater.view.filters import checked
from headwater.view.shelf import Shelf, nameless
from headwater.view.site import AppSite
from headwater.view.snapshots import Snapshots

PLACES = {
    "home": "/home",
    "rows": "/i/rows",
    "row": "/i/rows/row?id=row003",
    "hostile row": "/i/rows/row?" + urlencode({"id": EVIL}),
    "near": "/i/rows/near?id=row003&by=embedding",
    "ask": "/i/rows/ask",
    "untraced": "/i/rows/trace?prompt=nobody+asked",
    "hits": "/t/hits",
    "hostile file": "/t/hits-of-b-file-quote",
    "values": "/v/values",
    "ledger": "/l/ledger",
    "prices": "/l/paid",
    "unlearning": "/u/unlearn",
    "evaluation": "/e/detection",
    "providers": "/by?column=provider",
    "a provider": "/by?column=provider&value=harbour",
    "a hostile provider": "/by?" + urlencode({"column": "provider", "value": EVIL}),
    "rows without a provider": "/by?column=provider&value=(none)",
    "a topic": "/by?" + urlencode({"column": "topic", "value": "القمر"}),
    "the choice": "/compare",
    "two indices": "/compare?a=rows&b=other",
    "two traces": "/compare?a=hits&b=hits-of-b-file-quote",
    "two values": "/compare?a=values&b=values2",
    "two unlearning runs": "/compare?a=unlearn&b=unlearn2",
    "two evaluations": "/compare?a=detection&b=detection2",
    "api": "/api",
}


class Tags(HTMLParser):
    """The tags of a page, and its attributes that run script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [
            n for n, v in attrs if n.startswith("on") or n == "style" or (v or "").startswith("javascript:")
        ]


def as_format(place: str, suffix: str) -> str:
    path, _, query = place.partition("?")
    return f"{path}{suffix}" + (f"?{query}" if query else "")


@pytest.mark.parametrize("name", PLACES)
def test_a_view_is_a_page_json_and_csv(name: str, web: httpx.Client, runs: Path) -> None:
    page, data, table = (web.get(as_format(PLACES[name], suffix)) for suffix in ("", ".json", ".csv"))
    for found in (page, data, table):
        assert found.status_code == 200, found.text[:500]
        assert str(runs.parent) not in found.text
        assert "secret-place" not in found.text
    tags = Tags(page.text)
    assert tags.handlers == []
    assert tags.tags.count("script") == 2, "htmx and the app's own"
    assert tags.tags.count("h1") == 1
    assert "img" not in tags.tags
    assert isinstance(data.json(), dict)
    assert list(csv.reader(io.StringIO(table.text)))


def test_the_home_page_lists_everything_and_nothing_that_leads_out(web: httpx.Client) -> None:
    items = {item["title"]: item["kind"] for item in web.get("/home.json").json()["items"]}
    assert items == {
        "runs/rows.lance": "index",
        "runs/other.lance": "index",
        "runs/hits.jsonl": "trace",
        "runs/hits of <b>file & 'quote'.jsonl": "trace",
        "runs/values.parquet": "values",
        "runs/values2.parquet": "values",
        "runs/ledger.csv": "ledger",
        "runs/paid.csv": "prices",
        "runs/unlearn.json": "unlearning",
        "runs/unlearn2.json": "unlearning",
        "runs/detection.json": "evaluation",
        "runs/detection2.json": "evaluation",
        "runs/report.html": "report",
    }


def rows_of(web: httpx.Client, **asked: Any) -> list[str]:
    found = web.get("/api/rows", params={"index": "rows", "size": 200, **asked}).json()
    assert found["total"] == len(found["rows"])
    return [row["id"] for row in found["rows"]]


def test_rows_are_searched_filtered_and_sorted(web: httpx.Client) -> None:
    def ids(keep: Any) -> list[str]:
        return [row["id"] for row in ROWS if keep(row)]

    assert rows_of(web) == ids(lambda row: True)
    assert rows_of(web, topic="bees") == ids(lambda row: row.get("topic") == "bees")
    assert rows_of(web, topic=["bees", "القمر"]) == ids(lambda row: row.get("topic") in ("bees", "القمر"))
    assert rows_of(web, topic="") == ids(lambda row: row.get("topic") is None)
    assert rows_of(web, topic=EVIL) == [EVIL]
    assert rows_of(web, odd="true", grade="3") == ids(lambda row: row.get("odd") and row["grade"] == 3)
    assert rows_of(web, q="FACT bees few") == ids(lambda r: all(w in str(r).lower() for w in ("fact", "bees", "few")))
    assert rows_of(web, where="grade > 2 AND NOT odd") == ids(lambda row: row["grade"] > 2 and row.get("odd") is False)
    assert rows_of(web, sort="grade", down=1) == [
        row["id"] for row in sorted(ROWS, key=lambda row: -row["grade"])
    ] or sorted(rows_of(web, sort="grade", down=1)) == sorted(ids(lambda row: True))
    losses = [row["loss"] for row in web.get("/i/rows.json?sort=loss&down=1&size=60").json()["rows"]]
    assert losses == sorted(losses, reverse=True)
    pages = [web.get(f"/i/rows.json?size=25&page={n}").json()["rows"] for n in (1, 2, 3, 4)]
    assert [row["id"] for page in pages for row in page] == ids(lambda row: True)
    facets = web.get("/i/rows.json?topic=bees").json()["facets"]
    assert dict(facets["topic"]) == {"bees": 15}
    assert sum(count for _, count in facets["grade"]) == 15


def test_a_row_knows_its_worth_and_what_it_drove(web: httpx.Client) -> None:
    found = web.get("/i/rows/row.json?id=row003").json()
    assert found["row"]["response"] == ROWS[3]["response"]
    assert found["stored"]["tokens"] > 5
    assert {v["key"]: round(v["value"], 3) for v in found["values"]} == {"values": 0.27, "values2": -0.27}
    assert [(p["amount"], p["provider"]) for p in found["prices"]] == [("0.45", "harbour")]
    assert [(d["key"], d["rank"]) for d in found["drove"]] == [("hits", 4)]
    assert web.get("/i/rows/row?id=nobody").status_code == 404


def test_neighbours_are_the_highest_products_of_stored_vectors(web: httpx.Client, runs: Path) -> None:
    index = open_index(runs / "rows.lance")
    addresses = [a for batch in index.batches(["id"]) for a in batch.column("_rowaddr").to_pylist()]
    for by, column in (("embedding", "embedding"), ("influence", "rise")):
        vectors = read_vectors(index, addresses, [column])[column].float()
        scores = (vectors @ vectors[3]).tolist()
        best = sorted((i for i in range(len(ROWS)) if i != 3), key=lambda i: -scores[i])[:12]
        found = web.get(f"/i/rows/near.json?id=row003&by={by}").json()["rows"]
        assert [hit["score"] for hit in found] == pytest.approx([scores[i] for i in best], abs=2e-3)


def test_values_and_comparisons_say_what_the_files_say(web: httpx.Client) -> None:
    values = web.get("/v/values.json").json()
    assert values["summary"]["rows"] == 60
    assert values["best"][0]["id"] == "row000"
    assert values["worst"][0]["id"] == ROWS[-1]["id"]
    two = web.get("/compare.json?a=hits&b=hits-of-b-file-quote").json()["tables"]
    assert two[0]["title"] == "q1: 0 of 8 rows in both"
    assert web.get("/compare?a=hits&b=values").status_code == 400


def test_a_provider_has_a_page_of_its_rows_their_worth_and_its_payment(web: httpx.Client) -> None:
    found = web.get("/by.json?column=provider&value=harbour").json()
    assert [(i["key"], i["rows"], i["of"]) for i in found["indices"]] == [("other", 30, 30), ("rows", 40, 60)]
    assert dict(found["indices"][1]["others"]["topic"]) == {"tides": 10, "bees": 10, "القمر": 10, "天文学": 10}
    own = [0.3 - n / 100 for n in range(40)]
    worth = found["worth"][0]
    assert worth["summary"]["mean"] == pytest.approx(sum(own) / 40)
    assert worth["mean of all"] == pytest.approx(sum(0.3 - n / 100 for n in range(60)) / 60)
    assert [row["id"] for row in worth["best"]] == [f"row{n:03}" for n in range(8)]
    assert worth["best"][3]["text"] == f"{ROWS[3]['prompt']} → {ROWS[3]['response']}"
    assert [row["id"] for row in worth["worst"]] == [f"row{n:03}" for n in range(39, 31, -1)]
    assert found["ledgers"][0]["amount"] == "9.00"
    assert [(p["amount"], p["best"][0]["id"]) for p in found["prices"]] == [(0.45, "row003")]
    assert [(d["found"], d["of"]) for d in found["drove"]] == [(4, 4), (4, 4)]
    every = {line["provider"]: line for line in web.get("/by.json?column=provider").json()["groups"]}
    assert {name: line["rows in runs/rows.lance"] for name, line in every.items()} == {"harbour": 40, EVIL: 19, "": 1}
    assert (every["harbour"]["paid"], every["harbour"]["found by traces"]) == (9.0, 8)


def test_a_column_that_a_values_file_lacks_is_joined_by_the_rows(web: httpx.Client) -> None:
    found = web.get("/by.json", params={"column": "topic", "value": "bees"}).json()
    own = [0.3 - n / 100 for n, row in enumerate(ROWS) if row.get("topic") == "bees"]
    assert found["worth"][0]["summary"]["rows"] == len(own)
    assert found["worth"][0]["summary"]["mean"] == pytest.approx(sum(own) / len(own))
    assert web.get("/by?column=grade&value=3").status_code == 200
    for column, value, status in (
        ("topic", "nobody", 404),
        ("nobody", None, 404),
        ("", None, 400),
        ("grade", "x", 404),
    ):
        asked = {"column": column} | ({"value": value} if value else {})
        assert (column, web.get("/by", params=asked).status_code) == (column, status)


def test_two_indices_are_compared_row_by_row(web: httpx.Client) -> None:
    tables = {t["title"]: t for t in web.get("/compare.json?a=rows&b=other").json()["tables"]}
    counts = {line[0]: line[1:] for line in tables["Their rows"]["rows"]}
    assert counts["rows"] == [60, 30]
    assert counts["rows in both, by their id"] == [30, 30]
    assert counts["rows in this one alone"] == [30, 0]
    assert counts["rows in both whose text, or its tokens, differ"] == [0, 0]
    assert "Rows whose loss differs most" not in tables, "one model has read both"
    assert ["rows", "60", "30"] in [[str(cell) for cell in line] for line in tables["What differs"]["rows"]]


def test_two_traces_of_the_app_are_compared(web: httpx.Client) -> None:
    asked = {"index": "rows", "prompt": QUESTION, "response": ANSWER, "top": 5}
    names = [web.post("/api/trace", json=asked | {"by": by}).json()["name"] for by in ("", "embedding")]
    found = web.get("/compare.json", params={"a": names[0], "b": names[1]}).json()["tables"][0]
    for side, by in ((2, ""), (4, "embedding")):
        hits = web.post("/api/trace", json=asked | {"by": by}).json()["hits"]
        ranks = {line[0]: line[side] for line in found["rows"] if line[side]}
        assert ranks == {hit["id"]: hit["rank"] for hit in hits}
    assert names[0] in web.get("/compare").text


def test_each_page_is_of_one_version(tmp_path: Path, runs: Path) -> None:
    import shutil

    shutil.copytree(runs / "other.lance", tmp_path / "grows.lance")
    site = AppSite.of(Shelf([tmp_path / "grows.lance"]), allowed=False)
    item, before = site.index("grows")
    hw.delete(open_index(tmp_path / "grows.lance"), where="id = 'row001'")
    assert (before.count, Snapshots().of(item).count) == (30, 29)
    _, after = site.index("grows")
    assert (before.count, after.count) == (30, 29)
    assert before.dataset.version < after.dataset.version


def test_errors_are_pages_that_say_what_to_do(web: httpx.Client) -> None:
    for place, status in {
        "/nowhere": 404,
        "/i/nothing": 404,
        "/i/rows?page=0": 400,
        "/i/rows?size=999": 400,
        "/i/rows?nobody=1": 400,
        "/i/rows?sort=nobody": 400,
        "/i/rows?where=nobody+%3D+1": 422,
        "/i/rows/near?id=row003&by=x": 400,
    }.items():
        found = web.get(place)
        assert (place, found.status_code) == (place, status)
        assert 'role="alert"' in found.text
        assert "Traceback" not in found.text


def test_openapi_names_the_views_there_are(web: httpx.Client) -> None:
    document = web.get("/openapi.json").json()
    assert document == json.loads(json.dumps(openapi_document()))
    keys = {"/i/": "rows", "/t/": "hits", "/v/": "values", "/l/": "ledger", "/u/": "unlearn", "/e/": "detection"}
    for path, verbs in document["paths"].items():
        if "get" in verbs and "{id}" not in path:
            place = path.replace("{key}", keys.get(path[:3], ""))
            asked = {"id": "row003", "index": "rows", "by": "embedding", "prompt": "x", "column": "topic"}
            names = [p["name"] for p in verbs["get"]["parameters"] if p["in"] == "query"]
            by = {} if "/v/" in path else {"by": "embedding"}
            given = {n: v for n, v in (asked | by).items() if n in names and (n != "by" or by)}
            assert web.get(place, params=given).status_code == 200, path


def test_an_answer_is_sent_at_once(running: Any) -> None:
    """Without TCP_NODELAY, every answer on a connection in use waits 40 ms for the other side."""
    seconds = []
    with httpx.Client(base_url=running.url) as client:
        for _ in range(40):
            start = time.perf_counter()
            client.get("/openapi.json")
            seconds.append(time.perf_counter() - start)
    assert min(seconds[20:]) < 0.03


def test_the_client_needs_httpx_alone(running: Any) -> None:
    import subprocess
    import sys

    code = "import sys, headwater.view.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"torch", "starlette", "uvicorn", "lance"} & {name.split(".")[0] for name in done.stdout.split()}
    client = Client(running.url)
    assert [row["id"] for row in client.every_row("rows", size=25)] == [row["id"] for row in ROWS]
    assert client.row("rows", "row003")["row"]["topic"] == ROWS[3]["topic"]


def test_rows_can_be_read_before_the_libraries_that_read_models_are_loaded() -> None:
    import subprocess
    import sys

    code = "import sys, headwater.view.app, headwater.cli.view; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"torch", "transformers", "scipy", "matplotlib"} & set(done.stdout.split())


def test_a_bundle_has_the_pages_and_no_dead_link(tmp_path: Path, runs: Path) -> None:
    made = write_bundle(tmp_path / "out", [runs], rows=10)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    pages = [name for name in names if name.endswith(".html")]
    assert made["pages"] + 1 == len(pages), "the report is copied as it is"
    for name in pages:
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "secret-place" not in text
        assert name == "r-report.html" or Tags(text).tags.count("script") == 0
        for link in re.findall(r'href="([^"#]+)"', text) if name != "r-report.html" else []:
            assert link == "data:," or (tmp_path / "out" / link).exists(), (name, link)
    assert json.loads((tmp_path / "out" / "i-rows.json").read_text(encoding="utf-8"))["total"] == 60
    with pytest.raises(StoreError, match="already"):
        write_bundle(tmp_path / "out", [runs])


def test_a_trace_shows_itself_in_a_notebook_and_in_the_app(runs: Path) -> None:
    found = hw.trace_words(runs / "rows.lance", QUESTION, ANSWER, top=3)
    frame = found._repr_html_()
    assert frame.startswith("<iframe")
    assert Tags(frame).tags == ["iframe"]
    with hw.view(found, browser=False) as shown:
        page = httpx.get(shown.url)
        assert page.status_code == 200
        assert found.queries[0].hits[0].id in page.text
    import headwater.view

    assert hw.view is headwater.view or callable(headwater.view)


def test_words_that_every_row_has_are_named_last(runs: Path) -> None:
    session = hw.open_session(runs / "rows.lance")
    found = hw.trace(session, prompt=QUESTION, response=ANSWER, top=20, tokens=True)
    assert found.rarity["is"] < found.rarity["known"]
    assert found.rarity["few"] == pytest.approx(found.rarity["known"])


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(serve, "NEEDED", ("starlette", "nobody_has_this"))
    with pytest.raises(ModelError, match=r"nobody_has_this.*pip install 'headwater\[view\]'"):
        serve.open_site([tmp_path])
    with pytest.raises(StoreError, match="nothing here"):
        Shelf([tmp_path / "nowhere"])


def test_the_command_takes_paths_and_says_in_one_line_what_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headwater.cli.main import run

    asked: list[Any] = []
    monkeypatch.setattr(serve, "serve", lambda shown, **how: asked.append((shown, how["host"], how["allowed"])))
    for words in (["view", "a", "b", "--no-model"], ["view", "open", "a", "b", "--no-model"]):
        with pytest.raises(SystemExit):
            run(words)
    assert asked == [(["a", "b"], "127.0.0.1", False)] * 2
    with pytest.raises(SystemExit) as ended:
        run(["view", "bundle", str(tmp_path / "out"), str(tmp_path / "nowhere")])
    assert ended.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("/home/me/runs/a.lance: no row", "a.lance: no row"),
        ("the model '/data/m x/model' is not", "the model 'model' is not"),
        ("and/or 3/4 a http://x/y", "and/or 3/4 a http://x/y"),
        ("C:\\Users\\me\\model is", "model is"),
    ],
)
def test_paths_are_shortened_to_their_names(said: str, shown: str) -> None:
    assert nameless(said) == shown


@pytest.mark.parametrize(
    "condition",
    ["repeat('x', 1000000000) = 'y'", "1 = 1; DROP TABLE rows", "a = 1 -- b", "(" * 30 + "1" + ")" * 30, "a" * 3000,
     "exists(SELECT 1)", "pg_sleep(9) = 1", "array_repeat(1, 99999999)[0] = 1"],
)  # fmt: skip
def test_conditions_are_bounded(condition: str) -> None:
    with pytest.raises(UsageError):
        checked(condition)
    assert checked(" lower(topic) = 'a;--/*(' AND (grade IN (1, 2)) ")
