"""Chats in the shapes that data sets have are the same chats."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from spot_tokenizers import CHATML, byte_level

from headwater.core.errors import DataError
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.data.templates import resolve_template

USER, SAID = {"role": "user", "content": "Tide?"}, {"role": "assistant", "content": "High."}
SYSTEM = {"role": "system", "content": "Be brief."}
FUNCTION = {"name": "tide", "arguments": {"hour": 12}}
CALL = {"type": "function", "function": FUNCTION}
CALLED = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "2 m"}, SAID]
TOOL = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object", "properties": {}}}}


def turns(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"from": speaker, "value": value} for speaker, value in pairs]


SAME: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "ShareGPT": ({"conversations": turns(("human", "Tide?"), ("gpt", "High."))}, [USER, SAID]),
    "ShareGPT, other names": (
        {"conversations": turns(("system", "Be brief."), ("user", "Tide?"), ("chatgpt", "High."))},
        [SYSTEM, USER, SAID],
    ),
    "ShareGPT with a system column": (
        {"conversations": turns(("human", "Tide?"), ("bing", "High.")), "system": "Be brief."},
        [SYSTEM, USER, SAID],
    ),
    "ShareGPT in other letter case": ({"messages": turns(("Human", "Tide?"), ("GPT", "High."))}, [USER, SAID]),
    "roles in other letter case": (
        {"messages": [{**USER, "role": "User"}, {**SAID, "role": "ASSISTANT"}]},
        [USER, SAID],
    ),
    "a system column": ({"messages": [USER, SAID], "system": "Be brief."}, [SYSTEM, USER, SAID]),
    "conversation with a system column": (
        {"conversation": [USER, SAID], "system": "Be brief."},
        [SYSTEM, USER, SAID],
    ),
    "a prompt that is a chat, with a system column": (
        {"prompt": [USER], "response": [SAID], "system": "Be brief."},
        [SYSTEM, USER, SAID],
    ),
    "a system column beside a system turn": ({"messages": [SYSTEM, USER, SAID], "system": "No."}, [SYSTEM, USER, SAID]),
    "a system column that is no text": ({"messages": [USER, SAID], "system": {"os": "linux"}}, [USER, SAID]),
    "a user who says nothing": (
        {"messages": [{**USER, "content": None}, SAID, USER, SAID]},
        [{**USER, "content": ""}, SAID, USER, SAID],
    ),
    "an earlier answer without words and calls": (
        {"messages": [USER, {**SAID, "content": None, "tool_calls": []}, USER, SAID]},
        [USER, {**SAID, "content": "", "tool_calls": []}, USER, SAID],
    ),
    "a tool's result that is an object": (
        {"messages": [*CALLED[:2], {"role": "tool", "content": {"high": 2.5, "in": ["Köln"]}}, SAID]},
        [*CALLED[:2], {"role": "tool", "content": '{"high": 2.5, "in": ["Köln"]}'}, SAID],
    ),
    "ShareGPT with a call": (
        {
            "conversations": turns(
                ("human", "Tide?"), ("function_call", json.dumps(FUNCTION)), ("observation", "2 m"), ("gpt", "High.")
            )
        },
        CALLED,
    ),
    "from and value under messages": ({"messages": turns(("human", "Tide?"), ("gpt", "High."))}, [USER, SAID]),
    "role and content under conversations": ({"conversations": [USER, SAID]}, [USER, SAID]),
    "conversation": ({"conversation": [USER, SAID], "language": "English"}, [USER, SAID]),
    "roles of other names": ({"messages": [{**USER, "role": "human"}, {**SAID, "role": "model"}]}, [USER, SAID]),
    "JSON text": ({"messages": json.dumps([USER, SAID])}, [USER, SAID]),
    "parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Ti"}, {"type": "text", "text": "de?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "High."}]},
            ]
        },
        [USER, SAID],
    ),
    "a thought in parts": (
        {
            "messages": [
                USER,
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "Noon."}, {"text": "High."}]},
            ]
        },
        [USER, {**SAID, "reasoning_content": "Noon."}],
    ),
    "a call": ({"messages": CALLED}, CALLED),
    "a call without content": (
        {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, *CALLED[2:]]},
        CALLED,
    ),
    "calls as JSON text": (
        {"messages": [USER, {**CALLED[1], "tool_calls": json.dumps([CALL])}, *CALLED[2:]]},
        CALLED,
    ),
    "OpenAI's older call": (
        {"messages": [USER, {"role": "assistant", "content": None, "function_call": FUNCTION}, *CALLED[2:]]},
        CALLED,
    ),
    "weights": ({"messages": [USER, {**SAID, "weight": 0}, USER, SAID]}, [USER, {**SAID, "weight": 0}, USER, SAID]),
    "prompt and completion": ({"prompt": [USER], "completion": [SAID]}, [USER, SAID]),
    "prompt and response": ({"prompt": [SYSTEM, USER], "response": [SAID]}, [SYSTEM, USER, SAID]),
    "a text and a chat": ({"prompt": "Tide?", "completion": [SAID]}, [USER, SAID]),
    "a chat and a text": ({"prompt": [USER], "response": "High."}, [USER, SAID]),
    "lists as JSON text": ({"prompt": json.dumps([USER]), "completion": json.dumps([SAID])}, [USER, SAID]),
    "the prompt's answers are context": (
        {"prompt": [USER, SAID, USER], "completion": [SAID]},
        [USER, {**SAID, "weight": 0}, USER, SAID],
    ),
    "nulls of a table": ({"messages": [{**USER, "tool_calls": None}, {**SAID, "weight": None}]}, [USER, SAID]),
}


def read(record: dict[str, Any], **options: Any) -> Row:
    (row,) = open_corpus([record], **options)
    return row


@pytest.mark.parametrize("shape", SAME)
def test_every_shape_is_the_same_chat(shape: str) -> None:
    record, messages = SAME[shape]
    row = read(record)
    assert row.messages is not None
    assert [dict(message) for message in row.messages] == messages
    assert row.response == "High."
    if len(messages) == 2:
        assert row.prompt == "Tide?"


@pytest.mark.parametrize("shape", SAME)
def test_every_shape_is_written_as_the_tokenizer_writes_the_chat(shape: str) -> None:
    record, messages = SAME[shape]
    calling = CHATML.replace("{{ m.content }}", "{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls else '' }}")
    tokenizer = byte_level(chat=calling)
    rendered = resolve_template("chat", tokenizer).render(read(record))
    assert rendered.text == tokenizer.apply_chat_template(messages, tokenize=False)


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [json.dumps(TOOL)]])
def test_tools_are_metadata_that_the_template_gets(tools: Any, tmp_path: Path) -> None:
    row = read({"messages": CALLED, "tools": tools})
    assert row.tools == [TOOL]
    assert row.metadata == {"tools": [TOOL]}
    assert read({"messages": CALLED, "functions": tools}, mapping={"tools": "functions"}).metadata == row.metadata
    assert read({"messages": CALLED, "tools": "[]"}).tools is None
    assert read({"prompt": "p", "response": "r", "tools": tools}).metadata == {"tools": tools}


def test_settings_of_the_template_are_metadata() -> None:
    assert read({"messages": [USER, SAID], "chat_template_kwargs": '{"quick": true}'}).settings == {"quick": True}
    with pytest.raises(DataError, match="'chat_template_kwargs' is not a JSON object"):
        read({"messages": [USER, SAID], "chat_template_kwargs": "quick"})


@pytest.mark.parametrize("none", [None, "", "null", "{}", math.nan])
def test_no_settings_and_no_tools(none: Any) -> None:
    row = read({"messages": [USER, SAID], "chat_template_kwargs": none, "tools": "" if none == "{}" else none})
    assert row.settings == {}
    assert row.tools is None


@pytest.mark.parametrize("given", [[1], ["a", "b"], 3, True])
def test_settings_that_are_no_object(given: Any) -> None:
    with pytest.raises(DataError, match="'chat_template_kwargs' is not a JSON object"):
        read({"messages": [USER, SAID], "chat_template_kwargs": given})


def test_a_system_column_that_is_not_read_is_metadata() -> None:
    assert read({"messages": [SYSTEM, USER, SAID], "system": "No."}).metadata == {"system": "No."}
    assert read({"messages": [USER, SAID], "system": "Be brief."}).metadata == {}
    record = {"instruction": "Tide?", "output": "High.", "system": "Be brief."}
    assert (read(record).prompt, read(record).metadata) == ("Tide?", {"system": "Be brief."})
    row = read({"messages": [USER, SAID], "told": "Be brief."}, mapping={"system": "told"})
    assert row.messages == (SYSTEM, USER, SAID)


def test_a_text_that_only_looks_like_a_chat_is_a_text() -> None:
    for text in ("[1, 2]", '["role"]', "[INST] p", '{"role": "user"}', "[{"):
        assert read({"prompt": text, "response": "r"}).prompt == text


def test_conversations_beside_another_shape_are_metadata() -> None:
    record = {"prompt": "p", "response": "r", "conversations": [USER, SAID]}
    assert read(record).metadata == {"conversations": [USER, SAID]}
    assert read(record, mapping={"conversations": "conversations"}).messages is not None


def test_a_query_may_end_with_a_question() -> None:
    row = read({"messages": [SYSTEM, USER]}, need_response=False)
    assert (row.messages, row.response) == ((SYSTEM, USER), None)
    row = read({"messages": [USER, SAID, USER]}, need_response=False)
    assert (len(row.messages or ()), row.response) == (3, None)
    assert read({"messages": [USER]}, need_response=False).prompt == "Tide?"
    assert read({"messages": [USER, SAID]}, need_response=False).response == "High."


MESSAGE = "every message has 'role' and 'content' (or 'from' and 'value'); the content may be null beside tool_calls"
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no content": ({"messages": [USER, {"role": "assistant"}]}, f"messages[1] has no 'role' and 'content' ({MESSAGE})"),
    "null": ({"messages": [USER, {**SAID, "content": None}]}, f"messages[1] has no 'role' and 'content' ({MESSAGE})"),
    "picture": (
        {"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, SAID]},
        "'messages[0].content[0]' is a part of type image, not text (headwater reads texts: leave the row out)",
    ),
    "weight": (
        {"messages": [USER, {**SAID, "weight": 0.5}]},
        "messages[1].weight is 0.5 (1 if the model learns the turn, else 0)",
    ),
    "call": (
        {"messages": [USER, {**SAID, "tool_calls": [{"function": {"arguments": {}}}]}]},
        "'messages[1].tool_calls' is not a list of tool calls"
        " (a list of objects, each with a 'function' that has 'name' and 'arguments')",
    ),
    "tools": (
        {"messages": [USER, SAID], "tools": "tide"},
        "'tools' is not a list of tools (a list of objects, or such a list as JSON text)",
    ),
    "empty": ({"conversations": []}, "'conversations' is not a list of messages"),
    "no answer": (
        {"prompt": [USER], "completion": [USER]},
        "no assistant turn (the assistant's turns are what a model learns)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_chats_that_cannot_be_read_are_refused(fault: str) -> None:
    record, message = FAULTS[fault]
    with pytest.raises(DataError) as caught:
        read(record)
    assert str(caught.value).startswith(f"memory:1: {message}")


def test_an_unknown_speaker_is_refused() -> None:
    with pytest.raises(DataError, match=r"memory:1: conversations\[0\] is from 'pilot' \(known: user, human,"):
        read({"conversations": turns(("pilot", "Tide?"), ("gpt", "High."))})


def test_a_turn_that_the_template_leaves_out_is_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    skips = "{% for m in messages if m.role != 'tool' %}<{{ m.role }}>{{ m.content | upper }}</s>{% endfor %}"
    template = resolve_template("chat", byte_level(chat=skips))
    result = {"role": "tool", "content": "2 m"}
    row = read({"messages": [USER, {**SAID, "content": "Soon."}, result, SAID]})
    for _ in range(2):
        template.render(row)
    assert [record.getMessage() for record in caplog.records] == [
        "memory:1: the chat template leaves out message 2, a turn of role 'tool'"
    ]
