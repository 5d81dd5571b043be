"""What a build will take, before it runs: disk, memory and time from a measured probe, and settings that fit.

disk    = rows · (bytes a row of a real block, text scaled by its characters) + a manifest a commit
memory  = max(a batch beside a block's vectors, storing a block), the whole process
seconds = Σ_rows tokens · seconds a token at that length + rows · seconds a row stored
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core.errors import StoreError
from headwater.core.spec import Column
from headwater.data.corpus import Corpus, open_corpus
from headwater.data.templates import resolve_template
from headwater.data.tokens import Tokenization
from headwater.index.manifest import Manifest
from headwater.index.store import exists, open_index
from headwater.indexing.build import make_manifest
from headwater.indexing.encode import TOKENS_PER_BATCH, Reader
from headwater.indexing.probe import (
    Memory,
    Stored,
    measure_memory,
    measure_speed,
    measure_storing,
    share_of_characters,
    survey,
)
from headwater.methods.catalog import find_method
from headwater.methods.method import Method
from headwater.models.load import LoadedModel, load_model
from headwater.search.codes import coded

FEWEST_TOKENS = 64
"""Batches are not made smaller than this to save memory."""

CODES = ("int8", "sign")


@dataclass(frozen=True)
class Limits:
    """What a build may take, in bytes; None where it does not matter."""

    memory: int | None = None
    disk: int | None = None


@dataclass(frozen=True)
class BuildPlan:
    """What a build will take, as measured on a sample.

    Attributes:
        rows: rows of the data.
        tokens: the model will read, about.
        probed_rows: rows the figures come from.
        bytes_per_row: on disk: `vectors`, `text`, `other`.
        disk: bytes of the finished index.
        disk_by_code: bytes of the finished index if its vectors were stored as `float16`, `int8`, `sign`.
        memory: bytes, peak of the whole process.
        seconds: for reading and storing all rows, the model loaded already.
        tokens_per_batch: batch size the figures are for, made to fit where memory is limited.
    """

    rows: int
    tokens: int
    probed_rows: int
    bytes_per_row: Mapping[str, float]
    disk: int
    disk_by_code: Mapping[str, int]
    memory: int
    seconds: float
    tokens_per_batch: int


def plan(
    *,
    model: str | LoadedModel,
    data: Any,
    method: str = "rise",
    settings: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> BuildPlan:
    """What `headwater.build` of the same arguments will take; nothing is written but a probe that is taken away.

    Args:
        model: folder or hub name, or a loaded model.
        data: anything `open_corpus` takes, or a corpus.
        method: a name from the catalog.
        settings: the method's options.
        limits: what the build may take; batches are sized to fit, and what cannot fit is refused.
        options: `template`, `max_tokens`, `tokens_per_batch`, `keep_text`, `code`, as of a build.
    """
    chosen = find_method(method, settings)
    corpus = data if isinstance(data, Corpus) else open_corpus(data)
    loaded = model if isinstance(model, LoadedModel) else load_model(model)
    return plan_build(corpus, *prepare(loaded, corpus, chosen, **options), limits)


def tokens_that_fit(
    out: str | Path, corpus: Corpus, loaded: LoadedModel, method: Method, *, limits: Limits, **options: Any
) -> int:
    """The batch size with which a build stays within the limits; that of the index where a build is to go on.

    Raises:
        StoreError: it cannot stay within them.
    """
    if options.pop("resume", False) and exists(str(out)):
        return open_index(out).manifest.plan.tokens_per_batch
    return plan_build(corpus, *prepare(loaded, corpus, method, **options), limits).tokens_per_batch


def prepare(
    loaded: LoadedModel,
    corpus: Corpus,
    method: Method,
    *,
    template: str | None = None,
    max_tokens: int = 2048,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    keep_text: bool = True,
    code: str | None = None,
) -> tuple[Reader, Manifest]:
    """What a build with these options reads rows with, and the manifest it begins with."""
    tokenization = Tokenization(loaded.tokenizer, resolve_template(template, loaded.tokenizer), max_tokens)
    reader = Reader.bind(loaded, method, tokenization, tokens_per_batch)
    columns = coded(reader.encoder.columns, code)
    return reader, make_manifest(reader, columns, corpus=corpus, keep_text=keep_text)


def plan_build(corpus: Corpus, reader: Reader, manifest: Manifest, limits: Limits | None = None) -> BuildPlan:
    """Probe a build of `corpus` as `manifest` describes it (`headwater.indexing.build.make_manifest`).

    Raises:
        StoreError: the index would be larger than `limits.disk`, or even the smallest batches need more memory than
            `limits.memory`; says what would fit.
        DataError: a row of the data cannot be used.
    """
    limits = limits or Limits()
    found = survey(corpus, manifest.plan.block_rows)
    rows = reader.tokenization.encode(found.sample)
    stored = measure_storing(rows, manifest)
    disk, by_code = _disk(found.rows, share_of_characters(found) * len(rows), stored, manifest, reader.encoder.columns)
    _require_disk(disk, by_code, limits.disk)
    memory = measure_memory(reader, rows, manifest.columns, most_bytes=limits.memory)
    held = min(found.rows, manifest.plan.block_rows) * sum(column.row_bytes for column in manifest.columns)
    batch = _batch_that_fits(memory, stored, held, reader.tokens_per_batch, limits.memory)
    speed = measure_speed(reader, rows, manifest.columns)
    tokens = np.array([len(row.ids) for row in rows])
    return BuildPlan(
        rows=found.rows,
        tokens=round(int(tokens.sum()) * share_of_characters(found)),
        probed_rows=len(rows),
        bytes_per_row={"vectors": stored.vectors, "text": stored.text, "other": stored.other},
        disk=disk,
        disk_by_code=by_code,
        memory=max(memory.at(batch) + held, stored.peak),
        seconds=speed.seconds(tokens) * share_of_characters(found) + stored.seconds_per_row * found.rows,
        tokens_per_batch=batch,
    )


def _disk(
    rows: int, rows_of_text: float, stored: Stored, manifest: Manifest, columns: Sequence[Column]
) -> tuple[int, dict[str, int]]:
    """Bytes of the index as the manifest has it, and with other codes of the method's `columns`."""
    commits = math.ceil(rows / manifest.plan.block_rows) + 3
    beside = rows_of_text * stored.text + rows * stored.other + commits * stored.manifest
    whole = round(rows * stored.vectors + beside)
    sizes = {code or "float16": sum(c.row_bytes for c in coded(columns, code)) for code in (None, *CODES)}
    return whole, {name: round(rows * size + beside) for name, size in sizes.items()}


def _require_disk(disk: int, by_code: Mapping[str, int], most: int | None) -> None:
    if most is None or disk <= most:
        return
    fitting = [f"--code {code} takes {readable_bytes(size)}" for code, size in by_code.items() if size <= most]
    remedy = "; ".join(fitting) or "index fewer rows (--limit), or allow more"
    raise StoreError(
        f"the index would take {readable_bytes(disk)}, {readable_bytes(most)} are allowed",
        where="--max-disk",
        remedy=remedy,
    )


def _batch_that_fits(memory: Memory, stored: Stored, held: int, wanted: int, most: int | None) -> int:
    """The batch size wanted, or the largest power of two below it that fits in the memory allowed."""
    if most is None:
        return wanted
    least = max(memory.at(FEWEST_TOKENS) + held, stored.peak)
    if least > most:
        raise StoreError(
            f"even batches of {FEWEST_TOKENS} tokens take {readable_bytes(least)}, {readable_bytes(most)} are allowed",
            where="--max-memory",
            remedy="allow more, or load the model in bfloat16 or 8bit",
        )
    batch = wanted
    while memory.at(batch) + held > most and batch > FEWEST_TOKENS:
        batch = 1 << ((batch - 1).bit_length() - 1)
    return max(batch, FEWEST_TOKENS)


def readable_bytes(size: int) -> str:
    """Bytes for people: the largest binary unit that leaves at least 1."""
    if size < 1024:
        return f"{size} bytes"
    power = min((size.bit_length() - 1) // 10, 4)
    return f"{size / 1024**power:,.1f} {'KMGT'[power - 1]}iB"
