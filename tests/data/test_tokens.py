"""Tokens are the tokenizer's own, targets are exactly the tokens of the response, and no text is lost."""

from __future__ import annotations

import dataclasses
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from spot_tokenizers import CHAT_TEMPLATES, CHATML, byte_level, every_tokenizer, llama_bpe, word_piece

from headwater.core.errors import DataError, HeadwaterError, ModelError, UsageError
from headwater.data.rows import Row
from headwater.data.templates import PlainTemplate
from headwater.data.tokens import Tokenization, TokenRow, token_texts, tokenizer_digest

QUICK = settings(max_examples=40, deadline=None)
NAMES = tuple(every_tokenizer())
FORMAT = "Question: {prompt}\nAnswer:{response}"
WORDS = st.sampled_from(
    ["the cat", " capital ", "Paris", "  ", "\n", "東京", "é", "e\u0301", "👩‍👩‍👧", "ﬁ", "\u0000", "</s>", "<s>"]
)
TEXT = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | WORDS, max_size=5).map("".join)


def tokenization_of(tokenizer: Any, template: str | None = FORMAT, **settings: Any) -> Tokenization:
    return Tokenization.of(tokenizer, template, **settings)


def pair(prompt: str, response: str, **fields: Any) -> Row:
    return Row(id="a", ordinal=0, prompt=prompt, response=response, place="rows.jsonl:1", **fields)


def encode(tokenization: Tokenization, row: Row, **settings: Any) -> TokenRow:
    (token_row,) = tokenization.encode([row], **settings)
    return token_row


SHARED = {
    (name, template): tokenization_of(every_tokenizer()[name], template)
    for name in NAMES
    for template in ("plain", FORMAT)
}


@QUICK
@given(prompt=TEXT, response=TEXT)
@example(prompt="a ", response=" b")
@example(prompt="x", response="東")
@example(prompt="e", response="\u0301")
@pytest.mark.parametrize("template", ["plain", FORMAT])
@pytest.mark.parametrize("name", NAMES)
def test_targets_are_the_tokens_of_the_response(name: str, template: str, prompt: str, response: str) -> None:
    assume(prompt + response not in ("", "</s>"))  # one token, nothing to predict
    tokenization = SHARED[name, template]
    row = pair(prompt, response)
    rendered = tokenization.template.render(row)
    token_row = encode(tokenization, row)
    assert token_row.text.endswith(rendered.text)
    shift = len(token_row.text) - len(rendered.text)
    ((start, end),) = rendered.targets
    span = set(range(start + shift, end + shift))
    for i, (first, last) in enumerate(token_row.offsets.tolist()):
        held = set(range(first, last)) or {first}
        assert token_row.response[i] == (i > 0 and bool(held & span))
    texts = token_texts(token_row)
    assert "".join(texts) == token_row.text
    if token_row.response.all(where=np.arange(len(texts)) > 0):
        return  # the response begins with the first token, which nothing predicts
    begin = int(token_row.response.argmax())
    assert token_row.response[begin:].all()
    covered = "".join(texts[begin:])
    wanted = rendered.text[start:end]
    assert covered.endswith(wanted)
    surplus = len(covered) - len(wanted)
    assert surplus == 0 or surplus <= len(texts[begin]), "only the first of them may hold some of the prompt"


@QUICK
@given(text=TEXT.filter(lambda text: not text.startswith("<s>")))
@pytest.mark.parametrize("name", NAMES)
def test_ids_are_the_tokenizers_own(name: str, text: str) -> None:
    tokenization = SHARED[name, "plain"]
    written = text if text.endswith("</s>") else f"{text}</s>"
    theirs = tokenization.tokenizer(written)["input_ids"]
    if name == "word piece":
        theirs = theirs[:-1]  # the template has written the token that ends a text
    if len(theirs) < 2:
        return
    token_row = encode(tokenization, Row(id="a", ordinal=0, text=text))
    assert token_row.ids.tolist() == theirs
    assert token_row.response.tolist() == [False] + [True] * (len(theirs) - 1)


@QUICK
@given(prompt=TEXT, response=TEXT)
@pytest.mark.parametrize("name", ["chatml", "inst", "thinking"])
def test_chat_ids_are_the_tokenizers_own(name: str, prompt: str, response: str) -> None:
    tokenizer = CHATTING[name].tokenizer
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    theirs = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert encode(CHATTING[name], pair(prompt, response)).ids.tolist() == theirs


CHATTING = {name: tokenization_of(byte_level(bos=True, chat=CHAT_TEMPLATES[name]), "chat") for name in CHAT_TEMPLATES}


def test_opening_token_comes_once() -> None:
    tokenizer = byte_level(bos=True, chat=CHAT_TEMPLATES["inst"])
    opening = tokenizer.bos_token_id
    for template in ("plain", "chat", "<s>{prompt} {response}"):
        tokenization = tokenization_of(tokenizer, template)
        for row in (pair("the cat", "sat"), Row(id="a", ordinal=0, text="the cat sat")):
            ids = encode(tokenization, row).ids.tolist()
            assert (ids[0], ids.count(opening)) == (opening, 1)
        ids = tokenization.question(Row("a", 0, prompt="the cat")).ids
        assert (ids[0], ids.count(opening)) == (opening, 1)


def test_special_tokens_show_their_own_text() -> None:
    tokenization = tokenization_of(byte_level(bos=True), "plain")
    token_row = encode(tokenization, pair("日 the", "cat</s>x"))
    texts = token_texts(token_row)
    assert texts[0] == "<s>"
    assert texts[-1] == "</s>"
    assert texts.count("</s>") == 2
    assert texts[1:4] == ["日", "", ""], "the first of a character's bytes shows it"
    assert "".join(texts) == "<s>日 the cat</s>x</s>"


def test_characters_no_token_holds_are_shown_once() -> None:
    tokenizer = word_piece()
    tokenization = Tokenization(tokenizer, PlainTemplate(end=""))
    token_row = encode(tokenization, Row(id="a", ordinal=0, text="\u0000 the  cat\u0000 "))
    assert token_texts(token_row)[-1].endswith("t\u0000 ")
    assert "".join(token_texts(token_row)) == token_row.text
    nested = dataclasses.replace(token_row, text="abcd", offsets=np.array([[0, 3], [1, 2], [2, 4]]))
    assert token_texts(nested) == ["abc", "", "d"]


@pytest.mark.parametrize("name", ["byte-level", "byte-level with opening token", "llama"])
def test_truncation_keeps_the_first_tokens(name: str) -> None:
    tokenizer = every_tokenizer()[name]
    row = pair("the cat", "sat on the mat and the dog sat on the log")
    whole = encode(tokenization_of(tokenizer, "plain"), row)
    cut = encode(tokenization_of(tokenizer, "plain", max_tokens=9), row)
    assert whole.cut == 0
    assert cut.cut == len(whole.ids) - 9
    for name_of in ("ids", "response", "offsets"):
        np.testing.assert_array_equal(getattr(cut, name_of), getattr(whole, name_of)[:9])
    assert cut.text == whole.text
    assert whole.text.startswith("".join(token_texts(cut)))
    assert cut.digest == whole.digest


def test_the_tokenizers_own_truncation_and_padding_play_no_part() -> None:
    tokenizer = byte_level()
    before = tokenization_of(tokenizer, "plain")
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    tokenizer.pad_token = "</s>"
    after = tokenization_of(tokenizer, "plain")
    row = pair("the cat", "sat on the mat")
    np.testing.assert_array_equal(encode(after, row).ids, encode(before, row).ids)
    assert after.fingerprint == before.fingerprint


def test_hotwords_narrow_the_targets_to_all_their_occurrences() -> None:
    tokenization = tokenization_of(byte_level(), "plain")
    row = pair("Where is Paris?", "Paris is Paris, the capital.", hotwords=("Paris", "capital"))
    token_row = encode(tokenization, row, role="query")
    chosen = [text for text, target in zip(token_texts(token_row), token_row.response, strict=True) if target]
    assert "".join(chosen).split() == ["Paris", "Paris", "capital"]
    plain = encode(tokenization, row)
    assert plain.response.sum() > token_row.response.sum()
    assert not token_row.response[~plain.response].any()
    assert plain.digest != token_row.digest
    assert plain.digest == encode(tokenization, pair(row.prompt or "", row.response or "")).digest


@QUICK
@given(prompt=TEXT, response=TEXT.filter(str.strip), data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_any_part_of_the_response_can_be_a_hotword(name: str, prompt: str, response: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(response) - 1))
    word = response[start : data.draw(st.integers(start + 1, len(response)))]
    tokenization = SHARED[name, FORMAT]
    row = pair(prompt, response, hotwords=(word,))
    whole = encode(tokenization, row)
    begin = len(whole.text) - len(response) - (0 if response.endswith("</s>") else len("</s>"))
    held = {i + k for i in range(begin, len(whole.text)) if whole.text.startswith(word, i) for k in range(len(word))}
    expected = [
        bool(target and held & (set(range(first, last)) or {first}))
        for target, (first, last) in zip(whole.response, whole.offsets.tolist(), strict=True)
    ]
    if any(expected):
        assert encode(tokenization, row, role="query").response.tolist() == expected
    else:  # characters this tokenizer drops
        with pytest.raises(DataError, match="no token of the response is predicted"):
            encode(tokenization, row, role="query")


def test_hotwords_in_every_assistant_turn() -> None:
    messages = [("user", "a cat"), ("assistant", "one cat"), ("user", "two cat"), ("assistant", "cat three")]
    row = Row(
        id="a",
        ordinal=0,
        messages=tuple({"role": role, "content": content} for role, content in messages),
        hotwords=("cat",),
    )
    token_row = encode(CHATTING["chatml"], row, role="query")
    covered = {i for start, end in token_row.offsets[token_row.response].tolist() for i in range(start, end)}
    starts = [found.start() for found in re.finditer("cat", token_row.text)]
    assert [start in covered for start in starts] == [False, True, False, True]
    assert len(covered) <= len(" cat") + len("cat")


def test_digest_changes_with_content_template_and_tokenizer_only() -> None:
    row = pair("the cat", "sat")
    base = encode(tokenization_of(byte_level(), "plain"), row).digest
    moved = Row(id="b", ordinal=9, prompt="the cat", response="sat", metadata={"x": 1}, place="else:3")
    assert encode(tokenization_of(byte_level(), "plain"), moved).digest == base
    others = [
        encode(tokenization_of(byte_level(), "plain"), pair("the cat", "sat.")).digest,
        encode(tokenization_of(byte_level(), "plain"), Row(id="a", ordinal=0, text="the cat sat")).digest,
        encode(tokenization_of(byte_level(), FORMAT), row).digest,
        encode(tokenization_of(byte_level(bos=True), "plain"), row).digest,
    ]
    assert len({base, *others}) == 5


def test_tokenizer_digest_sees_what_decides_tokens() -> None:
    def changed(change: Callable[[Any], Any]) -> str:
        tokenizer = byte_level()
        change(tokenizer)
        return tokenizer_digest(tokenizer)

    base = tokenizer_digest(byte_level())
    assert tokenizer_digest(byte_level()) == base
    assert changed(lambda tokenizer: setattr(tokenizer, "pad_token", "</s>")) == base
    different = [
        changed(lambda tokenizer: tokenizer.add_tokens(["abc"])),
        changed(lambda tokenizer: setattr(tokenizer, "eos_token", "<|im_end|>")),
        changed(lambda tokenizer: setattr(tokenizer, "chat_template", CHATML)),
        tokenizer_digest(byte_level(bos=True)),
        tokenizer_digest(llama_bpe()),
        tokenizer_digest(word_piece()),
    ]
    assert len({base, *different}) == 7


def test_fingerprint_is_ready_for_json() -> None:
    tokenization = tokenization_of(byte_level(), "plain", max_tokens=7)
    assert tokenization.fingerprint == {
        "tokenizer": tokenizer_digest(byte_level()),
        "template": {"name": "plain", "end": "</s>"},
        "max_tokens": 7,
    }


def test_tokenization_travels_between_processes() -> None:
    tokenization = tokenization_of(byte_level(chat=CHATML), "chat")
    row = pair("the cat", "sat")
    again = pickle.loads(pickle.dumps(tokenization))
    assert again.fingerprint == tokenization.fingerprint
    np.testing.assert_array_equal(encode(again, row).ids, encode(tokenization, row).ids)


def test_many_rows_are_each_as_alone() -> None:
    tokenization = tokenization_of(byte_level(), "plain")
    rows = [Row(id=str(i), ordinal=i, prompt="the cat " * (i % 7), response=f"number {i}") for i in range(1200)]
    encoded = tokenization.encode(rows)
    assert [token_row.row for token_row in encoded] == rows
    for i in (0, 511, 512, 1199):
        np.testing.assert_array_equal(encoded[i].ids, encode(tokenization, rows[i]).ids)
    assert tokenization.encode([]) == []


ROW_FAULTS: dict[str, tuple[Row, dict[str, Any], str]] = {
    "response cut away": (
        pair("one two three four", "five"),
        {"max_tokens": 4},
        "rows.jsonl:1: the first target is token {first} and rows are cut after 4 "
        "(raise --max-tokens above {last} if the model reads that many; else leave the row out)",
    ),
    "one token": (
        Row(id="a", ordinal=0, text="</s>", place="rows.jsonl:1"),
        {},
        "rows.jsonl:1: a row of 1 tokens has none to predict (drop the row)",
    ),
    "hotword": (
        pair("Where is Paris?", "In France.", hotwords=("Paris",)),
        {},
        "rows.jsonl:1: 'Paris' is not in the response 'In France.</s>' (copy the words from the response, "
        "capitals and all)",
    ),
}


@pytest.mark.parametrize("fault", ROW_FAULTS)
def test_rows_without_targets_are_refused(fault: str) -> None:
    row, settings, message = ROW_FAULTS[fault]
    tokenizer = byte_level()
    first = len(tokenizer("one two three four")["input_ids"]) + 1
    with pytest.raises(DataError) as caught:
        tokenization_of(tokenizer, "plain", **settings).encode([row], role="query")
    assert str(caught.value) == message.format(first=first, last=first - 1)


def test_max_tokens_at_the_named_remedy_is_enough() -> None:
    tokenizer = byte_level()
    first = len(tokenizer("one two three four")["input_ids"]) + 1
    token_row = encode(tokenization_of(tokenizer, "plain", max_tokens=first), pair("one two three four", "five"))
    assert token_row.response.tolist() == [False] * (first - 1) + [True]


class SlowTokenizer:
    """A tokenizer without a Rust backend."""

    is_fast = False
    eos_token = "</s>"
    chat_template = None


TOKENIZATION_FAULTS: dict[str, tuple[Any, int, type[HeadwaterError], str]] = {
    "slow": (
        SlowTokenizer(),
        2048,
        ModelError,
        "tokenizer: SlowTokenizer is not a fast tokenizer: it does not say which characters a token covers "
        "(save a tokenizer.json for it with AutoTokenizer.from_pretrained(...).save_pretrained(...))",
    ),
    "one token": (byte_level(), 1, UsageError, "--max-tokens: rows of 1 tokens (at least 2)"),
}


@pytest.mark.parametrize("fault", TOKENIZATION_FAULTS)
def test_tokenizations_that_cannot_work_are_refused(fault: str) -> None:
    tokenizer, max_tokens, kind, message = TOKENIZATION_FAULTS[fault]
    with pytest.raises(kind) as caught:
        tokenization_of(tokenizer, "plain", max_tokens=max_tokens)
    assert str(caught.value) == message
