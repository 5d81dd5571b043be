"""A person at the app, in a real headless Chromium: asks, selects words, filters, opens a row, shares, cancels."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chrome import Chrome
from view_runs import ANSWER, EVIL, QUESTION, running, runs, web  # noqa: F401 - fixtures

from chromium import browser
from headwater.view.bundle import write_bundle
from headwater.view.serve import Running

pytestmark = pytest.mark.browser

AXE = Path(__file__).parents[1] / "report" / "axe" / "axe.min.js"
RULES = '{resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}'


@pytest.fixture(scope="module")
def chrome() -> Iterator[Chrome]:
    with Chrome(browser()) as found:
        yield found


@pytest.fixture
def page(chrome: Chrome) -> Iterator[Chrome]:
    """The browser at desk width, in light; a complaint of its console is a failure."""
    chrome.look(1280)
    chrome.complaints.clear()
    yield chrome
    assert [c for c in chrome.complaints if "status of 4" not in c and "/r/report" not in c] == []


def keep_picture(page: Chrome, name: str) -> None:
    """Keep a picture of the page in the folder that HEADWATER_PICTURES names; without it, take none."""
    if named := os.environ.get("HEADWATER_PICTURES"):
        Path(named).mkdir(parents=True, exist_ok=True)
        page.picture(Path(named) / f"{name}.png")


def ask(page: Chrome, app: Running, *, answer: str = ANSWER) -> None:
    page.open(f"{app.url}/i/rows/ask")
    page.click("#prompt")
    page.type(QUESTION)
    page.run("document.querySelector('#response').closest('details').open = true")
    page.click("#response")
    page.type(answer)
    page.press("Enter", modifiers=2)
    page.wait_for("location.pathname.endsWith('/trace') && document.querySelectorAll('.hit').length > 0")


def place(page: Chrome) -> str:
    return str(page.run("decodeURIComponent(location.search.replaceAll('+', ' '))"))


def test_ask_select_words_filter_open_a_row_and_share(page: Chrome, running: Running) -> None:
    ask(page, running)
    keep_picture(page, "trace")
    assert page.run("document.querySelectorAll('.text [class*=p]').length") > 3, "tokens are shaded"
    first = page.run("[...document.querySelectorAll('.word input')].map(box => box.value)")
    assert first == [str(n) for n in range(8)]
    # The keyboard: to the second word, and two more with Shift.
    page.run("document.querySelectorAll('.word input')[1].focus()")
    page.press("ArrowRight", modifiers=8)
    page.press("ArrowRight", modifiers=8)
    assert page.run("[...document.querySelectorAll('.word input:checked')].map(b => b.value)") == ["1", "2", "3"]
    page.press("Enter")
    page.wait_for("location.search.includes('span=') && document.querySelectorAll('.hit').length > 0")
    assert "span=3 of bees" in place(page)
    # The mouse: drag over the last two words.
    page.run("document.querySelectorAll('.word input').forEach(box => { box.checked = false; })")
    spots = page.run(
        "[...document.querySelectorAll('.word')].slice(-2).map(w => w.getBoundingClientRect())"
        ".map(r => [r.x + r.width / 2, r.y + r.height / 2])"
    )
    page.mouse("mousePressed", *spots[0])
    page.mouse("mouseMoved", *spots[1])
    page.mouse("mouseReleased", *spots[1])
    page.click("form.select button.main")
    page.wait_for("location.search.includes('span=to+few') && document.querySelectorAll('.hit').length > 0")
    # A facet narrows the rows down; the address says so.
    page.run("document.querySelectorAll('.facets details').forEach(d => { d.open = true; })")
    page.click(".facets li a")
    page.wait_for("location.search.includes('where=') && document.querySelectorAll('.hit').length > 0")
    shared = page.run("location.href")
    titles = page.run("[...document.querySelectorAll('.hit h4 a')].map(a => a.textContent)")
    page.open(f"{running.url}/")
    page.open(shared)
    assert page.run("[...document.querySelectorAll('.hit h4 a')].map(a => a.textContent)") == titles
    link = "[...document.querySelectorAll('.app-foot a')].find(a => a.textContent === 'JSON').href"
    data = page.run(f"fetch({link}).then(r => r.json())")
    assert [hit["id"] for hit in data["hits"]] == titles
    page.click(".hit h4 a")
    page.wait_for("location.pathname.endsWith('/row')")
    page.click(".doors a")
    page.wait_for("document.querySelectorAll('#near li').length === 12")
    assert page.run("location.pathname").endswith("/row"), "htmx has put the neighbours into the page"


def test_methods_and_ends_are_a_click_away(page: Chrome, running: Running) -> None:
    ask(page, running)
    for label, sign in (("Side by side", "by=*"), ("BM25", "by=bm25"), ("embedding", "by=embedding")):
        page.run(f"[...document.querySelectorAll('.ways a')].find(a => a.textContent.startsWith('{label}')).click()")
        there = f"decodeURIComponent(location.search).includes('{sign}')"
        page.wait_for(f"{there} && document.querySelector('.hit, .sides-table') !== null")
    page.run("[...document.querySelectorAll('.ends a')].find(a => a.textContent === 'Lowest scores').click()")
    page.wait_for("location.search.includes('lowest=1') && document.querySelector('.hit') !== null")


def test_the_answer_streams_and_can_be_cancelled(page: Chrome, running: Running, monkeypatch: Any) -> None:
    import time

    jobs = running.site.jobs
    real = jobs._run

    def slowly(job: Any, tell: Any, hear: Any) -> Any:
        def heard(text: str) -> None:
            hear(text)
            time.sleep(0.05)

        return real(job, tell, heard)

    monkeypatch.setattr(jobs, "_run", slowly)
    page.open(f"{running.url}/i/rows/ask")
    page.click("#prompt")
    page.type("And what else?")
    page.press("Enter", modifiers=2)
    lengths = {page.wait_for("document.querySelector('[data-text]').textContent.length || null")}
    page.wait_for(f"document.querySelector('[data-text]').textContent.length > {max(lengths)}")
    page.click("form[action$=cancel] button")
    page.wait_for("document.querySelector('h1').textContent === 'Cancelled'")


def test_hostile_text_stays_text(page: Chrome, running: Running) -> None:
    for path in (
        "/",
        "/i/rows?page=2",
        "/i/rows?sort=grade&down=1",
        "/t/hits-of-b-file-quote",
        "/u/unlearn",
        "/r/report",
    ):
        page.open(running.url + path)
        assert page.run("document.title") != "owned"
        assert page.run("document.images.length") == 0
    page.open(f"{running.url}/i/rows?topic=" + page.run(f"encodeURIComponent({json.dumps(EVIL)})"))
    assert page.run("document.querySelectorAll('.lines li').length") > 0


def test_compare_is_a_form(page: Chrome, running: Running) -> None:
    page.open(f"{running.url}/compare")
    page.run("document.querySelector('#a').value = 'rows'; document.querySelector('#b').value = 'other'")
    page.click("form button")
    page.wait_for("document.body.innerText.includes('differs')")
    page.click("#prompt")
    page.type(QUESTION)
    page.click("form.ask button")
    page.wait_for("document.querySelectorAll('.lines.near').length === 2")


VIEWS = {
    "home": "/",
    "rows": "/i/rows",
    "row": "/i/rows/row?id=row003",
    "near": "/i/rows/near?id=row003&by=embedding",
    "ask": "/i/rows/ask",
    "not-traced": "/i/rows/trace?prompt=nobody+asked",
    "hits": "/t/hits",
    "values": "/v/values",
    "ledger": "/l/ledger",
    "prices": "/l/paid",
    "unlearning": "/u/unlearn",
    "evaluation": "/e/detection",
    "groups": "/by?column=topic",
    "group": "/by?column=provider&value=harbour",
    "choice": "/compare",
    "two-indices": "/compare?a=rows&b=other",
    "two-traces": "/compare?a=hits&b=hits-of-b-file-quote",
    "two-values": "/compare?a=values&b=values2",
    "api": "/api",
    "nothing": "/nowhere",
}
"""Every kind of page that is not live, and where the tests' runs have one."""


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)], ids=["phone in light", "desk in dark"])
def test_axe_finds_nothing(page: Chrome, running: Running, width: int, dark: bool) -> None:
    """Colours do not depend on the width, nor the layout on the colours, so two of the four are enough."""
    ask(page, running)
    trace = page.run("location.pathname + location.search")
    page.run("[...document.querySelectorAll('.ways a')].find(a => a.textContent === 'Side by side').click()")
    page.wait_for("document.querySelector('.sides-table') !== null")
    live = {"trace": trace, "sides": page.run("location.pathname + location.search")}
    page.look(width, dark=dark)
    page.call("Page.setBypassCSP", enabled=True)
    try:
        for name, path in {**VIEWS, **live}.items():
            page.open(running.url + path)
            page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
            page.run(AXE.read_text(encoding="utf-8") + "; null")
            found = page.run(
                f"axe.run(document, {RULES}).then(r => r.violations.map(v => [v.id, v.nodes[0].html.slice(0, 200)]))"
            )
            assert (path, found) == (path, [])
            assert page.run("document.documentElement.scrollWidth") <= width, path
            keep_picture(page, f"{name}-{width}{'-dark' if dark else ''}")
    finally:
        page.call("Page.setBypassCSP", enabled=False)


@pytest.fixture
def bare(page: Chrome) -> Iterator[Chrome]:
    """The page without scripts; the debugger's own questions are answered nevertheless."""
    page.look(1280, scripts=False)
    yield page
    assert page.run("typeof htmx") == "undefined"
    page.look(1280)


def test_all_that_is_not_live_works_without_javascript(bare: Chrome, running: Running) -> None:
    for name, path in VIEWS.items():
        bare.open(running.url + path)
        assert bare.run("document.querySelector('h1').innerText.length > 0"), name
        assert bare.run("document.querySelector('main').innerText.length > 60"), name
    # Search, a facet, a row and its neighbours are links and forms.
    bare.open(f"{running.url}/i/rows")
    bare.click("#q")
    bare.type("bees known")
    bare.press("Enter")
    lines = "document.querySelectorAll('.lines > li').length"
    bare.wait_for(f"location.search.includes('q=bees') && {lines} === 20")
    bare.open(f"{running.url}/i/rows?topic=bees")
    assert bare.run(lines) == 15
    bare.click(".lines a")
    bare.wait_for("location.pathname.endsWith('/row')")
    bare.click(".doors a")
    bare.wait_for("location.pathname.endsWith('/near') && document.querySelectorAll('#near li').length === 12")


def test_a_question_is_answered_without_javascript(bare: Chrome, running: Running) -> None:
    """The page of a question on its way asks for itself again, and the words are boxes of a form."""
    bare.open(f"{running.url}/i/rows/ask?response=A+fact+of+tides")
    bare.click("#prompt")
    bare.type("What do the tides do?")
    bare.click("form.ask button.main")
    bare.wait_for("location.pathname.endsWith('/trace') && document.querySelector('.hit') !== null")
    bare.click(".word:nth-of-type(2) input")
    bare.click("form.select button.main")
    bare.wait_for("location.search.includes('span=fact') && document.querySelector('.hit') !== null")


def test_a_bundle_opens_from_the_disk(page: Chrome, runs: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "out", [runs], rows=60)
    page.open((tmp_path / "out" / "index.html").as_uri())
    assert page.run("getComputedStyle(document.querySelector('.card')).borderRadius") == "10px", (
        "the style sheet is read"
    )
    keep_picture(page, "bundle")
    page.click(".cards a")
    page.wait_for("document.querySelectorAll('.lines li').length > 0")
    page.click(".lines a")
    page.wait_for("document.querySelector('h1').textContent.includes('row000')")
