"""Characters of several tokens and joined letters are drawn whole; a page stays small whatever it has to show."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from page_kinds import account, large_trace_page, purchase
from page_reader import parse
from scripts_sample import TEXTS, scripts_trace
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from headwater.core.trace import Hit, QueryTrace, TokenGrid, TokenMap, Trace
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization, token_texts
from headwater.report import render_trace
from headwater.report.detail import LARGEST_PAGE
from headwater.report.statement import render_statement
from headwater.report.tokens import checked, drawn_together
from headwater.report.unlearning import render_unlearning_report
from headwater.valuation.ledger import accounts
from headwater.valuation.prices import money, price


def bytes_of(text: str) -> list[str]:
    """The texts of the tokens of a tokenizer that knows single bytes only."""
    alphabet = {symbol: place for place, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    (row,) = Tokenization.of(wrapped, "plain").encode([Row("a", 0, text=text)])
    return token_texts(row)


def runs(texts: list[str]) -> list[str]:
    return ["".join(texts[start:stop]) for start, stop in drawn_together(texts)]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_bytes_of_a_tokenizer_become_whole_characters(text: str) -> None:
    tokens = bytes_of(text)
    assert len(tokens) == len(text.encode())
    drawn = runs(tokens)
    assert "".join(drawn) == text
    assert all(drawn)
    assert regex.findall(r"\X", text) == [part for run in drawn for part in regex.findall(r"\X", run)]
    if text.isascii() or "水" in text:
        assert drawn == list(text)


def test_letters_that_shape_each_other_are_not_separated() -> None:
    assert runs(["م", "ر", "ح", "با", " "]) == ["مر", "حبا", " "]
    assert runs(list("دار")) == ["د", "ا", "ر"]  # none of these joins the next
    assert runs(list("بيت")) == ["بيت"]
    assert runs(["بِ", "يت"]) == ["بِيت"]  # a vowel sign between them
    assert runs(["लक्", "षण"]) == ["लक्षण"]
    assert runs(["ಲಕ್", "ಷ"]) == ["ಲಕ್ಷ"]
    assert runs(list("नदी")) == ["न", "दी"]
    assert runs(["👨", "\u200d", "👩", "!"]) == ["👨\u200d👩", "!"]
    assert runs(["🇩", "🇪", "🇯", "🇵"]) == ["🇩🇪", "🇯🇵"]
    assert runs(["e", "\u0301", "", "x"]) == ["e\u0301", "x"]
    assert runs(["a", "", "b"]) == ["a", "", "b"]  # a token without text, not a byte of one


@given(st.lists(st.text(alphabet="a \nبيد\u0650नक्\u200d👩🏽漢é", max_size=3), max_size=12))
def test_runs_partition_the_tokens_between_characters(texts: list[str]) -> None:
    bounds = drawn_together(texts)
    assert [place for start, stop in bounds for place in range(start, stop)] == list(range(len(texts)))
    starts = {match.start() for match in regex.finditer(r"\X", "".join(texts))}
    position = 0
    for start, stop in bounds:
        part = "".join(texts[start:stop])
        assert not part or position in starts or position == 0
        position += len(part)


def test_a_character_has_the_sum_and_its_tokens_have_their_values() -> None:
    tokens = TokenMap(("漢", "", "", "字", " ok"), (0.5, -0.125, None, None, 0.25))
    pieces = checked(tokens, where="here")
    assert [(p.text, p.value, p.parts) for p in pieces] == [
        ("漢", 0.375, (0.5, -0.125, None)), ("字", None, ()), (" ok", 0.25, ()),
    ]  # fmt: skip
    hit = Hit(1, "a", 0.625, {"text": "漢字 ok"}, {}, tokens)
    page = parse(render_trace(Trace("m", {}, (QueryTrace("q", None, "r", None, (hit,)),))))
    spans = page.all("article")[0].all("p", "text")[0].all("span")
    assert [(s.text(), s.attributes.get("title")) for s in spans] == [
        ("漢", "+0.375 (+0.5 −0.125 –)"), ("字", None), ("ok", "+0.25"),
    ]  # fmt: skip


def test_the_last_bytes_of_a_field_stay_in_it() -> None:
    tokens = TokenMap(("漢", "", "", "\n", "字", "", ""), (1.0, 1.0, 1.0, 0.0, 2.0, 2.0, 2.0))
    hit = Hit(1, "a", 9.0, {"prompt": "漢", "response": "字"}, {}, tokens)
    page = parse(render_trace(Trace("m", {}, (QueryTrace("q", None, "r", None, (hit,)),))))
    titles = [[s.attributes["title"] for s in p.all("span")] for p in page.all("article")[0].all("p", "text")]
    assert titles == [["+3 (+1 +1 +1)"], ["0", "+6 (+2 +2 +2)"]]


def test_a_grid_sums_over_the_bytes() -> None:
    grid = TokenGrid(("漢", "", ""), ("a", "é", ""), ((1.0, 2.0, 4.0), (8.0, 16.0, 32.0), (1.0, 1.0, 1.0)))
    page = parse(render_trace(Trace("m", {}, (QueryTrace("q", None, "r", None, (Hit(1, "a", 1.0, {}, grid=grid),)),))))
    (table,) = page.all("table")
    assert [th.text() for th in table.all("th")] == ["a", "é", "漢"]
    assert [td.attributes.get("title") for td in table.all("td")][1:] == ["+10", "+56"]


def test_fifty_queries_of_twenty_hits_are_a_small_page() -> None:
    raw = large_trace_page()
    assert len(raw.encode()) <= LARGEST_PAGE == 2_000_000
    ids = set(re.findall(r' id="([^"]+)"', raw))
    cards = re.findall(r"<article>.*?</article>", raw, re.S)
    assert len(cards) == 1000
    folds = re.findall(r'<details class="more">(.*?)(?=<details class="more">|<section|<footer)', raw, re.S)
    assert [fold.count("<article>") for fold in folds] == [17] * 50
    links = re.findall(r'href="#([^"]+)"', raw[raw.index("<nav") : raw.index("</nav>")])
    assert len(links) == 100
    assert set(links) <= ids
    assert "strongest passage only" in raw[raw.index("<footer") :]
    valued = [bool(re.search(r"<span[^>]* title=", card)) for card in cards]
    assert sum(valued) > 800  # the others have no token strong enough for a shade


def test_a_cell_of_ten_megabytes_is_cut_and_counted() -> None:
    long = "word " * 2_000_000
    hit = Hit(1, "a" * 10**7, 1.0, {"prompt": long, "response": "short"}, {"note": long, long: 1})
    read = TokenMap(("word ",) * 2000, (0.5,) * 2000)
    hits = (hit, replace(hit, row={"text": long}, row_tokens=read))
    trace = Trace("m", {"command": long}, (QueryTrace(long, long, long, None, hits),))
    raw = render_trace(trace, title=long)
    assert len(raw.encode()) < 400_000
    text = parse(raw).text()
    assert "9,980,000 more characters are not on this page; the whole row is in the index under its id." in text
    assert "9,980,000 more characters are not on this page; the query as you gave it has them." in text


def test_a_row_of_which_the_model_read_the_beginning_is_shaded_there() -> None:
    words = [f" word{n}" for n in range(40)]
    read = TokenMap(("<s>", *words[:30]), (None, *([0.5] * 30)))
    hit = Hit(1, "a", 15.0, {"text": "".join(words)}, {}, read)
    page = parse(render_trace(Trace("m", {}, (QueryTrace("q", None, "r", None, (hit,)),))))
    (text,) = page.all("article")[0].all("p", "text")
    assert text.text() == "".join(words)
    assert len([span for span in text.all("span") if "title" in span.attributes]) == 30


def test_of_a_trace_of_very_many_hits_the_first_queries_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.report.detail.MOST_HITS", 100)
    trace = scripts_trace(12, 10)
    page = parse(render_trace(trace))
    assert len(page.all("article")) == 90
    assert "the first 9 of 12 queries; the file of --out has all hits" in page.text()


def test_the_statement_says_which_paid_rows_may_be_worth_nothing() -> None:
    values, prices = purchase(40)
    paid = np.flatnonzero(prices.cents > 0)
    unsure = sum(values.numbers("low")[place] <= 0 for place in paid)
    assert 0 < unsure < len(paid)
    page = parse(render_statement(values, prices, accounts(values, prices), currency="EUR"))
    facts = {dt.text(): dd.text() for dt, dd in zip(page.all("dt"), page.all("dd"), strict=True)}
    cents = sum(int(prices.cents[place]) for place in paid if values.numbers("low")[place] <= 0)
    said = f"{unsure} of {len(paid)}, paid {money(cents)} of {money(prices.terms.budget)}: they cannot be told"
    assert facts["paid rows that cannot be told from zero"] == f"{said} from zero"
    bare = replace(values, table=values.table.drop_columns(["low", "high"]))
    unknown = price(bare, prices.terms)
    assert "these values have no intervals" in render_statement(bare, unknown, accounts(bare, unknown))


def test_the_unlearning_account_has_one_value_under_one_name() -> None:
    page = parse(render_unlearning_report(account(rate=0.000448123)))
    facts = [(dt.text(), dd.text()) for dt, dd in zip(page.all("dt"), page.all("dd"), strict=True)]
    assert len({name for name, _ in facts}) == len(facts)
    assert dict(facts)["rate"] == "0.000448"
    assert dict(facts)["adapter"] == "loras/howdy"
    cells = {cell.text() for cell in page.all("td")}
    assert {"0.891", "4.23", "1.12", "1.19"} <= cells
    assert "the loss of unseen rows, 4.20." in page.text()
    assert "loss before" not in page.all("footer")[0].text()
    assert "with the adapter loras/howdy" in page.all("p", "lead")[0].text()


def test_sums_of_whole_characters_are_sums_of_tokens() -> None:
    for query in scripts_trace(5, 2).queries:
        for hit in query.hits:
            assert hit.row_tokens
            total = sum(piece.value or 0.0 for piece in checked(hit.row_tokens, where="here"))
            assert math.isclose(total, hit.score, abs_tol=1e-9)
