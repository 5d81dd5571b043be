"""Templates write rows as one text and know where the response is in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spot_tokenizers import CHAT_TEMPLATES, DATED, INST, byte_level

from headwater.core.errors import DataError, HeadwaterError, ModelError, UsageError
from headwater.core.fingerprints import digest
from headwater.data.rows import Rendered, Row
from headwater.data.templates import NO_CHATS_REMEDY, resolve_template

QUICK = settings(max_examples=40, deadline=None)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
TRICKY = st.sampled_from(
    ["{prompt}", "{response}", "{{ x }}", "{% raw %}", "</s>", "<s>", "<|im_start|>", "<|im_end|>", "{", "%s", "\\n"]
)
ANY_TEXT = st.lists(TEXT | TRICKY, max_size=4).map("".join)


def pair(prompt: str, response: str) -> Row:
    return Row(id="a", ordinal=0, prompt=prompt, response=response, place="rows.jsonl:1")


def chat(*turns: tuple[str, str]) -> Row:
    messages = tuple({"role": role, "content": content} for role, content in turns)
    return Row(id="a", ordinal=0, messages=messages, place="rows.jsonl:1")


def said(rendered: Rendered) -> list[str]:
    return [rendered.text[start:end] for start, end in rendered.targets]


def test_default_is_the_chat_template_if_there_is_one() -> None:
    assert resolve_template(None, byte_level(chat=INST)).fingerprint["name"] == "chat"
    assert resolve_template(None, byte_level()).fingerprint["name"] == "plain"


@QUICK
@given(prompt=ANY_TEXT, response=ANY_TEXT)
@example(prompt="", response="r")
@pytest.mark.parametrize("name", ["plain", "alpaca", "Q: {prompt}\\n{A}: {response} .", "chat"])
def test_target_is_the_response_whatever_the_text(name: str, prompt: str, response: str) -> None:
    template = resolve_template(name, byte_level(chat=CHAT_TEMPLATES["chatml"]))
    rendered = template.render(pair(prompt, response))
    end = "<|im_end|>" if name == "chat" else "</s>"
    after = " ." if name.startswith("Q") else ""
    whole = response + after
    assert said(rendered) == [whole if whole.endswith(end) and name != "chat" else whole + end]
    assert rendered.text.startswith(template.question_text(Row("a", 0, prompt=prompt)))


@pytest.mark.parametrize(
    ("prompt", "response", "text"),
    [
        ("The sky is", "blue", "The sky is blue</s>"),
        ("The sky is ", "blue", "The sky is blue</s>"),
        ("The sky is", " blue", "The sky is blue</s>"),
        ("Sky?\n", "blue", "Sky?\nblue</s>"),
        ("", "blue", "blue</s>"),
    ],
)
def test_plain_puts_one_space_where_there_is_none(prompt: str, response: str, text: str) -> None:
    rendered = resolve_template("plain", byte_level()).render(pair(prompt, response))
    assert rendered.text == text
    assert said(rendered) == [f"{response}</s>"]


def test_text_rows_are_written_as_they_are() -> None:
    row = Row(id="a", ordinal=0, text="Once upon a time")
    for name in ("plain", "alpaca", "{prompt}|{response}", "chat"):
        rendered = resolve_template(name, byte_level(chat=INST)).render(row)
        assert rendered == Rendered("Once upon a time</s>", ((0, 20),))


def test_end_of_text_is_not_doubled() -> None:
    rendered = resolve_template("plain", byte_level()).render(pair("p", "done</s>"))
    assert rendered.text == "p done</s>"
    without = byte_level()
    without.eos_token = None
    assert resolve_template("plain", without).render(pair("p", "r")).text == "p r"


def test_format_takes_escapes_from_the_shell_and_keeps_other_braces() -> None:
    template = resolve_template(r"{x} {prompt}\n\t{response}", byte_level())
    assert template.render(pair("{response}", "{prompt}")).text == "{x} {response}\n\t{prompt}</s>"
    assert template.question_text(Row("a", 0, prompt="p")) == "{x} p\n\t"


@pytest.mark.parametrize("name", ["chat", "plain", "alpaca", r"Q: {prompt}\nA: {response}"])
def test_the_fingerprints_name_resolves_to_the_same_template(name: str) -> None:
    tokenizer = byte_level(chat=INST)
    template = resolve_template(name, tokenizer)
    again = resolve_template(template.fingerprint["name"], tokenizer)
    assert again.fingerprint == template.fingerprint
    assert again.render(pair("p", "r")) == template.render(pair("p", "r"))


EXCHANGE = (("system", "Be brief."), ("user", "Hi"), ("assistant", " Hello "), ("user", "Bye"), ("assistant", "Ciao"))
TURNS = {
    "chatml": [" Hello <|im_end|>", "Ciao<|im_end|>"],
    "inst": ["  Hello </s>", " Ciao</s>"],
    "trimmed": ["Hello</s>", "Ciao</s>"],
    "unclosed": [" Hello ", "Ciao\n</s>"],
    "thinking": [" Hello <|im_end|>", "<think>\n\n</think>\n\nCiao<|im_end|>"],
}


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_every_assistant_turn_is_a_target(name: str) -> None:
    tokenizer = byte_level(chat=CHAT_TEMPLATES[name])
    rendered = resolve_template("chat", tokenizer).render(chat(*EXCHANGE))
    assert said(rendered) == TURNS[name]
    messages = [{"role": role, "content": content} for role, content in EXCHANGE]
    written = tokenizer.apply_chat_template(messages, tokenize=False)
    assert rendered.text == (written + "</s>" if name == "unclosed" else written)


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_turn_after_the_last_answer_is_no_target(name: str) -> None:
    template = resolve_template("chat", byte_level(chat=CHAT_TEMPLATES[name]))
    rendered = template.render(chat(("user", "Hi"), ("assistant", "Hello"), ("user", "Hello")))
    (turn,) = said(rendered)
    assert turn in ("Hello<|im_end|>", " Hello</s>", "Hello</s>", "Hello")


@QUICK
@given(prompt=ANY_TEXT, response=ANY_TEXT)
@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_chat_finds_any_response(name: str, prompt: str, response: str) -> None:
    template = resolve_template("chat", byte_level(chat=CHAT_TEMPLATES[name]))
    rendered = template.render(pair(prompt, response))
    ((start, end),) = rendered.targets
    assert rendered.text[:start] == template.question_text(Row("a", 0, prompt=prompt))
    assert response.strip() in rendered.text[start:end]
    assert not rendered.text[end:].strip()


def test_the_date_of_a_template_stands_still() -> None:
    tokenizer = byte_level(chat=DATED)
    rendered = resolve_template("chat", tokenizer).render(pair("p", "r"))
    assert rendered.text.startswith("Today is 26 Jul 2024.\n<|im_start|>user\np")


SILENT = "{% for m in messages %}{{ m.role }} spoke{% endfor %}"
REFUSING = "{{ raise_exception('only users may speak') }}"
ALIGN = "(take another template: plain, alpaca or a format string)"

CHAT_FAULTS: dict[str, tuple[str, Row, str]] = {
    "silent": (SILENT, pair("p", "r"), f"chat template: the chat template writes no answer {ALIGN}"),
    "refusing": (
        REFUSING,
        pair("p", "r"),
        f"rows.jsonl:1: the chat template refuses this chat: only users may speak {ALIGN}",
    ),
    "no assistant": (
        INST,
        chat(("user", "Hello")),
        "rows.jsonl:1: no assistant turn (the assistant's turns are what a model learns)",
    ),
    "no response": (
        INST,
        Row(id="a", ordinal=0, prompt="p", place="rows.jsonl:1"),
        "rows.jsonl:1: no response (give it a response or a text)",
    ),
}


@pytest.mark.parametrize("fault", CHAT_FAULTS)
def test_chats_that_cannot_be_read_are_refused(fault: str) -> None:
    source, row, message = CHAT_FAULTS[fault]
    with pytest.raises(HeadwaterError) as caught:
        resolve_template("chat", byte_level(chat=source)).render(row)
    assert isinstance(caught.value, (DataError, ModelError))
    assert str(caught.value) == message


NAME_FAULTS: dict[str, tuple[str, type[HeadwaterError], str]] = {
    "chat": (
        "chat",
        ModelError,
        f"template: this tokenizer has no chat template ({NO_CHATS_REMEDY})",
    ),
    "typo": ("alpacca", UsageError, "template: unknown template 'alpacca' (did you mean 'alpaca'?)"),
    "no response": (
        "Q: {prompt}",
        UsageError,
        "template: a format without its two places: 'Q: {prompt}' (write {prompt} once and after it {response} once)",
    ),
    "wrong order": (
        "{response}{prompt}",
        UsageError,
        "template: a format without its two places: '{response}{prompt}' "
        "(write {prompt} once and after it {response} once)",
    ),
    "twice": (
        "{prompt}{prompt}{response}",
        UsageError,
        "template: a format without its two places: '{prompt}{prompt}{response}' "
        "(write {prompt} once and after it {response} once)",
    ),
}


@pytest.mark.parametrize("fault", NAME_FAULTS)
def test_unknown_templates_are_refused(fault: str) -> None:
    name, kind, message = NAME_FAULTS[fault]
    tokenizer: Any = byte_level()
    with pytest.raises(kind) as caught:
        resolve_template(name, tokenizer)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("written", "date"),
    [
        ("'%A, %d %B %Y'", "Friday, 26 July 2024"),
        ('"%Y-%m-%dT%H:%M:%S"', "2024-07-26T12:00:00"),
        ("format='%j %a %I %p'", "208 Fri 12 PM"),
        ("'%x%%d'", "07/26/24%d"),
        ("'%-m/%e %Z%z'", "7/26 "),
    ],
)
def test_every_way_to_write_the_date_is_fixed(written: str, date: str) -> None:
    for program in (CHAT_TEMPLATES["chatml"], "{% generation %}{% endgeneration %}" + CHAT_TEMPLATES["chatml"]):
        dated = byte_level(chat=f"Now {{{{ strftime_now({written}) }}}}." + program)
        rendered = resolve_template("chat", dated).render(pair("p", "r"))
        assert rendered.text.startswith(f"Now {date}.<|im_start|>")


def test_a_template_with_a_date_keeps_its_fingerprint() -> None:
    macro = (
        "{% macro strftime_now(format) %}{{ format | replace('%d', '26') | replace('%m', '07') | replace('%b', 'Jul')"
        " | replace('%B', 'July') | replace('%y', '24') | replace('%Y', '2024') }}{% endmacro %}"
    )
    assert resolve_template("chat", byte_level(chat=DATED)).fingerprint["template"] == digest(macro + DATED)
    hours = DATED.replace("%Y", "%H")
    assert resolve_template("chat", byte_level(chat=hours)).fingerprint["template"] != digest(macro + hours)
