"""Rows as records again: what `headwater trace --out` writes, and other commands read as the very same rows.

A hit is a record with `query`, `rank`, `id` and `score` beside the row itself. The row is written in the shape in which
the index holds it, so a chat stays a list of messages and is never rendered as one user turn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headwater.data.rows import BESIDE, Row
from headwater.data.shapes import ROLES, unused_name

HIT_KEYS = ("query", "rank", "id", "score")
"""The keys that a hit has besides those of its row."""


def as_given(row: Row) -> dict[str, Any]:
    """The row's own text: `text`, or `prompt` and `response`, or a chat's `messages` and what its template is given.

    `hotwords` belong to it, if it has any. Two rows of which this is equal are the same training example, whatever
    their ids and their other metadata.
    """
    if row.rejected is not None:
        return _pair_as_given(row, row.rejected)
    given: dict[str, Any] = dict(row.fields())
    if row.messages is not None:
        beside = {name: row.metadata[name] for name in BESIDE if row.metadata.get(name)}
        given = {"messages": [dict(message) for message in row.messages], **beside}
    return {**given, "hotwords": list(row.hotwords)} if row.hotwords else given


def _pair_as_given(row: Row, rejected: Row) -> dict[str, Any]:
    """A pair's prompt and two answers, or its two chats."""
    if row.messages is None:
        return {"prompt": row.prompt, "chosen": row.response, "rejected": rejected.response}
    chosen, worse = as_given(replace(row, rejected=None)), as_given(rejected)
    return {"chosen": chosen.pop("messages"), "rejected": worse["messages"], **chosen}


def as_record(row: Row) -> dict[str, Any]:
    """The row as a record that is read as the same row, with the id, and the metadata as further keys.

    A metadata name that a reader would take for a part of the row, or that a hit needs, gets underscores behind it
    (`score` becomes `score_`).
    """
    record = {"id": row.id, **as_given(row)}
    for name, value in row.metadata.items():
        if name in BESIDE and name in record:
            continue
        free = f"{name}_" if name in ROLES or name in HIT_KEYS else name
        record[unused_name(free, {**row.metadata, **record} if free != name else record)] = value
    return record
