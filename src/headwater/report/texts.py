"""Long texts on a page: what is left out is counted, and the page says where the whole is."""

from __future__ import annotations

LONGEST_TEXT = 20_000
"""Most characters of one text on any page."""
LONGEST_NAME = 200
"""Most characters of a name: an id, a heading, a value of metadata."""
IN_INDEX = "the whole row is in the index under its id"
IN_QUERY = "the query as you gave it has them"


def shortened(text: str, most: int) -> str:
    """The text, or its first `most` characters and the number of characters left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def left_out(count: int, whole: str) -> str:
    """The sentence about characters that are not on the page; empty if none is missing."""
    return f"{count:,} more characters are not on this page; {whole}." if count > 0 else ""
