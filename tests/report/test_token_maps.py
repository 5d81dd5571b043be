"""Laying tokens over texts loses no token and no number; sums by word are sums by token."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from headwater.core.trace import Hit, QueryTrace, TokenMap, Trace, turns_of
from headwater.report.detail import details
from headwater.report.fields import Layout
from headwater.report.tokens import Piece, by_word, over_fields, strongest_passage
from headwater.report.views import view_queries

texts = st.text(alphabet="ab \n.", max_size=6)


def cut(text: str, sizes: list[int]) -> list[Piece]:
    pieces, start = [], 0
    for number, size in enumerate([*sizes, len(text)]):
        pieces.append(Piece(text[start : start + size], float(number)))
        start += size
    return pieces


@given(st.tuples(texts, texts, texts), texts, texts, st.lists(st.integers(0, 4), max_size=12))
def test_fields_partition_the_tokens_in_order(
    frame: tuple[str, str, str], prompt: str, response: str, sizes: list[int]
) -> None:
    pieces = cut(frame[0] + prompt + frame[1] + response + frame[2], sizes)
    parts = over_fields(pieces, [prompt, response])
    assert parts is not None
    assert [(p.text, p.value) for part in parts for p in part] == [(p.text, p.value) for p in pieces]


def test_tokens_go_where_their_last_character_lies() -> None:
    pieces = [Piece(t, 1.0) for t in ["<u>", "Hi", " you", "<a>", " Y", "o", "!</s>", "end"]]
    prompt, response = over_fields(pieces, ["Hi you", "Yo!"]) or ((), ())
    assert [(p.text, p.framing) for p in prompt] == [("<u>", True), ("Hi", False), (" you", False)]
    assert [(p.text, p.framing) for p in response] == [
        ("<a>", True), (" Y", False), ("o", False), ("!</s>", False), ("end", True),
    ]  # fmt: skip


def test_text_that_is_not_there_is_not_laid() -> None:
    assert over_fields([Piece("abc", 1.0)], ["abd"]) is None
    assert over_fields([Piece("abc", 1.0)], ["c", "a"]) is None
    assert over_fields([Piece("abc", 1.0)], []) is None


@given(st.lists(st.tuples(texts, st.floats(0.5, 2.0)), max_size=20))
def test_words_keep_the_total(tokens: list[tuple[str, float]]) -> None:
    pieces = [Piece(text, value) for text, value in tokens]
    named = sum(value for _, value in by_word([pieces], 1000))
    unnamed = sum(value for text, value in tokens if not text.strip())
    total = sum(value for _, value in tokens)
    assert total - unnamed - 1e-9 <= named <= total + 1e-9


def test_words_join_tokens_cases_and_punctuation() -> None:
    maps = [
        [Piece("How", 0.2), Piece("dy", 0.3), Piece("!", 0.1), Piece(" the", -1.0), Piece("</s>", 9.0, framing=True)],
        [Piece("say", 0.05), Piece(' "', 0.0), Piece("howdy", 0.4), Piece('"', None)],
    ]
    ((first, value), (second, _)) = by_word(maps, 5)
    assert (first, second) == ("Howdy", "say")
    assert math.isclose(value, 1.0)
    assert [word for word, _ in by_word([[Piece("字", 1.0)] * 20 + [Piece("語", 25.0)] * 20], 5)] == ["語", "字"]


@given(st.lists(st.floats(-1, 1), max_size=12), st.integers(1, 8))
def test_the_strongest_passage_is_the_strongest(values: list[float], width: int) -> None:
    pieces = [Piece("x", value) for value in values]
    start, stop = strongest_passage(pieces, width)
    assert stop - start == min(width, len(values))
    best = max((sum(map(abs, values[s : s + width])) for s in range(len(values))), default=0.0)
    assert math.isclose(sum(map(abs, values[start:stop])), best, abs_tol=1e-9)


def test_a_chat_is_laid_out_turn_by_turn() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    messages += [{"role": "assistant", "content": "Yo"}, {"role": "user", "content": "So?"}]
    messages += [{"role": "assistant", "content": "No"}]
    texts = ("<s>", "Be", " brief.", "<u>", "Hi", "<a>", "Yo", "<u>", "So?", "<a>", "No", "<e>")
    row, asked = (TokenMap(texts, (*[None] * 10, 0.75, 0.25)) for _ in range(2))
    flat = "system: Be brief. user: Hi assistant: Yo user: So?"
    hit = Hit(1, "r", 1.0, {"prompt": flat, "response": "No"}, {}, row, asked, record={"messages": messages})
    query = QueryTrace("q", flat, "No", asked, (hit,), generated=True, turns=turns_of(messages))
    trace = Trace("rise", {}, (query,))
    (view,) = view_queries(trace, next(iter(details(trace))), Layout())
    roles = ["system", "user", "assistant", "user, turn 4"]
    assert [field.label for field in view.hits[0].fields] == [*roles, "response"]
    assert [field.label for field in view.fields] == [*roles, "model’s answer"]
    assert [(p.text, "framing" in p.css) for p in view.hits[0].fields[-1].tokens] == [("No", False), ("<e>", True)]
    assert [word.text for word in view.row_words] == ["No"], "the template's tokens are not words"
    assert turns_of([{"role": "user", "content": [{"type": "text", "text": "parts"}]}]) == ()
