"""The assistant's turns are found in the text of templates of every habit, each with the token that closes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from spot_tokenizers import CHATML, INST, byte_level

from headwater.core.errors import DataError, HeadwaterError, ModelError
from headwater.data.rows import Row, with_response
from headwater.data.templates import resolve_template
from headwater.data.tokens import Tokenization

ASK, SAY = "Tide at noon?", "It is high."
CHAT = [("user", ASK), ("assistant", SAY), ("user", "And six?"), ("assistant", "Low."), ("user", "Sure?")]
CHAT = [*CHAT, ("assistant", "Yes.")]
THOUGHT = "<think>\nIt is noon.\n</think>\n\n"

# each template as one line of Jinja for a message `m`, and a generation prompt
EACH = "{{% for m in messages %}}{turn}{{% endfor %}}{{% if add_generation_prompt %}}{prompt}{{% endif %}}"
FRAME = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
OPENS_GONE = EACH.format(
    turn="{% if m.role == 'assistant' %}<|im_start|>assistant{{ m.content.split('</think>')[-1] }}<|im_end|>"
    "{% else %}<|im_start|>{{ m.role }}{{ m.content }}{% endif %}",
    prompt="<|im_start|>assistant<think>\n",
)
OPENS_LAST = EACH.format(
    turn="{% if m.role == 'assistant' %}<|im_start|>assistant\n{% if loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% else %}" + FRAME + "{% endif %}",
    prompt="<|im_start|>assistant\n<think>\n",
)
OTHER_END = EACH.format(
    turn="<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "{% if m.role == 'assistant' and loop.last %}<|return|>{% else %}<|end|>{% endif %}",
    prompt="<|start|>assistant",
)
END_AND_EOS = EACH.format(
    turn="<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% if loop.last and m.role == 'assistant' %}</s>{% endif %}",
    prompt="<|assistant|>\n",
)
NEXT_ENDS = EACH.format(turn="<|{{ m.role }}|>\n{{ m.content | trim }}", prompt="<|assistant|>\n")
ASIDE = EACH.format(  # the first user turn's note moves to the last user turn
    turn="{% if m.role == 'user' %}[INST] {% if loop.index0 >= messages | length - 2 %}Be brief. {% endif %}"
    "{{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}",
    prompt="",
)
SHOUTS = EACH.format(turn="<|{{ m.role }}|>{{ m.content | upper }}</s>", prompt="<|assistant|>")
STRANGER = EACH.format(turn="{{ m.role }}: {{ m.content }}</s>", prompt="ASSISTANT: ")
PARTS = EACH.format(
    turn="{{ m.role | capitalize }}: {% for part in m.content %}{{ part['text'] }}{% endfor %}</s>\n",
    prompt="Assistant:",
)
MARKED = EACH.format(
    turn="{% if m.role == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ m.content }}<|im_end|>\n"
    "{% endgeneration %}{% else %}" + FRAME + "{% endif %}",
    prompt="<|im_start|>assistant\n",
)

SAID: dict[str, tuple[str, list[str]]] = {
    "the prompt opens a thought, history has none": (OPENS_GONE, ["{}<|im_end|>"] * 3),
    "the prompt opens a thought, the last answer has one": (
        OPENS_LAST,
        ["{}<|im_end|>", "{}<|im_end|>", "\n</think>\n\n{}<|im_end|>"],
    ),
    "the last answer is closed by another token": (
        OTHER_END,
        ["<|message|>{}<|end|>", "<|message|>{}<|end|>", "<|message|>{}<|return|>"],
    ),
    "the last answer is closed by one more token": (END_AND_EOS, ["{}<|end|>", "{}<|end|>", "{}<|end|>\n</s>"]),
    "the next turn's token closes an answer": (NEXT_ENDS, ["{}<|user|>", "{}<|user|>", "{}</s>"]),
    "the text before an answer changes": (ASIDE, [" {}</s>"] * 3),
    "the generation prompt is another": (STRANGER, ["{}</s>"] * 3),
    "texts come in parts": (PARTS, [" {}</s>"] * 3),
    "the template marks answers": (MARKED, ["{}<|im_end|>\n"] * 3),
}


OWN_PROMPT = SAID.keys() - {"the prompt opens a thought, history has none", "the generation prompt is another"}
"""Habits in which a row goes on where the generation prompt ends."""


def chat(*turns: tuple[str, str], **fields: Any) -> Row:
    messages = tuple({"role": role, "content": content} for role, content in turns)
    return Row(id="a", ordinal=0, messages=messages, place="rows.jsonl:1", **fields)


def said(source: str, row: Row, name: str = "chat") -> list[str]:
    rendered = resolve_template(name, byte_level(chat=source)).render(row)
    return [rendered.text[start:end] for start, end in rendered.targets]


@pytest.mark.parametrize("habit", SAID)
def test_every_turn_is_found_with_its_own_closing_token(habit: str) -> None:
    source, frames = SAID[habit]
    answers = [text for role, text in CHAT if role == "assistant"]
    assert said(source, chat(*CHAT)) == [f.format(text) for f, text in zip(frames, answers, strict=True)]
    assert said(source, chat(*CHAT[:2])) == [frames[-1].format(answers[0])]
    assert said(source, chat(*CHAT[:3])) == [frames[0].format(answers[0])]


@pytest.mark.parametrize("habit", SAID)
def test_an_answer_may_repeat_any_text_around_it(habit: str) -> None:
    source, frames = SAID[habit]
    answers = [ASK, "<think>", "assistant"] if habit != "the prompt opens a thought, history has none" else [ASK] * 3
    turns = [turn for text in answers for turn in (("user", ASK), ("assistant", text))]
    assert said(source, chat(*turns)) == [f.format(text) for f, text in zip(frames, answers, strict=True)]


def test_a_marker_is_not_cut_where_an_answer_begins_with_another() -> None:
    source = EACH.format(
        turn="{% if m.role == 'assistant' %}<|im_start|>assistant\n{% if '<' not in m.content %}<think></think>"
        "{% endif %}{{ m.content }}<|im_end|>\n{% else %}" + FRAME + "{% endif %}",
        prompt="<|im_start|>assistant\n<think>\n",
    )
    assert said(source, chat(("user", ASK), ("assistant", "<b>Noon.</b>"))) == ["<b>Noon.</b><|im_end|>"]
    assert said(source, chat(("user", ASK), ("assistant", SAY))) == [f"</think>{SAY}<|im_end|>"]


def test_answers_that_the_template_alters() -> None:
    assert said(SHOUTS, chat(*CHAT)) == ["IT IS HIGH.</s>", "LOW.</s>", "YES.</s>"]
    assert said(OPENS_GONE, chat(("user", ASK), ("assistant", THOUGHT + SAY))) == [f"\n\n{SAY}<|im_end|>"]


def for_last_answer(row: Row) -> Row:
    """The row with its chat's last assistant turn as the only target; earlier turns get the weight 0."""
    spoken = [i for i, message in enumerate(row.messages or ()) if message["role"] == "assistant"]
    if row.messages is None or not spoken:
        return row
    weights = {i: {"weight": 0} for i in spoken[:-1]} | {spoken[-1]: {"weight": 1, "train": True}}
    return replace(row, messages=tuple({**m, **weights.get(i, {})} for i, m in enumerate(row.messages)))


@pytest.mark.parametrize("habit", SAID)
def test_the_question_is_the_row_before_its_last_answer_and_where_it_can_be_the_templates_own(habit: str) -> None:
    tokenizer = byte_level(chat=SAID[habit][0])
    tokenization = Tokenization.of(tokenizer)
    row = chat(*CHAT)
    (tokens,) = tokenization.encode([row])
    (last,) = tokenization.encode([for_last_answer(row)])
    before = int(last.response.argmax())
    assert last.ids.tolist() == tokens.ids.tolist()
    assert last.response[before:].tolist() == tokens.response[before:].tolist()
    asked = [dict(message) for message in (row.messages or ())[:-1]]
    if habit == "texts come in parts":
        asked = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in asked]
    own = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    question = tokenization.question(row)
    if habit in OWN_PROMPT:
        assert question.text + question.begun == own
    assert question == tokenization.question(chat(*CHAT[:-1]))
    assert list(question.ids) == tokens.ids[: len(question.ids)].tolist()
    assert tokens.text[len(question.text) : int(last.offsets[before, 0])] in ("", question.begun)


def test_another_answer_keeps_the_chat() -> None:
    answered = with_response(chat(*CHAT), "No.")
    assert said(CHATML, answered) == [f"{SAY}<|im_end|>", "Low.<|im_end|>", "No.<|im_end|>"]
    assert with_response(chat(*CHAT[:-1]), "No.").messages == answered.messages


def test_turns_of_weight_0_are_context() -> None:
    row = chat(*CHAT)
    messages = [dict(message) for message in row.messages or ()]
    messages[1]["weight"], messages[3]["train"] = 0, False
    assert said(CHATML, Row("a", 0, messages=tuple(messages))) == ["Yes.<|im_end|>"]
    assert said(CHATML, for_last_answer(row)) == ["Yes.<|im_end|>"]


def test_a_system_turn_that_the_template_lacks_is_folded_when_asked() -> None:
    row = chat(("system", "Be brief."), *CHAT[:2])
    no_system = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
    )
    silent = EACH.format(turn="{% if m.role != 'system' %}" + FRAME + "{% endif %}", prompt="")
    for source in (no_system + CHATML, silent):
        with pytest.raises(DataError) as caught:
            said(source, row)
        assert str(caught.value) == (
            "rows.jsonl:1: the chat template has no system turn"
            " (--template chat:fold-system puts its text at the beginning of the first user turn)"
        )
        template = resolve_template("chat:fold-system", byte_level(chat=source))
        folded = chat(("user", f"Be brief.\n\n{ASK}"), ("assistant", SAY))
        assert template.render(row).text == template.render(folded).text
        assert template.fingerprint["name"] == "chat:fold-system"
    assert said(CHATML, row, "chat:fold-system") == [f"{SAY}<|im_end|>"]


def test_a_developer_is_the_system_where_the_template_has_no_developer() -> None:
    known = EACH.format(turn="{% if m.role in ('system', 'user', 'assistant') %}" + FRAME + "{% endif %}", prompt="")
    for source, role in ((known, "system"), (CHATML, "developer")):
        template = resolve_template("chat", byte_level(chat=source))
        text = template.render(chat(("developer", "Be brief."), *CHAT[:2])).text
        assert text.startswith(f"<|im_start|>{role}\nBe brief.<|im_end|>")


def test_the_assistant_may_begin() -> None:
    row = chat(("assistant", "Hello, sailor."), *CHAT[:2])
    assert said(CHATML, row) == ["Hello, sailor.<|im_end|>", f"{SAY}<|im_end|>"]


CALL = {"id": "c1", "type": "function", "function": {"name": "tide", "arguments": {"hour": 12}}}
CALLED: tuple[Mapping[str, Any], ...] = (
    {"role": "user", "content": ASK},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "2.1 m", "tool_call_id": "c1"},
    {"role": "assistant", "content": "It is 2.1 m."},
)
CALLING = EACH.format(
    turn="<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }} {{ ARGUMENTS }}</call>{% endfor %}<|im_end|>\n",
    prompt="<|im_start|>assistant\n",
)
TOOLS = [{"type": "function", "function": {"name": "tide", "parameters": {"type": "object", "properties": {}}}}]


@pytest.mark.parametrize("arguments", ["c.function.arguments | tojson", "'' + c.function.arguments"])
def test_tool_calls_are_said_by_the_assistant_and_tools_are_handed_to_the_template(arguments: str) -> None:
    source = "{% for t in tools or [] %}{{ t.function.name }}!\n{% endfor %}" + CALLING.replace("ARGUMENTS", arguments)
    row = Row("a", 0, messages=CALLED, metadata={"tools": TOOLS})
    assert said(source, row) == ['<call>tide {"hour": 12}</call><|im_end|>', "It is 2.1 m.<|im_end|>"]
    rendered = resolve_template("chat", byte_level(chat=source)).render(row)
    assert rendered.text.startswith("tide!\n<|im_start|>user")


def test_a_chats_own_settings_reach_the_template() -> None:
    source = CHATML.replace("{{ m.content }}", "{{ m.content }}{{ '/quick' if quick is defined and quick }}")
    for settings in ({"quick": True, "other": None}, '{"quick": true}'):
        row = Row("a", 0, messages=chat(*CHAT[:2]).messages, metadata={"chat_template_kwargs": settings})
        assert said(source, row) == [f"{SAY}/quick<|im_end|>"]
        question = resolve_template("chat", byte_level(chat=source)).question_text(row)
        assert question == f"<|im_start|>user\n{ASK}/quick<|im_end|>\n<|im_start|>assistant\n"
    assert said(source, chat(*CHAT[:2])) == [f"{SAY}<|im_end|>"]


def test_a_tokenizer_may_have_another_template_for_tools() -> None:
    tokenizer = byte_level(chat=CHATML)
    tokenizer.chat_template = {"default": CHATML, "tool_use": "TOOLS\n" + CALLING.replace("ARGUMENTS", "''")}
    template = resolve_template("chat", tokenizer)
    assert template.render(Row("a", 0, messages=CALLED, metadata={"tools": TOOLS})).text.startswith("TOOLS\n")
    assert template.render(chat(*CHAT)).text.startswith("<|im_start|>")
    tokenizer.chat_template = {"one": CHATML, "another": INST}
    with pytest.raises(ModelError, match="several chat templates and no default: one, another"):
        resolve_template("chat", tokenizer).render(chat(*CHAT))


def test_a_mark_in_a_comment_is_none() -> None:
    assert said("{# no {% generation %} here #}" + CHATML, chat(*CHAT[:2])) == [f"{SAY}<|im_end|>"]


def test_a_template_that_leaves_out_a_call_is_refused() -> None:
    with pytest.raises(DataError, match="message 1: the chat template does not write the call of the tool 'tide'"):
        said(CHATML, Row("a", 0, messages=CALLED))


def test_a_chat_without_a_template_is_refused_unless_plain_is_asked_for() -> None:
    row = chat(*CHAT[:2], prompt=ASK, response=SAY)
    bare = byte_level()
    with pytest.raises(HeadwaterError) as caught:
        resolve_template(None, bare).render(row)
    assert str(caught.value).startswith("rows.jsonl:1: a chat, and this tokenizer has no chat template (--template")
    again = Tokenization.like(bare, Tokenization.of(bare).fingerprint)
    with pytest.raises(DataError):
        again.encode([row])
    assert resolve_template("plain", bare).render(row).text == f"{ASK} {SAY}</s>"


def test_a_template_of_ones_own(tmp_path: Any) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text(CHATML)
    bare = byte_level()
    template = resolve_template(str(path), bare)
    assert template.render(chat(*CHAT)) == resolve_template("chat", byte_level(chat=CHATML)).render(chat(*CHAT))
    path.unlink()
    again = resolve_template(template.fingerprint["name"], bare)
    assert again.fingerprint == template.fingerprint
    with pytest.raises(HeadwaterError, match="the chat template cannot be read"):
        resolve_template(str(path), bare)


def test_templates_without_generation_prompt_of_their_own_are_as_before() -> None:
    assert said(INST, chat(*CHAT)) == [f" {SAY}</s>", " Low.</s>", " Yes.</s>"]
