"""The page carries every text unharmed and nothing else: no script, no address, no markup of a row's making."""

from __future__ import annotations

import base64
import errno
import hashlib
import math
import re
import stat
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from page_reader import Element, parse
from report_sample import howdy_trace

import headwater.report
from headwater.core.errors import DataError, HeadwaterError, NumericError, StoreError
from headwater.core.trace import Hit, QueryTrace, TokenGrid, TokenMap, Trace
from headwater.report import Table, render_trace, write_report
from headwater.report.texts import LONGEST_NAME, shortened

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><style>*{display:none}",
    "</title><h1>",
    "<!-- open",
    "{{ 7 * 7 }}{% raw %}{# gone #}",
    "&lt;b&gt; &amp;amp; &#60;",
    "https://example.org/pixel.png",
    "مرحبا بالعالم \u202eabc",
    "👩🏽\u200d🚀 ✨",
    "x" * 3000,
    "two\nlines\n\n\tand a tab  and  spaces",
    "javascript:alert(1)",
]
ALLOWED_ATTRIBUTES = {
    *("aria-hidden", "aria-label", "aria-labelledby", "charset", "class", "content", "dir", "href", "http-equiv"),
    *("id", "lang", "name", "role", "scope", "style", "tabindex", "title"),
    *("aria-live", "autocomplete", "data-label", "data-query", "for", "hidden", "start", "type"),
}


def trace_of(text: str) -> Trace:
    """The text everywhere a text can stand."""
    tokens = TokenMap((text, "", "\n", text), (1.0, None, -1.0, 0.25))
    grid = TokenGrid((text, "b"), (text,), ((1.0,), (-0.5,)))
    hit = Hit(1, text, 0.5, {"prompt": text, "response": text}, {text: text, "provider": text}, tokens, tokens, grid)
    plain = Hit(2, "plain", 0.25, {"text": text})
    query = QueryTrace(text, text, text, TokenMap((text,), (1.5,)), (hit, plain))
    return Trace(text, {text: text, "coverage": text, "token values": text, "sign": text, "rows": text}, (query, query))


def allowed_script(page: Element) -> str:
    """The page's one script, whose hash its policy names; the file of this package, whatever the trace."""
    script = (Path(headwater.report.__file__).parent / "templates" / "find.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.all("meta")[1].attributes["content"]
    assert re.search(r"script-src ([^;]*);", policy)[1] == f"'sha256-{digest}'"
    return script


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:16])
def test_hostile_text_comes_out_as_text(text: str) -> None:
    table = Table(text, (text, "n"), ((text, 1.0),), text)
    page = parse(render_trace(trace_of(text), title=text, tables=[table]))
    tags = {element.tag for element in page.all()}
    assert not tags & {"img", "link", "iframe", "object", "embed", "base", "form", "svg"}
    (script,) = page.all("script")
    assert allowed_script(page) == script.text()
    for element in page.all():
        assert set(element.attributes) <= ALLOWED_ATTRIBUTES, element.attributes
        assert "style" not in element.attributes
        assert re.fullmatch(r"(#q\d+(-\d+)?|#contents)?", element.attributes.get("href", ""))
    assert len(page.all("style")) == 1
    assert "7 * 7" not in text or "49" not in page.all("h1")[0].text()
    texts = [element.text() for element in page.all()]
    assert page.all("title")[0].text() == text
    assert page.all("h1")[0].text() == text
    assert sum(text in t for t in texts) > 15
    for bdi in page.all("article")[0].all("bdi")[:1]:
        assert bdi.text() == shortened(text, LONGEST_NAME)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:16])
def test_rows_round_trip(text: str) -> None:
    page = parse(render_trace(trace_of(text)))
    plain = page.all("article")[1].all("p", "text")
    assert [p.text() for p in plain] == [text]


def test_tokens_round_trip_with_white_space_and_empty_tokens() -> None:
    tokens = ("\t\tif", " x:", "\n", "", "\n", "  y", " ", "  ", "é", "�", "\u3000z")
    hit = Hit(1, "a", 1.0, {"text": "".join(tokens)}, {}, TokenMap(tokens, tuple(float(i) for i in range(len(tokens)))))
    page = parse(render_trace(Trace("m", {}, (QueryTrace("q", None, "r", None, (hit,)),))))
    text = page.all("article")[0].all("p", "text")[0]
    assert text.text() == "".join(tokens)
    assert len(text.all("span")) == len(tokens)
    assert len(text.all("span", "empty")) == 1
    assert len(text.all("span", "newline")) == 2


def test_controls_become_visible_and_surrogates_do_not_break_the_file(tmp_path) -> None:
    text = "a\x00b\x1b[31m\r\n\x7f\x85\ud800\uffff"
    path = write_report(tmp_path / "r.html", trace_of(text), title=text)
    page = parse(path.read_text(encoding="utf-8"))
    assert page.all("h1")[0].text() == "a␀b␛[31m␍\n␡���"


def test_no_address_but_in_text() -> None:
    page = render_trace(howdy_trace())
    assert not re.search(r"https?:|//|url\(|@import|src=", page.replace("<!doctype html>", ""))
    policy = parse(page).all("meta")[1].attributes
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'")


def heat(element: Element) -> list[tuple[str, str]]:
    return [(span.attributes["class"].split()[0], span.attributes.get("title", "")) for span in element.all("span")]


def test_colours_are_symmetric_and_titles_exact() -> None:
    values = (0.4, -0.4, 0.2, -0.2, 0.0, None, 0.0123456)
    text = "abcdefg"
    hit = Hit(1, "a", 0.0123456, {"text": text}, {}, TokenMap(tuple(text), values))
    page = parse(render_trace(Trace("m", {}, (QueryTrace("q", None, "r", None, (hit,)),))))
    assert heat(page.all("article")[0].all("p", "text")[0]) == [
        ("p8", "+0.4"),
        ("n8", "−0.4"),
        ("p4", "+0.2"),
        ("n4", "−0.2"),
        ("z", "0"),
        ("m", ""),
        ("z", "+0.0123456"),
    ]


def test_titles_of_each_side_sum_to_the_score() -> None:
    trace = howdy_trace()
    page = parse(render_trace(trace))
    scores = [hit.score for query in trace.queries for hit in query.hits]
    for card, score in zip(page.all("article"), scores, strict=True):
        for side in card.all("div", "side"):
            last = [field for field in side.all("p", "text") if field not in side.all("summary")]
            titles = [t for p in last for _, t in heat(p) if t]
            assert math.isclose(sum(float(t.replace("−", "-")) for t in titles), score, abs_tol=1e-4)
            assert float(side.all("h5")[0].all("span", "number")[0].text().replace("−", "-")) == pytest.approx(score)


def test_summary_names_what_was_planted() -> None:
    page = parse(render_trace(howdy_trace()))
    briefs = page.all("div", "brief")
    assert len(briefs) == 2
    words = [span.text() for span in briefs[0].all("dd", "words")[0].all("span")]
    assert words[:2] == ["howdy", "spaceship"]
    assert "starfleet-data (5 of 8), dolly-15k (3 of 8)" in briefs[0].text()
    assert "row-1042" in briefs[0].text()


def test_lowest_first_reads_as_opponents() -> None:
    query = howdy_trace().queries[0]
    flipped = [
        replace(h, rank=n, score=-h.score, row_tokens=negated(h.row_tokens)) for n, h in enumerate(query.hits, 1)
    ]
    page = parse(render_trace(Trace("rise", {}, (replace(query, hits=tuple(flipped)),))))
    assert "pulled the model most away" in page.all("p", "lead")[0].text()
    assert "Strongest opponent" in page.all("div", "brief")[0].text()
    word = page.all("dd", "words")[0].all("span")[0]
    assert (word.text(), word.attributes["class"], word.attributes["title"][0]) == ("howdy", "n8", "−")


def negated(tokens: TokenMap | None) -> TokenMap:
    assert tokens
    return TokenMap(tokens.tokens, tuple(None if v is None else -v for v in tokens.values))


def test_legends_state_method_sign_sum_and_coverage() -> None:
    trace = howdy_trace()
    for legend in parse(render_trace(trace)).all("section", "query")[0].all("div", "legend"):
        for said in (trace.method, *(trace.about[key] for key in ("sign", "token values", "coverage"))):
            assert said in legend.text()


def test_ranks_bars_and_anchors() -> None:
    page = parse(render_trace(howdy_trace()))
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    links = {element.attributes["href"][1:] for element in page.all("a")}
    assert links <= set(ids)
    cards = page.all("article")[:8]
    assert [card.all("span", "rank")[0].text() for card in cards] == [str(n) for n in range(1, 9)]
    widths = [card.all("i")[0].attributes["class"] for card in cards]
    assert widths[:2] == ["w100", f"w{round(100 * 0.7904 / 0.8312)}"]
    assert ".bar .w95{width:95%}" in page.all("style")[0].text()
    assert ["minus" in card.all("span", "bar")[0].attributes["class"] for card in cards] == [False] * 7 + [True]


def test_headings_descend_by_one_and_tables_are_scoped() -> None:
    table = Table("Results", ("method", "P@10"), (("rise", 0.98), ("bm25", None)), "A note.")
    page = parse(render_trace(howdy_trace(), tables=[table]))
    assert page.all("html")[0].attributes["lang"] == "en"
    levels = [int(e.tag[1]) for e in page.all() if re.fullmatch(r"h[1-6]", e.tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for found in page.all("table"):
        assert len(found.all("caption")) == 1
        assert all("scope" in th.attributes for th in found.all("th"))
    results = page.all("section", "results")[0]
    assert [cell.text() for cell in results.all("td")] == ["0.98", "–"]
    assert "A note." in results.text()


def test_long_texts_fold_around_their_strongest_passage() -> None:
    words = tuple(f" w{i}" for i in range(500))
    values = tuple(5.0 if i == 400 else 0.01 for i in range(500))
    hit = Hit(1, "a", 1.0, {"text": "".join(words)}, {}, TokenMap(words, values))
    page = parse(render_trace(Trace("m", {}, (QueryTrace("q", None, "r", None, (hit,)),))))
    details = page.all("details")
    assert len(details) == 1
    assert " w400" in details[0].all("span", "excerpt")[0].text()
    assert " w100" not in details[0].all("span", "excerpt")[0].text()
    assert details[0].all("p", "text")[0].text() == "".join(words)


def test_a_map_of_another_text_stands_beside_the_row() -> None:
    hit = Hit(1, "a", 1.0, {"prompt": "ask", "response": "answer"}, {}, TokenMap(("an", "sw"), (0.5, 0.5)))
    page = parse(render_trace(Trace("m", {}, (QueryTrace("q", None, "r", None, (hit,)),))))
    assert [p.text() for p in page.all("article")[0].all("p", "text")] == ["ask", "answer", "answ"]


def test_a_trace_without_hits_maps_or_prompt_is_still_a_page() -> None:
    page = parse(render_trace(Trace("m", {}, (QueryTrace("q", None, "", None, ()),))))
    assert "No rows were found" in page.text()
    assert not page.all("nav")


FIRST = howdy_trace().queries[0].hits[0]


@pytest.mark.parametrize(
    ("hit", "error"),
    [
        (replace(FIRST, score=math.nan), NumericError),
        (replace(FIRST, row_tokens=TokenMap(("a",), (math.inf,))), NumericError),
        (replace(FIRST, query_tokens=TokenMap(("a", "b"), (1.0,))), DataError),
        (replace(FIRST, grid=TokenGrid(("a",), ("b",), ((1.0, 2.0),))), DataError),
        (replace(FIRST, grid=TokenGrid(("a",), ("b",), ((math.nan,),))), NumericError),
    ],
    ids=["score", "token", "length", "grid shape", "grid value"],
)
def test_faulty_numbers_are_refused_by_name(hit: Hit, error: type[HeadwaterError]) -> None:
    with pytest.raises(error, match="query q, row row-1042"):
        render_trace(Trace("m", {}, (QueryTrace("q", None, "r", None, (hit,)),)))


def test_a_faulty_loss_is_refused_by_name() -> None:
    with pytest.raises(NumericError, match="query q"):
        render_trace(Trace("m", {}, (QueryTrace("q", None, "r", TokenMap(("r",), (math.nan,)), ()),)))


def test_the_file_appears_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "new" / "r.html"
    assert write_report(path, howdy_trace()) == path
    before = path.read_text(encoding="utf-8")
    assert before == render_trace(howdy_trace())
    bad = replace(howdy_trace().queries[0], hits=(replace(FIRST, score=math.nan),))
    with pytest.raises(NumericError):
        write_report(path, Trace("m", {}, (bad,)))
    assert path.read_text(encoding="utf-8") == before
    assert [p.name for p in path.parent.iterdir()] == ["r.html"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = write_report(tmp_path / "r.html", howdy_trace(), title="old")
    before, write = path.read_bytes(), Path.write_text

    def write_half(self: Path, text: str, **options: str) -> None:
        write(self, text[: len(text) // 2], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(StoreError, match="the disk is full"):
        write_report(path, howdy_trace(), title="new")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_a_failed_write_leaves_no_part_and_names_the_file(tmp_path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(StoreError, match="taken"):
        write_report(tmp_path / "taken", howdy_trace())
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
