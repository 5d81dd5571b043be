"""Conditions on rows: from an SQL text, a search and clicked facets to one expression that only reads, and in bounds.

Lance evaluates expressions and knows no statements, so a condition can change nothing. What it could do is take all
memory or time (`repeat('x', 1000000000)`); so functions are on a list, and lengths and depths have limits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from headwater.core.errors import UsageError
from headwater.index.conditions import without_texts
from headwater.index.store import Index, quoted

LONGEST = 2_000
"""Most characters of a condition, and of a search."""
DEEPEST = 20
"""Most brackets inside each other."""

FUNCTIONS = frozenset(
    [
        "abs",
        "array_contains",
        "array_has",
        "ceil",
        "char_length",
        "character_length",
        "coalesce",
        "contains",
        "date_part",
        "date_trunc",
        "ends_with",
        "floor",
        "ilike",
        "in",
        "is",
        "json_get",
        "length",
        "lower",
        "not",
        "now",
        "nullif",
        "octet_length",
        "or",
        "and",
        "ltrim",
        "rtrim",
        "btrim",
        "trim",
        "regexp_like",
        "regexp_match",
        "round",
        "starts_with",
        "strpos",
        "substr",
        "upper",
        "cast",
        "like",
        "between",
        "date",
        "timestamp",
        "decimal",
        "any",
        "all",
    ]
)
"""What may stand before a bracket: functions whose result is no larger than what they are given, and SQL's words."""

_CALL = re.compile(r"([A-Za-z_][\w.]*)\s*\(")


def checked(condition: str) -> str:
    """The condition, if it is short and calls listed functions only; empty for one of white space.

    Raises:
        UsageError: it is too long, too deep, or calls another function; names it.
    """
    text = condition.strip()
    if len(text) > LONGEST:
        what = f"the condition has {len(text):,} characters"
        raise UsageError(what, where="filter", remedy=f"at most {LONGEST:,} are read; shorten it")
    bare = without_texts(text)
    bare = re.sub(r'"[^"]*"|`[^`]*`', '""', bare)
    if ";" in bare or "--" in bare or "/*" in bare:
        raise UsageError("';' and comments are not read", where="filter", remedy="give one condition")
    depth = most = 0
    for sign in bare:
        depth += (sign == "(") - (sign == ")")
        most = max(most, depth)
        if depth < 0:
            raise UsageError("a bracket closes that was not opened", where="filter", remedy="give one condition")
    if most > DEEPEST:
        raise UsageError(f"{most} brackets inside each other", where="filter", remedy=f"at most {DEEPEST}")
    for name in _CALL.findall(bare):
        if name.lower() not in FUNCTIONS:
            remedy = "use columns, comparisons, and functions such as lower, length, contains, starts_with"
            raise UsageError(f"the function '{name}' may not be called here", where="filter", remedy=remedy)
    return text


def condition_of(index: Index, where: str, search: str, facets: Mapping[str, Sequence[str]]) -> str | None:
    """All three as one SQL condition; None if nothing is asked.

    `search` finds rows with all its words, in any case, in any text column or as the id. Of a facet, any of the values
    may be the row's; an empty value stands for none.
    """
    parts = [f"({text})"] if (text := checked(where)) else []
    texts = [name for name in ("text", "prompt", "response") if name in index.plain]
    for word in search[:LONGEST].split()[:12]:
        found = [f"contains(lower({name}), {quoted(word.lower())})" for name in texts]
        parts.append("(" + " OR ".join([*found, f"id = {quoted(word)}"]) + ")")
    for name, values in facets.items():
        parts.append("(" + " OR ".join(_is(index, name, value) for value in values) + ")")
    return " AND ".join(parts) or None


def facet_columns(index: Index) -> list[str]:
    """The metadata columns that may become facets: text, truth values and whole numbers."""
    ours = set(_not_metadata(index))
    return [
        field.name
        for field in index.dataset.schema
        if field.name not in ours
        and (pa.types.is_string(field.type) or pa.types.is_boolean(field.type) or pa.types.is_integer(field.type))
    ]


def text_columns(index: Index) -> list[str]:
    """The metadata columns that hold text."""
    return [name for name in facet_columns(index) if pa.types.is_string(index.dataset.schema.field(name).type)]


def metadata_columns(index: Index) -> list[str]:
    """The columns that hold what the user gave beside a row's text."""
    ours = set(_not_metadata(index))
    return [name for name in index.plain if name not in ours]


def column_name(name: str) -> str:
    """A column's name as SQL; Lance reads backticks around names with other signs."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else f"`{name}`"


def _is(index: Index, name: str, value: str) -> str:
    if name not in index.plain or "`" in name:
        known = ", ".join(metadata_columns(index))
        raise UsageError(f"no column '{name}'", where="filter", remedy=f"columns: {known}")
    column, kind = column_name(name), index.dataset.schema.field(name).type
    if value == "":
        return f"{column} IS NULL"
    if pa.types.is_string(kind):
        return f"{column} = {quoted(value)}"
    if pa.types.is_boolean(kind) and value in ("true", "false"):
        return f"{column} = {value}"
    if pa.types.is_integer(kind) and re.fullmatch(r"-?\d{1,18}", value):
        return f"{column} = {value}"
    raise UsageError(f"'{value}' cannot be a value of {name}", where="filter", remedy=f"{name} holds {kind}")


def _not_metadata(index: Index) -> list[str]:
    from headwater.index.rows import RESERVED

    return [*RESERVED, *index.vectors]


def as_cell(value: Any) -> str:
    """A facet's value as it stands in a URL."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
