"""The page in a real browser: everything visible, nothing wider than a phone, no complaint, no script needed.

The page is laid out in sandboxed frames, which run no script, at several widths at once; the test's own outer page
measures them. So these pages are seen as a reader without scripts sees them.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from page_browser import run
from page_reader import parse
from report_sample import howdy_trace
from test_page import HOSTILE, trace_of

from headwater.report import Table, render_trace

pytestmark = pytest.mark.browser

WIDTHS = (400, 1280)
MEASURE = """
addEventListener("load", () => {
  const report = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, root = page.documentElement, view = frame.contentWindow;
    const area = (e) => e.getBoundingClientRect().width * e.getBoundingClientRect().height;
    const seen = (e) => e.checkVisibility() && area(e) > 0;
    const style = (e) => view.getComputedStyle(e);
    const cells = [...page.querySelectorAll(".text .p8, .text .n8, .text .l8")];
    return {
      width: root.clientWidth, scroll: root.scrollWidth,
      queries: [...page.querySelectorAll("section.query h2")].filter(seen).length,
      hits: [...page.querySelectorAll(".hit h4")].filter(seen).length,
      texts: [...page.querySelectorAll("p.text")].filter(seen).map((e) => e.innerText),
      title: page.querySelector("h1").innerText,
      wide: [...page.querySelectorAll("body *:not(.scroll *):not(.unseen)")].filter(
        (e) => seen(e) && e.getBoundingClientRect().right > root.clientWidth + 1).map((e) => e.outerHTML.slice(0, 120)),
      shades: [...new Set(cells.map((e) => style(e).backgroundColor))],
      scripts: page.scripts.length,
    };
  });
  document.body.textContent = JSON.stringify(report);
});
"""


def measure(tmp_path: Path, page: str) -> tuple[list[dict], str]:
    """What the frames report, one a width, and the console."""
    frames = "".join(
        f'<iframe sandbox="allow-same-origin" width="{width}" height="900" style="border:0" '
        f'srcdoc="{html.escape(page)}"></iframe>'
        for width in WIDTHS
    )
    outer = f'<!doctype html><meta charset="utf-8"><script>{MEASURE}</script><body>{frames}</body>'
    dom, console = run(tmp_path, outer, "--dump-dom", "--window-size=1400,1000")
    body = re.search(r"<body>(.*)</body>", dom, re.S)
    assert body, dom[:500]
    lines = console.splitlines()
    blocked = [line for line in lines if "Blocked script execution" in line]
    assert len(blocked) <= len(WIDTHS), "a page has one script, its own"
    return json.loads(html.unescape(body.group(1))), "\n".join(line for line in lines if line not in blocked)


def test_the_measurement_sees_faults(tmp_path: Path) -> None:
    page = render_trace(howdy_trace()).replace("</main>", '<div style="width:2000px">wide</div></main>')
    frames, console = measure(tmp_path, page.replace("</main>", "<img src=http://127.0.0.1:9/x.png></main>"))
    assert "Content Security Policy" in console
    assert all(frame["scroll"] > width and frame["wide"] for frame, width in zip(frames, WIDTHS, strict=True))


def test_everything_is_visible_and_nothing_overflows(tmp_path: Path) -> None:
    table = Table("Results", tuple(f"column {n}" for n in range(12)), (tuple(float(n) for n in range(12)),))
    page = render_trace(howdy_trace(), tables=[table]).replace("<details", "<details open")
    frames, console = measure(tmp_path, page)
    assert console == ""
    for frame, width in zip(frames, WIDTHS, strict=True):
        assert frame["width"] == width
        assert frame["scroll"] == width
        assert frame["wide"] == []
        assert (frame["queries"], frame["hits"], frame["scripts"]) == (2, 16, 1)
        assert len(frame["shades"]) >= 2
        assert any("course for Mars" in text for text in frame["texts"])


def test_hostile_text_neither_runs_nor_overflows(tmp_path: Path) -> None:
    text = " ".join(HOSTILE) + "\x00" + "W" * 2000
    page = render_trace(trace_of(text), title="W" * 300, tables=[Table(text, (text,), ((text,),))])
    frames, console = measure(tmp_path, page)
    assert console == ""
    for frame, width in zip(frames, WIDTHS, strict=True):
        assert frame["scroll"] == width
        assert frame["wide"] == []
        assert frame["hits"] == 4
        assert frame["scripts"] == 1


def test_the_browser_parses_what_was_written(tmp_path: Path) -> None:
    page = render_trace(howdy_trace())
    dom, console = run(tmp_path, page, "--dump-dom")
    assert console == ""
    (finder,) = parse(dom).all("div", "find")
    assert "hidden" in parse(page).all("div", "find")[0].attributes
    assert "hidden" not in finder.attributes, "the page's policy lets its own script run"
    assert [p.text() for p in parse(dom).all("p", "text")] == [p.text() for p in parse(page).all("p", "text")]
    assert len(parse(dom).all("article")) == 16


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_screen_follows_the_readers_theme(tmp_path: Path, scheme: str) -> None:
    from matplotlib.image import imread

    picture = tmp_path / "page.png"
    setting = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    run(tmp_path, render_trace(howdy_trace()), f"--screenshot={picture}", "--window-size=1280,1600", setting)
    pixels = imread(picture)[..., :3]
    assert pixels.shape == (1600, 1280, 3)
    corner = pixels[2, 2].mean()
    assert corner < 0.15 if scheme == "dark" else corner > 0.9
    red, blue = pixels[..., 0], pixels[..., 2]
    assert ((red - blue) > 0.25).mean() > 0.002, "no orange on the page"
