"""SQL conditions over an index's columns, as users write them and as Lance reads them.

Lance refuses a dot in a column's name, so a dot is stored as another character that looks like one. A condition may
write the data's own name, `meta.lang = 'en'`, or `` `meta.lang` = 'en' ``.
"""

from __future__ import annotations

import re

import pyarrow as pa

from headwater.core.errors import StoreError

_DOT, _ESCAPE = "\u2024", "\u2025"
"""ONE DOT LEADER stands for a dot; TWO DOT LEADER stands before one of these two that was in the name itself."""

_TEXT = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""")


def without_dots(name: str) -> str:
    """A metadata name as Lance accepts it in a column."""
    return re.sub(f"[{_DOT}{_ESCAPE}]", rf"{_ESCAPE}\g<0>", name).replace(".", _DOT)


def with_dots(column: str) -> str:
    """The inverse of `without_dots`."""
    return re.sub(f"{_ESCAPE}(.)|{_DOT}", lambda found: found[1] or ".", column)


def readable_condition(condition: str | None, schema: pa.Schema, path: str) -> str | None:
    """The condition as Lance reads it over columns of this schema; None stays None.

    Raises:
        StoreError: there is text behind the condition's end, which Lance would drop without a word.
    """
    if condition is None:
        return None
    if ";" in without_texts(condition):
        what = f"the condition {condition!r} has text after ';', which would not be read"
        raise StoreError(what, where=path, remedy="give one condition, without ';'")
    dotted = {with_dots(name): name for name in schema.names if _DOT in name}
    if not dotted:
        return condition
    structs = {field.name for field in schema if pa.types.is_struct(field.type)}
    parts = _TEXT.split(condition)  # every second part is a quoted text
    for i in range(0, len(parts), 2):
        for name in sorted(dotted, key=len, reverse=True):
            bare = "" if name.split(".")[0] in structs else rf"|(?<![\w.`]){re.escape(name)}(?![\w.`(])"
            parts[i] = re.sub(f"`{re.escape(name)}`{bare}", f"`{dotted[name]}`", parts[i])
    return "".join(parts)


def without_texts(condition: str) -> str:
    """An SQL condition without its quoted texts."""
    return re.sub(r"'(?:[^']|'')*'", "''", condition)


def mentions(condition: str, name: str) -> bool:
    """Whether the condition names the column, outside its quoted texts."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", without_texts(condition)) is not None
