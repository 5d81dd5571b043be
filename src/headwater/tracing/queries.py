"""Queries: what the model said, as rows; where the response is missing, the model is asked for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwater.core.errors import DataError, UsageError
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.indexing.session import Session
from headwater.models.generate import generate_answers

MAX_NEW_TOKENS = 128
"""Where a generated answer is cut, unless said otherwise."""

Queries = str | Path | Iterable[Mapping[str, Any]]
"""A file of rows, or rows."""


def read_queries(source: Queries) -> list[Row]:
    """The query rows of a file or a list; rows may have a `prompt` and no `response`."""
    return list(open_corpus(source, need_response=False))


def prompt_query(prompt: str, response: str | None, span: str | None) -> Row:
    """The query made of one prompt, with the response it had, or None to have one generated."""
    if not prompt:
        raise UsageError("the prompt is empty", where="--prompt")
    return Row(id="prompt", ordinal=0, prompt=prompt, response=response, hotwords=(span,) if span else ())


def with_responses(
    rows: list[Row], session: Session, *, max_new_tokens: int = MAX_NEW_TOKENS
) -> tuple[list[Row], set[str]]:
    """The rows with every missing response generated greedily, and the ids of those that were.

    The targets of an answer that was cut are its words alone: the model did not say that it ends there.
    """
    missing = [i for i, row in enumerate(rows) if row.text is None and row.response is None]
    prompts = [session.reader.tokenization.encode_prompt(rows[i].prompt or "") for i in missing]
    done = list(rows)
    answers = generate_answers(session.reader.loaded, prompts, max_new_tokens=max_new_tokens) if prompts else []
    for i, (text, ended) in zip(missing, answers, strict=True):
        if not text.strip():
            raise DataError("the model answered nothing", where=f"query '{rows[i].id}'", remedy="give a response")
        words = rows[i].hotwords or (() if ended else (text.strip(),))
        done[i] = replace(rows[i], response=text, messages=None, hotwords=words)
    return done, {rows[i].id for i in missing}
