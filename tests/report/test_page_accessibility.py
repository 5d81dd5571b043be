"""Every kind of page under axe-core, in light and dark, on a phone and on a desk; and what a reader's hands can reach.

The page runs in frames of an outer page, with axe-core written into it, for which its policy is taken out; that the
policy holds is tested elsewhere.
"""

from __future__ import annotations

import html
import json
import re
from functools import cache
from pathlib import Path

import pytest
from page_browser import run
from page_kinds import KINDS
from report_sample import howdy_trace
from scripts_sample import TEXTS, byte_tokens, scripts_trace

from headwater.report import render_trace
from headwater.report.tokens import drawn_together

pytestmark = pytest.mark.browser

AXE = Path(__file__).parent / "axe" / "axe.min.js"
WIDTHS = (390, 1280)
CHECK = """
addEventListener("load", async () => {
  const rules = { resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] };
  const found = await axe.run(document, rules);
  const root = document.documentElement;
  parent.postMessage({
    width: root.clientWidth, scroll: root.scrollWidth, dark: matchMedia("(prefers-color-scheme: dark)").matches,
    faults: found.violations.map((v) => [v.id, v.impact, v.nodes.length, v.nodes[0].html.slice(0, 200),
      v.nodes[0].any.map((check) => check.message).join("; ")]),
  }, "*");
});
"""
COLLECT = """
const found = [];
addEventListener("message", (event) => {
  found.push(event.data);
  if (found.length === FRAMES) document.body.textContent = JSON.stringify(found);
});
"""


def visit(tmp_path: Path, page: str, script: str, *, widths: tuple[int, ...] = WIDTHS, dark: bool = False) -> list:
    """What the script posts from the page at each width."""
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert bare != page
    assert "</script" not in script
    inside = bare.replace("</body>", f"<script>{script}</script></body>")
    (tmp_path / "inside.html").write_text(inside, encoding="utf-8", errors="replace")
    frames = "".join(f'<iframe src="inside.html" width="{w}" height="900" style="border:0"></iframe>' for w in widths)
    collect = COLLECT.replace("FRAMES", str(len(widths)))
    outer = f'<!doctype html><meta charset="utf-8"><body><script>{collect}</script>{frames}</body>'
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    dom, _ = run(tmp_path, outer, "--dump-dom", "--window-size=1400,1000", "--virtual-time-budget=60000", scheme)
    body = re.search(r"<body>(\[.*\])</body>", dom, re.S)
    assert body, dom[-2000:]
    return json.loads(html.unescape(body.group(1)))


@cache
def page_of(kind: str) -> str:
    return KINDS[kind]()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "large trace"])
def test_axe_finds_nothing(tmp_path: Path, kind: str, dark: bool) -> None:
    page = page_of(kind).replace("<details", "<details open").replace('type="checkbox"', 'type="checkbox" checked')
    script = AXE.read_text(encoding="utf-8").replace("</script", "<\\/script") + CHECK
    widths = (1280,) if dark else WIDTHS  # the layout does not depend on the colours
    for frame in visit(tmp_path, page, script, widths=widths, dark=dark):
        assert frame["dark"] is dark
        assert frame["scroll"] == frame["width"]
        assert frame["faults"] == []


def test_axe_sees_a_planted_fault(tmp_path: Path) -> None:
    faint = '<p style="color:#bbb;background:#fff">faint</p><img src="data:,"><input></main>'
    page = render_trace(howdy_trace()).replace("</main>", faint)
    script = AXE.read_text(encoding="utf-8").replace("</script", "<\\/script") + CHECK
    (frame,) = visit(tmp_path, page, script, widths=(1280,))
    assert {"color-contrast", "image-alt", "label"} <= {fault[0] for fault in frame["faults"]}


USE = """
addEventListener("load", () => {
  const all = (css) => [...document.querySelectorAll(css)];
  const seen = (css) => all(css).filter((e) => e.checkVisibility()).length;
  const counts = () => [seen(".hit"), seen("section.query"), seen(".contents li")];
  const said = { first: counts(), box: seen(".find input") };
  const box = document.querySelector(".find input");
  const find = (text) => { box.value = text; box.dispatchEvent(new Event("input")); };
  find("ROW 2-11, tell");
  setTimeout(() => {
    said.one = counts();
    said.summary = document.querySelector(".find output").textContent;
    find("");
    setTimeout(() => {
      said.back = counts();
      const token = document.querySelector(".hit .text span[title]");
      token.click();
      said.tapped = document.querySelector(".value").textContent.endsWith(token.title);
      said.links = all(".contents a").every((link) => document.getElementById(link.hash.slice(1)));
      const shown = () => getComputedStyle(token, "::after").content.includes(token.title);
      const tick = document.querySelector(".hit .exact input");
      said.before = shown();
      tick.focus();
      said.focused = document.activeElement === tick;
      tick.click();
      said.after = shown();
      parent.postMessage(said, "*");
    }, 500);
  }, 500);
});
"""


def test_rows_are_found_and_values_are_reached_by_key_and_by_touch(tmp_path: Path) -> None:
    page = render_trace(scripts_trace(4, 12))
    (said,) = visit(tmp_path, page, USE, widths=(390,))
    assert said["first"] == said["back"] == [12, 4, 4]
    assert said["one"] == [1, 1, 1]
    assert said["summary"] == "1 of 48 rows, 1 of 4 queries"
    assert (said["box"], said["links"], said["tapped"], said["focused"]) == (1, True, True, True)
    assert (said["before"], said["after"]) == (False, True)


SHAPES = """
addEventListener("load", () => {
  const width = (e) => e.getBoundingClientRect().width;
  parent.postMessage([...document.querySelectorAll("p.shape")].map(width), "*");
});
"""


def test_joined_letters_keep_their_shapes(tmp_path: Path) -> None:
    """Spans as inline blocks cannot shape each other; where tokens are drawn together, they need not."""
    text = TEXTS["arabic"]
    tokens = byte_tokens(text)
    drawn = ["".join(tokens[start:stop]) for start, stop in drawn_together(tokens)]

    def paragraph(parts: list[str]) -> str:
        spans = "".join(f'<span style="display:inline-block">{html.escape(part)}</span>' for part in parts)
        return f'<p class="shape" dir="rtl" style="white-space:pre;display:inline-block">{spans}</p><br>'

    page = "".join(paragraph(parts) for parts in ([text], drawn, list(text)))
    full = f'<!doctype html><meta http-equiv="Content-Security-Policy" content=""><body>{page}</body>'
    (widths,) = visit(tmp_path, full, SHAPES, widths=(1280,))
    whole, joined, torn = widths
    assert abs(joined - whole) < 0.02 * whole
    assert abs(torn - whole) > 0.05 * whole
