"""What the storage layer says when it fails, as one line with a place and a remedy."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pyarrow as pa

from headwater.core.errors import HeadwaterError, StoreError
from headwater.index.conditions import with_dots

_STORAGE_ERRORS = (OSError, ValueError, RuntimeError, NotImplementedError, pa.ArrowException)
"""What Lance raises; damaged files can also make it panic, which arrives as a `BaseException`."""

_LONGEST_REASON = 400
"""At most so many characters of Lance's error messages are passed on."""

_CAUSES = (
    (
        ("No space left", "os error 28", "Disk quota exceeded", "os error 122", "File too large", "os error 27"),
        "the disk is full",
        "free some space and run the same command again; index build and index quantise go on with --resume",
    ),
    (
        ("Permission denied", "os error 13", "Operation not permitted", "os error 1)"),
        "this user may not read or write here",
        "change the permissions of the folder and of the files in it, or copy the index to a folder of your own",
    ),
    (
        ("Read-only file system", "os error 30"),
        "the file system is read-only",
        "copy the index to a folder that can be written to",
    ),
    (
        ("error sending request",),
        "the object store does not answer",
        "run the same command again when it does; index build and index quantise go on with --resume",
    ),
)
"""What is in Lance's messages, and the fault and the remedy that it means."""


@contextlib.contextmanager
def storing(path: str, *, where: str | None = None) -> Iterator[None]:
    """Turn errors of the storage layer into `StoreError`, with the place and a remedy.

    `where` is the user's SQL condition, if there is one: it is named in the message if Lance refuses it.
    """
    try:
        yield
    except HeadwaterError:
        raise
    except BaseException as error:
        if not isinstance(error, _STORAGE_ERRORS) and type(error).__name__ != "PanicException":
            raise
        reason = _brief(str(error))
        if where is not None and (isinstance(error, ValueError) or "Invalid user input" in reason):
            said, remedy = _unknown_column(str(error)) or (_said(reason), _typed_literal(reason) or _EXAMPLES)
            raise StoreError(f"the condition {where!r} cannot be used: {said}", where=path, remedy=remedy) from error
        for signs, what, remedy in _CAUSES:
            if any(sign in str(error) for sign in signs):
                raise StoreError(what, where=path, remedy=remedy) from error
        raise StoreError(reason, where=path, remedy="headwater index verify says more") from error


_EXAMPLES = "write it as SQL, such as: provider = 'a' AND year > 2020"


def _said(reason: str) -> str:
    """What Lance says of a condition, without its own wrapping."""
    parsed = re.search(r"sql parser error: ([^()]+)", reason)
    if parsed:
        return f"it is not SQL ({parsed[1].strip()})"
    return with_dots(re.sub(r"Invalid user input: |Error resolving filter expression .*?: (?=Invalid)", "", reason))


def _unknown_column(message: str) -> tuple[str, str] | None:
    """What is wrong with a condition that names a column which the index does not have, and a remedy; else None."""
    words = " ".join(message.split(", /", 1)[0].split())
    found = re.search(r"No field named (.+?)\. (?:Did you mean '(.+?)'|Valid fields are (.+?)\.?$)", words)
    if not found:
        return None
    named, close, valid = (with_dots(text or "") for text in found.groups())
    names = [name for name in valid.split(", ") if not name.startswith("_")]
    listed = f"the columns are {', '.join(names[:_SHOWN_COLUMNS])}; text stands in single quotes"
    remedy = f"did you mean '{close}'?" if close else listed
    return f"there is no column {named}", remedy


_SHOWN_COLUMNS = 24


def _typed_literal(reason: str) -> str:
    """How to write a value that Lance did not compare with a column of another type; empty for other reasons."""
    found = re.search(r"literal (\w+)\((.*?)\) and could not convert to literal of type '(\w+)", reason)
    if not found:
        found = re.search(r"literal (\w+)\((.*?)\) .* of type .(Date|Timestamp)", reason)
    if not found:
        return ""
    value, kind = found[2].strip('"'), found[3]
    if kind.startswith(("Date", "Timestamp")):
        return f"write {kind.rstrip('0123456789').lower()} '{value}' in place of '{value}'"
    if kind in ("Utf8", "LargeUtf8"):
        return f"the column holds text: write '{value}' in place of {value}"
    return f"the column holds values of type {kind}: write them without quotes" if found[1] == "Utf8" else ""


def _brief(message: str) -> str:
    """Lance's message on one line, shortened, and without the source locations that Lance adds."""
    words = " ".join(message.split(", /", 1)[0].split())
    return words if len(words) <= _LONGEST_REASON else f"{words[:_LONGEST_REASON]}…"
