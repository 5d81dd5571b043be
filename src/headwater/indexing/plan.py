"""Plan a build: estimate its disk, memory and time from measurements on a sample, and find settings that fit.

disk    = rows · (bytes a row of a real block, text scaled by its characters) + one manifest for each commit
memory  = max(one batch and a block's vectors, storing a block), for the whole process
seconds = Σ_rows tokens · seconds a token at that length + rows · seconds to store a row
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headwater.core.errors import StoreError
from headwater.core.spec import Column, code_of
from headwater.core.tables import Tabular
from headwater.data.corpus import Corpus
from headwater.index.manifest import Manifest
from headwater.indexing.build import make_manifest
from headwater.indexing.probe import (
    Memory,
    Stored,
    largest_row,
    measure_memory,
    measure_speed,
    measure_storing,
    share_of_characters,
    survey,
)
from headwater.methods.bound import Bound
from headwater.methods.kept import expected
from headwater.methods.preparing import fitted_bytes
from headwater.search.codes import PLAIN, coded

FEWEST_TOKENS = 64
"""To save memory, batches are made smaller, but not smaller than this."""

CODES = ("int8", "int2", "sign")


@dataclass(frozen=True)
class Limits:
    """How much memory and disk a build may take, in bytes; None for no limit."""

    memory: int | None = None
    disk: int | None = None


@dataclass(frozen=True)
class BuildPlan(Tabular):
    """What a build will take, as measured on a sample.

    Attributes:
        rows: how many rows the data has.
        tokens: about how many tokens the model will read.
        probed_rows: how many rows the measurements were made on.
        bytes_per_row: bytes on disk, split into `vectors`, `text` and `other`.
        disk: bytes of the finished index, and of the file beside it that its method fitted.
        code: how vectors are stored, as `--code` says it.
        kept: the share of the full vectors' quality that this code kept where it was measured; None if it was not.
        disk_by_code: bytes of the finished index under this and other codes; `float16` stands for plain numbers.
        memory: peak bytes of the whole process.
        seconds: time to read and store all rows, without loading the model.
        tokens_per_batch: the batch size the figures are for; it is reduced to fit a memory limit.
    """

    rows: int
    tokens: int
    probed_rows: int
    bytes_per_row: Mapping[str, float]
    disk: int
    code: str
    kept: float | None
    disk_by_code: Mapping[str, int]
    memory: int
    seconds: float
    tokens_per_batch: int

    def records(self) -> list[dict[str, Any]]:
        """One record with all figures; nested ones get dotted names, such as `bytes_per_row.vectors`."""
        flat = {k: v for k, v in vars(self).items() if not isinstance(v, Mapping)}
        nested = {f"{k}.{n}": x for k, v in vars(self).items() if isinstance(v, Mapping) for n, x in v.items()}
        return [{**flat, **nested}]


def plan_build(
    corpus: Corpus,
    bound: Bound,
    *,
    keep_text: bool = True,
    code: str | None = None,
    block_rows: int | None = None,
    limits: Limits | None = None,
) -> BuildPlan:
    """Measure what `headwater.indexing.build.build` would take with these arguments; no files are left.

    Raises:
        StoreError: the index would be larger than `limits.disk`, or even the smallest batches need more memory than
            `limits.memory`; the message names settings that would fit.
        DataError: a row of the data cannot be used.
    """
    limits = limits or Limits()
    manifest = make_manifest(corpus, bound, keep_text=keep_text, code=code, block_rows=block_rows)
    found = survey(corpus, manifest.plan.block_rows)
    rows = bound.reader.tokenization.encode(found.sample)
    stored = measure_storing(rows, manifest)
    disk, by_code = disk_of(found.rows, share_of_characters(found) * len(rows), stored, manifest, bound.encoder.columns)
    fitted = fitted_bytes(bound.method)
    disk, by_code = disk + fitted, {name: size + fitted for name, size in by_code.items()}
    _require_disk(disk, by_code, limits.disk)
    memory = measure_memory(bound, rows, manifest.columns, most_bytes=limits.memory)
    held = min(found.rows, manifest.plan.block_rows) * sum(column.row_bytes for column in manifest.columns)
    memory = replace(memory, least=max(largest_row(bound, rows), FEWEST_TOKENS))
    batch = _batch_that_fits(memory, stored, held, bound.reader.tokens_per_batch, limits.memory)
    speed = measure_speed(bound, rows, manifest.columns)
    tokens = np.array([len(row.ids) for row in rows])
    return BuildPlan(
        rows=found.rows,
        tokens=round(int(tokens.sum()) * share_of_characters(found)),
        probed_rows=len(rows),
        bytes_per_row={"vectors": stored.vectors, "text": stored.text, "other": stored.other},
        disk=disk,
        code=code_of(manifest.columns),
        kept=expected(manifest.method.name, manifest.columns),
        disk_by_code=by_code,
        memory=max(memory.at(batch) + held, stored.peak),
        seconds=speed.seconds(tokens) * share_of_characters(found) + stored.seconds_per_row * found.rows,
        tokens_per_batch=batch,
    )


def disk_of(
    rows: int, rows_of_text: float, stored: Stored, manifest: Manifest, columns: Sequence[Column]
) -> tuple[int, dict[str, int]]:
    """Bytes of the index with the manifest's columns, and with every code that the method's `columns` can have."""
    commits = math.ceil(rows / manifest.plan.block_rows) + 3
    rest = rows_of_text * stored.text + rows * stored.other + commits * stored.manifest
    chosen = code_of(manifest.columns)
    codes = dict.fromkeys(code_of(coded(columns, code)) for code in (PLAIN, chosen, *CODES))
    sizes = {"float16" if c == PLAIN else c: sum(one.row_bytes for one in coded(columns, c)) for c in codes}
    return round(rows * stored.vectors + rest), {name: round(rows * size + rest) for name, size in sizes.items()}


def _require_disk(disk: int, by_code: Mapping[str, int], most: int | None) -> None:
    if most is None or disk <= most:
        return
    fitting = [f"--code {code} takes {readable_bytes(size)}" for code, size in by_code.items() if size <= most]
    what = f"the index would take {readable_bytes(disk)}, {readable_bytes(most)} are allowed"
    remedy = "; ".join(fitting) or "index fewer rows (--limit), or allow more"
    raise StoreError(what, where="--max-disk", remedy=remedy)


def _batch_that_fits(memory: Memory, stored: Stored, held: int, wanted: int, most: int | None) -> int:
    """The batch size `wanted`, or the largest power of two below it with which the build stays within `most` bytes."""
    if most is None:
        return wanted
    least = max(memory.at(memory.least) + held, stored.peak)
    if least > most:
        what = (
            f"even batches of {memory.least:,} tokens take {readable_bytes(least)}, {readable_bytes(most)} are allowed"
        )
        shorter = f"cut rows (--max-tokens below {memory.least}), " if memory.least > FEWEST_TOKENS else ""
        remedy = f"allow more, {shorter}or load the model in bfloat16 or 8bit"
        raise StoreError(what, where="--max-memory", remedy=remedy)
    batch = wanted
    while memory.at(batch) + held > most and batch > FEWEST_TOKENS:
        batch = 1 << ((batch - 1).bit_length() - 1)
    return max(batch, FEWEST_TOKENS)


def readable_bytes(size: int) -> str:
    """A size for people to read, in the largest binary unit that gives at least 1."""
    if size < 1024:
        return f"{size} bytes"
    power = min((size.bit_length() - 1) // 10, 4)
    return f"{size / 1024**power:,.1f} {'KMGT'[power - 1]}iB"
