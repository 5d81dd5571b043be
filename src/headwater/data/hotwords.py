"""Hotwords: the words of a query that are asked about alone. Applied here for every method, on tokens and on text."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.core.errors import DataError
from headwater.data.rendering import Rendered
from headwater.data.rows import Row


def word_spans(row: Row, rendered: Rendered, words: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Where each word occurs within the targets; raises `DataError` showing the response for a word that does not."""
    spans: list[tuple[int, int]] = []
    for word in words:
        found = []
        for start, end in rendered.targets:
            at = rendered.text.find(word, start, end)
            while at >= 0:
                found.append((at, at + len(word)))
                at = rendered.text.find(word, at + 1, end)
        if not found:
            response = " … ".join(rendered.text[start:end] for start, end in rendered.targets)
            remedy = "copy the words from the response, capitals and all"
            raise DataError(f"'{word}' is not in the response {response!r}", where=row.where, remedy=remedy)
        spans.extend(found)
    return tuple(sorted(spans))


def asked_text(query: Row, otherwise: str | None) -> str | None:
    """The text a method that reads no tokens compares: the query's hotwords where it has some, else `otherwise`."""
    return " ".join(query.hotwords) or otherwise
