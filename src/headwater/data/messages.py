"""The messages of a chat as data sets write them, and as chat templates want them.

| written as | becomes |
|---|---|
| `role` and `content` | the same; roles in lower case |
| ShareGPT's `from` and `value` | `role` and `content`; human, gpt and observation are user, assistant and tool |
| `content` in parts | one text; thinking parts become `reasoning_content` |
| `content` null beside `tool_calls` | the same; the calls may be JSON text |
| `content` null of a user, or of an assistant with an empty list of calls | an empty text |
| the `content` of a tool, an object | its JSON text |
| ShareGPT's `function_call` turns, OpenAI's `function_call` field | `tool_calls` |
| `weight` or `train` | the same: 0 and false make an assistant turn context |

A template gets all other fields of a message as they are.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from headwater.core.errors import DataError

Message = Mapping[str, Any]

SPEAKERS = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "ai", "bot"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "tool"),
    **{name: name for name in ("system", "developer", "function_call", "tool_call")},
}
"""ShareGPT's names of speakers and the roles they are."""

RENAMED = ("human", "prompter", "gpt", "chatgpt", "bing", "bard", "model", "ai", "bot")
"""Names that no chat template has as a role, so they are renamed wherever they stand."""

RESULTS = ("tool", "function", "ipython")
"""Roles whose content is what a tool gave back."""

THOUGHTS = ("thinking", "reasoning")
"""Types of a part that holds a thought, and the fields with its text."""


def read_messages(value: Any, column: str, where: str) -> tuple[Message, ...]:
    """The messages of a record's column; raises `DataError` naming the message that cannot be read."""
    value = _parsed(value)  # a CSV file holds the list as JSON
    if not isinstance(value, (list, tuple)) or not value:
        remedy = "a list of objects with 'role' and 'content', or with 'from' and 'value'"
        raise DataError(f"'{column}' is not a list of messages", where=where, remedy=remedy)
    return tuple(_read_message(message, f"{column}[{i}]", where) for i, message in enumerate(value))


def read_tools(value: Any, column: str, where: str) -> list[Any]:
    """The tools that a chat may call, given as a list or as JSON text; empty if there are none."""
    found = _parsed(value)
    tools = [] if found is None or found == "" else found
    tools = [_parsed(tool) for tool in tools] if isinstance(tools, (list, tuple)) else [None]
    if not all(isinstance(tool, Mapping) for tool in tools):
        remedy = "a list of objects, or such a list as JSON text"
        raise DataError(f"'{column}' is not a list of tools", where=where, remedy=remedy)
    _require_json(tools, column, where)
    return tools


def read_settings(value: Any, column: str, where: str) -> dict[str, Any]:
    """What a chat's template is given besides the messages: an object, or one as JSON text; empty if there is none."""
    settings = _parsed(value)
    nan = isinstance(settings, float) and math.isnan(settings)  # what a data frame writes where there is no value
    if settings is None or settings == "" or nan:
        return {}
    if not isinstance(settings, Mapping):
        raise DataError(
            f"'{column}' is not a JSON object", where=where, remedy='for example {"enable_thinking": false}'
        )
    return dict(settings)


def is_chat(value: Any) -> bool:
    """Whether a column that may hold a text holds a list of messages, or such a list as JSON text."""
    found = _parsed(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    first = found[0] if isinstance(found, (list, tuple)) and found else None
    return isinstance(first, Mapping) and any(name in first for name in ("role", "from"))


def starts_with_system(value: Any) -> bool:
    """Whether a list of messages, or such a list as JSON text, begins with a system turn."""
    found = _parsed(value)
    first = found[0] if isinstance(found, (list, tuple)) and found else None
    role = first.get("role", first.get("from")) if isinstance(first, Mapping) else None
    return isinstance(role, str) and role.lower() in ("system", "developer")


def as_context(messages: Sequence[Message]) -> list[Message]:
    """The messages of a prompt: none of their assistant turns is learned unless its `weight` says so."""
    return [{"weight": 0, **m} if m["role"] == "assistant" else m for m in messages]


def readable(messages: Sequence[Message], where: str, *, need_response: bool = True) -> tuple[str, str | None]:
    """The text before the last assistant turn (a single user turn, or `role: content` lines), and that turn.

    Without `need_response` a chat that does not end with the assistant has no response yet.
    """
    spoken = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not need_response and messages[-1]["role"] != "assistant":
        return _lines(messages), None
    if not spoken or not shown(messages[spoken[-1]]).strip():
        fault = "no assistant turn" if not spoken else "no text: the last assistant turn is empty"
        raise DataError(fault, where=where, remedy="the assistant's turns are what a model learns")
    return _lines(messages[: spoken[-1]]), shown(messages[spoken[-1]])


def shown(message: Message) -> str:
    """A message's text, and the tool calls in it as `name(arguments)`."""
    calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
    written = [f"{call.get('name')}({_as_text(call.get('arguments'))})" for call in calls]
    return "\n".join(part for part in (message.get("content") or "", *written) if part)


def require_text(value: Any, column: str, where: str) -> str:
    """Return `value` if it is a string that can be written as UTF-8; raise `DataError` otherwise."""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise DataError(f"'{column}' is of type {kind}, not text", where=where, remedy="write it as a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        fault = f"'{column}' has half a surrogate pair at character {error.start}"
        raise DataError(fault, where=where, remedy="write the whole character") from None
    return value


def _read_message(message: Any, name: str, where: str) -> Message:
    remedy = "every message has 'role' and 'content' (or 'from' and 'value'); the content may be null beside tool_calls"
    if not isinstance(message, Mapping):
        raise DataError(f"{name} has no 'role' and 'content'", where=where, remedy=remedy)
    fields = {str(key): value for key, value in message.items() if value is not None}
    if "role" not in fields and "from" in fields:
        fields = _from_sharegpt(fields, name, where)
    if "function_call" in fields:
        fields["tool_calls"] = [_as_call(_parsed(fields.pop("function_call")))]
    if "tool_calls" in fields:
        fields["tool_calls"] = _read_calls(fields["tool_calls"], f"{name}.tool_calls", where)
    if "role" in fields:
        fields["role"] = _read_role(require_text(fields["role"], f"{name}.role", where))
        if "content" not in fields and _may_be_empty(fields, message):
            fields["content"] = ""
    if "role" not in fields or ("content" not in fields and not fields.get("tool_calls")):
        raise DataError(f"{name} has no 'role' and 'content'", where=where, remedy=remedy)
    if fields["role"] in RESULTS and "content" in fields:
        fields["content"] = _read_result(fields["content"], f"{name}.content", where)
    if "content" in fields:
        fields |= _read_content(fields["content"], f"{name}.content", where)
    _require_weight(fields, name, where)
    for key, value in fields.items():
        _require_json(value, f"{name}.{key}", where)
    return fields if "content" in fields else {**fields, "content": None}


def _read_role(role: str) -> str:
    """The role as chat templates have it, whatever its case; a role that no data set is known to have as it is."""
    name = role.lower()
    return SPEAKERS[name] if name in RENAMED else name if name in SPEAKERS else role


def _may_be_empty(fields: Mapping[str, Any], message: Mapping[Any, Any]) -> bool:
    """Whether a null content is an empty text: that of anyone but an assistant, or beside an empty list of calls."""
    null = any(name in message for name in ("content", "value"))
    return null and (fields["role"] != "assistant" or fields.get("tool_calls") == [])


def _read_result(content: Any, name: str, where: str) -> Any:
    """What a tool gave back: text or parts as they are, any other JSON value as its text."""
    parts = isinstance(content, (list, tuple)) and all(
        isinstance(part, str) or (isinstance(part, Mapping) and ("type" in part or "text" in part)) for part in content
    )
    if isinstance(content, str) or parts:
        return content
    _require_json(content, name, where)
    return json.dumps(content, ensure_ascii=False)


def _from_sharegpt(fields: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    speaker, value = fields.pop("from"), fields.pop("value", fields.pop("content", None))
    speaker = speaker.lower() if isinstance(speaker, str) and speaker.lower() in SPEAKERS else speaker
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        raise DataError(f"{name} is from {speaker!r}", where=where, remedy=f"known: {', '.join(SPEAKERS)}")
    role = SPEAKERS[speaker]
    if role not in ("function_call", "tool_call"):
        return {**fields, "role": role} | ({} if value is None else {"content": value})
    called = _parsed(value)
    calls = called if isinstance(called, list) else [called]
    if all(isinstance(call, Mapping) and "name" in call for call in calls):
        return {**fields, "role": "assistant", "tool_calls": [_as_call(call) for call in calls]}
    return {**fields, "role": "assistant", "content": value}


def _as_call(function: Any) -> Any:
    return {"type": "function", "function": function}


def _read_calls(value: Any, name: str, where: str) -> list[Any]:
    calls = _parsed(value)
    functions = [c.get("function", c) for c in calls if isinstance(c, Mapping)] if isinstance(calls, list) else []
    named = [f for f in functions if isinstance(f, Mapping) and isinstance(f.get("name"), str)]
    if not isinstance(calls, list) or len(named) < len(calls):
        remedy = "a list of objects, each with a 'function' that has 'name' and 'arguments'"
        raise DataError(f"'{name}' is not a list of tool calls", where=where, remedy=remedy)
    return calls


def _read_content(content: Any, name: str, where: str) -> dict[str, str]:
    """The fields of a message with this content: one text, and what parts of it are thoughts."""
    if not isinstance(content, (list, tuple)):
        return {"content": require_text(content, name, where)}
    texts: list[str] = []
    thoughts: list[str] = []
    for i, part in enumerate(content):
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        field = next((f for f in (kind, "text") if isinstance(part, Mapping) and f in part), "")
        if kind in THOUGHTS and field:
            thoughts.append(require_text(part[field], f"{name}[{i}].{field}", where))
        elif kind in ("text", "input_text", "output_text"):
            text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
            texts.append(require_text(text, f"{name}[{i}].text", where))
        else:
            what = f"'{name}[{i}]' is a part of type {kind}, not text"
            raise DataError(what, where=where, remedy="headwater reads texts: leave the row out")
    return {"content": "".join(texts)} | ({"reasoning_content": "".join(thoughts)} if thoughts else {})


def _require_weight(fields: Mapping[str, Any], name: str, where: str) -> None:
    for key in ("weight", "train"):
        if key in fields and fields[key] not in (0, 1):
            what = f"{name}.{key} is {fields[key]!r}"
            raise DataError(what, where=where, remedy="1 if the model learns the turn, else 0")


def _require_json(value: Any, name: str, where: str) -> None:
    if isinstance(value, str):
        require_text(value, name, where)
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"'{name}' is no JSON value: {error}", where=where, remedy="write it as JSON has it") from None


def _parsed(value: Any) -> Any:
    """The value of JSON text; anything else as it is."""
    if isinstance(value, str):
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(value)
    return value


def _lines(messages: Sequence[Message]) -> str:
    if len(messages) == 1 and messages[0]["role"] == "user":
        return shown(messages[0])
    return "\n".join(f"{message['role']}: {shown(message)}" for message in messages)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
