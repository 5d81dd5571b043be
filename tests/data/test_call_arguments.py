"""The arguments of a tool call are written alike whether a row has them as an object or as JSON text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from spot_tokenizers import byte_level
from test_trl_templates import SOURCES

from headwater.core.errors import DataError
from headwater.data.rows import Row
from headwater.data.templates import resolve_template

ARGUMENTS = {"hour": 12, "place": "Köln"}
TOOL = {"type": "function", "function": {"name": "tide", "description": "d", "parameters": {"type": "object"}}}
EACH = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls %}"
PRINTS = EACH + "{{ c.function.name }}({{ c.function.arguments }}){% endfor %}</s>{% endfor %}"


def row(arguments: Any) -> Row:
    call = {"type": "function", "id": "call00000", "function": {"name": "tide", "arguments": arguments}}
    messages = (
        {"role": "user", "content": "Tide?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "tide", "tool_call_id": "call00000", "content": "2 m"},
        {"role": "assistant", "content": "High."},
    )
    return Row("a", 0, messages=messages, metadata={"tools": [TOOL]}, place="a:1")


@pytest.mark.parametrize("name", SOURCES)
def test_json_text_is_the_object_that_it_holds(name: str) -> None:
    template = resolve_template("chat", byte_level(chat=SOURCES[name]))
    try:
        right = template.render(row(ARGUMENTS))
    except DataError:
        pytest.skip("this template has no tool calls")
    assert template.render(row(json.dumps(ARGUMENTS, ensure_ascii=False))) == right
    assert '\\"' not in right.text
    assert "'hour'" not in right.text


def test_a_template_that_prints_arguments_gets_text() -> None:
    template = resolve_template("chat", byte_level(chat=PRINTS))
    assert 'tide({"hour": 12, "place": "Köln"})' in template.render(row(ARGUMENTS)).text
    assert 'tide({"hour":12})' in template.render(row('{"hour":12}')).text


@pytest.mark.parametrize(("given", "written"), [("", "{}"), ("noon", '"noon"'), ("[1]", '"[1]"')])
def test_other_text(given: str, written: str) -> None:
    template = resolve_template("chat", byte_level(chat=SOURCES["qwen2_5"]))
    assert f'"arguments": {written}}}' in template.render(row(given)).text
