"""The shapes that records come in, and how a record of any of them becomes a `Row`.

| shape | becomes |
|---|---|
| text | text |
| prompt + response, prompt + completion, question + answer | prompt, response |
| instruction (+ input) + output | prompt (the instruction, an empty line, the input), response |
| messages, or ShareGPT's conversations | messages; prompt and response are the readable rendering |
| prompt + response or prompt + completion that are lists of messages | messages; those of the prompt are context |

A chat may have a column `tools` beside it, and a column `system`: its text is the system turn of a chat without one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from headwater.core.errors import DataError, unknown_name
from headwater.core.plain import whole_number, without_nan
from headwater.data.cells import typed
from headwater.data.messages import (
    as_context,
    is_chat,
    read_messages,
    read_settings,
    read_tools,
    readable,
    require_text,
    starts_with_system,
)
from headwater.data.pairs import SIDES, is_pair, question_column
from headwater.data.rows import Row


@dataclass(frozen=True)
class Shape:
    """Roles that together make a row: `response` (or the text), its `prompt`, and the prompt's `context`."""

    response: str
    prompt: str = ""
    context: str = ""

    @property
    def required(self) -> tuple[str, ...]:
        """The roles that must be present."""
        return (self.prompt, self.response) if self.prompt else (self.response,)

    @property
    def roles(self) -> tuple[str, ...]:
        """All its roles."""
        return (*self.required, self.context) if self.context else self.required

    def __str__(self) -> str:
        return " + ".join(self.required) + (f" + ({self.context})" if self.context else "")


SHAPES = (
    Shape("text"),
    Shape("response", prompt="prompt"),
    Shape("output", prompt="instruction", context="input"),
    Shape("completion", prompt="prompt"),
    Shape("answer", prompt="question"),
    Shape("messages"),
    Shape("conversations"),
    Shape("conversation"),
)

CHATS = ("messages", "conversations", "conversation")
"""Roles that hold a whole chat."""

LAST_RESORT = ("conversations", "conversation")
"""Chats that are read only if no other shape fits, or if the mapping names them; otherwise they are metadata."""

KNOWN_SHAPES = "; ".join(map(str, SHAPES))

EXTRA_ROLES = ("id", "hotwords")
"""Columns read in every shape."""

OTHER_ROLES = ("tools", "system", *SIDES)
"""Columns of some records: a chat's tools, which its template is given, its system turn, and the sides of a pair."""

SHAPE_ROLES = frozenset(role for shape in SHAPES for role in shape.roles)

ROLES = SHAPE_ROLES | {*EXTRA_ROLES, *OTHER_ROLES}
"""Everything a mapping can name."""

MAPPING_REMEDY = "say which column is which, such as --column prompt=NAME --column response=NAME"


Contents = tuple[str | None, str | None, str | None, tuple[Mapping[str, Any], ...] | None]
"""(text, prompt, response, messages) of a record."""


def check_mapping(mapping: Mapping[str, str], columns: Iterable[str], where: str) -> None:
    """Raise an error for an unknown role, or a column that the first record lacks."""
    there = list(columns)
    for role, column in mapping.items():
        if role not in ROLES:
            raise unknown_name("role", role, ROLES, where="mapping")
        if column not in there:
            listed = ", ".join(there)
            raise DataError(f"no column '{column}' to read as '{role}'", where=where, remedy=f"columns: {listed}")


def _missing(value: Any) -> bool:
    """Whether there is no value: None, or NaN, as data frames write it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _without_missing(record: Mapping[str, Any], mapping: Mapping[str, str]) -> Mapping[str, Any]:
    """The record, with None where a column that a role may read holds NaN."""
    columns = {mapping.get(role, role) for role in ROLES} & record.keys()
    missing = [name for name in columns if _missing(record[name])]
    return {**record, **dict.fromkeys(missing)} if missing else record


def read_row(
    record: Mapping[str, Any], mapping: Mapping[str, str], where: str, ordinal: int, *, need_response: bool = True
) -> Row:
    """The row of one record whose columns `mapping` renames (role to column), read at the place `where`.

    Its id is empty if the record has none. Columns without a role become metadata; one with the name of a field of the
    row gets an underscore behind its name (`prompt` beside `messages` is `prompt_`). Without `need_response` a record
    may have only a prompt. If several shapes fit, one whose columns are in the mapping is taken. Raises `DataError` if
    no shape fits or several still do, or if a text is missing or is not a string.
    """
    shape = _recognise(record, mapping, where, need_response)
    record = _without_missing(record, mapping)
    column_of = {role: mapping.get(role, role) for role in (*shape.roles, *EXTRA_ROLES)}
    named = {role: record.get(column_of[role]) for role in shape.roles}
    tools_column = mapping.get("tools", "tools")
    contents = _read_texts
    if _is_chat(shape, named):
        contents = _read_chat
        if _has_system_column(shape, record, mapping, named):
            shape = replace(shape, context="system")
            column_of["system"] = mapping.get("system", "system")
            named["system"] = record[column_of["system"]]
    text, prompt, response, messages = contents(shape, named, column_of, where, need_response)
    read = set(column_of.values())
    values = {name: without_nan(value) for name, value in typed(record).items() if name not in read}
    # Where rows of several shapes share a table, the columns of the other shapes are present but null.
    metadata = {n: v for n, v in values.items() if v is not None or n not in ROLES}
    if messages is not None and (given := metadata.get("chat_template_kwargs")) is not None:
        metadata["chat_template_kwargs"] = read_settings(given, "chat_template_kwargs", where)
    if messages is not None and (tools := read_tools(record.get(tools_column), tools_column, where)):
        metadata = {**{n: v for n, v in metadata.items() if n != tools_column}, "tools": tools}
    for name in ("id", "text") if text is not None else ("id", "prompt", "response"):
        if name in metadata:  # it is kept, and does not hide the row's own
            metadata[unused_name(f"{name}_", metadata)] = metadata.pop(name)
    return Row(
        id=_read_id(record.get(column_of["id"]), where),
        ordinal=ordinal,
        text=text,
        prompt=prompt,
        response=response,
        messages=messages,
        metadata=metadata,
        hotwords=_read_hotwords(record.get(column_of["hotwords"]), where),
        place=where,
    )


def _is_chat(shape: Shape, named: Mapping[str, Any]) -> bool:
    return shape.response in CHATS or (bool(shape.prompt) and any(is_chat(named.get(role)) for role in shape.required))


def _has_system_column(
    shape: Shape, record: Mapping[str, Any], mapping: Mapping[str, str], named: Mapping[str, Any]
) -> bool:
    """Whether the column `system` is a text and the system turn of a chat that does not begin with one itself."""
    given = record.get(mapping.get("system", "system"))
    there = bool(given.strip()) if isinstance(given, str) else given is not None and "system" in mapping
    return there and not shape.context and not any(starts_with_system(named.get(role)) for role in shape.required)


def unused_name(name: str, taken: Mapping[str, Any]) -> str:
    """The name, with underscores behind it until no column has it."""
    while name in taken:
        name += "_"
    return name


def _recognise(record: Mapping[str, Any], mapping: Mapping[str, str], where: str, need_response: bool) -> Shape:
    there = {role for role in SHAPE_ROLES if not _missing(record.get(mapping.get(role, role)))}
    fits = [shape for shape in SHAPES if there.issuperset(shape.required)]
    if not fits and not need_response:
        fits = list({shape.prompt: shape for shape in SHAPES if shape.prompt in there}.values())
    fits = [shape for shape in fits if shape.response not in LAST_RESORT or shape.response in mapping] or fits
    if len(fits) > 1:
        fits = [shape for shape in fits if any(role in mapping for role in shape.required)] or fits
    if len(fits) == 1:
        return fits[0]
    columns = ", ".join(map(str, record)) or "none"
    if not fits and is_pair(record, mapping):
        asked = question_column(record, mapping)
        how = f"`--pairs rows --column prompt={asked}`" if asked else "`--pairs rows`"
        remedy = f"{how}, where a command has it, reads two rows; elsewhere keep one answer, as `response`"
        raise DataError("a preference pair", where=where, remedy=remedy)
    if fits:
        several = "; ".join(map(str, fits))
        raise DataError(f"several shapes fit the columns {columns}: {several}", where=where, remedy=MAPPING_REMEDY)
    if (column := _empty_column(record, mapping, there)) is not None:
        value = "null" if record[column] is None else "NaN"
        raise DataError(f"no text: '{column}' is {value}", where=where, remedy="fill it in or drop the row")
    remedy = f"known shapes: {KNOWN_SHAPES}; {MAPPING_REMEDY}"
    raise DataError(f"no text: no known shape fits the columns {columns}", where=where, remedy=remedy)


def _empty_column(record: Mapping[str, Any], mapping: Mapping[str, str], there: set[str]) -> str | None:
    """The column whose missing value keeps the shape from fitting whose columns are all there; None if none is."""
    near = [shape for shape in SHAPES if all(mapping.get(role, role) in record for role in shape.required)]
    if not near:
        return None
    nearest = max(near, key=lambda shape: len(there.intersection(shape.required)))
    return next(mapping.get(role, role) for role in nearest.required if role not in there)


def _read_texts(
    shape: Shape, named: Mapping[str, Any], column_of: Mapping[str, str], where: str, need_response: bool
) -> Contents:
    texts = {role: require_text(value, column_of[role], where) for role, value in named.items() if value is not None}
    response, prompt, context = (texts.get(role, "") for role in (shape.response, shape.prompt, shape.context))
    needed = shape.prompt if shape.prompt and not need_response else shape.response
    if not texts[needed].strip():
        raise DataError(f"no text: '{column_of[needed]}' is empty", where=where, remedy="fill it in or drop the row")
    if not shape.prompt:
        return response, None, None, None
    whole = f"{prompt}\n\n{context}" if context.strip() else prompt
    return None, whole, response if response.strip() else None, None


def _read_chat(
    shape: Shape, named: Mapping[str, Any], column_of: Mapping[str, str], where: str, need_response: bool
) -> Contents:
    def read(role: str, speaker: str) -> list[Mapping[str, Any]]:
        value = named.get(role)
        if value is None:
            return []
        if shape.prompt and not is_chat(value):  # one of the two is a chat, the other a text
            return [{"role": speaker, "content": require_text(value, column_of[role], where)}]
        return list(read_messages(value, column_of[role], where))

    before = as_context(read(shape.prompt, "user")) if shape.prompt else []
    messages = tuple(before + read(shape.response, "assistant"))
    if system := named.get(shape.context) if shape.context else None:
        messages = ({"role": "system", "content": require_text(system, column_of[shape.context], where)}, *messages)
    prompt, response = readable(messages, where, need_response=need_response)
    if not need_response and response is None and len(messages) == 1:
        return None, prompt, None, None  # a prompt like any other
    return None, prompt, response, messages


def _read_id(value: Any, where: str) -> str:
    value = whole_number(value)
    if value is None or value == "":
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise DataError(f"id {value!r} is of type {type(value).__name__}", where=where, remedy="a string or an integer")
    return require_text(str(value), "id", where)


def _read_hotwords(value: Any, where: str) -> tuple[str, ...]:
    words = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(words, (list, tuple)):
        raise DataError(f"hotwords {value!r}", where=where, remedy="a string or a list of strings")
    return tuple(word for word in (require_text(word, "hotwords", where) for word in words) if word)
