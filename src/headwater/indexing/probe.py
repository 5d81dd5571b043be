"""Measure what a build will take, by reading, batching and storing a sample of rows as the build would.

One pass over the data counts rows and characters and draws a uniform sample of one block. The sample is tokenised,
batches of a few row lengths are timed after a warm-up, and a block of true size, with random vectors, is stored in a
temporary folder. Memory is the process's peak: on Linux the peak since `reset_peak`, elsewhere since the process began.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from headwater.core.spec import LEVEL_BITS, Column
from headwater.data.corpus import Corpus
from headwater.data.readings import RowReading
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.index.fragments import commit_fragments, write_fragments
from headwater.index.info import describe
from headwater.index.manifest import Manifest
from headwater.index.rows import infer_schema, to_table
from headwater.index.store import create_index
from headwater.methods.bound import Bound

_QUANTILES = (0.1, 0.5, 0.9)
"""Batches are timed at these quantiles of the rows' lengths."""

_TIMED_TOKENS = 2048
_GROWTH = 4
"""Batches grow by this factor until memory is measured at the size wanted, or the next batch would not fit."""


@dataclass(frozen=True)
class Survey:
    """The result of one pass over the data.

    Attributes:
        rows: how many rows there are.
        characters: how many characters the text of all rows has.
        sample: a uniform sample of at most one block, in the order of the data.
    """

    rows: int
    characters: int
    sample: tuple[Row, ...]


@dataclass(frozen=True)
class Speed:
    """Seconds a token, measured at some row lengths and interpolated between them."""

    lengths: NDArray[np.float64]
    seconds_per_token: NDArray[np.float64]

    def seconds(self, tokens: NDArray[np.int64]) -> float:
        """The time to read rows with these numbers of tokens."""
        return float((tokens * np.interp(tokens, self.lengths, self.seconds_per_token)).sum())


@dataclass(frozen=True)
class Memory:
    """Peak bytes of the process by batch size: `fixed + per_token · tokens`, measured up to `largest` tokens.

    No batch is smaller than the largest row, which has `least` tokens.
    """

    fixed: float
    per_token: float
    largest: int
    least: int = 0

    def at(self, tokens: int) -> int:
        """Peak bytes with batches of this many tokens."""
        return int(self.fixed + self.per_token * max(tokens, self.least))


@dataclass(frozen=True)
class Stored:
    """What storing one block took.

    Attributes:
        vectors, text, other: bytes a row, by kind of column.
        manifest: bytes of one version's files that hold no rows.
        seconds_per_row: time to store a row.
        peak: peak bytes of the process.
    """

    vectors: float
    text: float
    other: float
    manifest: int
    seconds_per_row: float
    peak: int


def survey(corpus: Corpus, block_rows: int) -> Survey:
    """Count the rows and draw a sample of one block (reservoir sampling, the same rows every time)."""
    generator = random.Random(0)
    kept: list[Row] = []
    rows = characters = 0
    for row in corpus:
        rows += 1
        characters += _characters(row)
        if len(kept) < block_rows:
            kept.append(row)
        elif (place := generator.randrange(rows)) < block_rows:
            kept[place] = row
    return Survey(rows, characters, tuple(sorted(kept, key=lambda row: row.ordinal)))


def share_of_characters(found: Survey) -> float:
    """Characters of all data over characters of the sample: the factor from sums over the sample to all data."""
    return found.characters / max(sum(map(_characters, found.sample)), 1)


def largest_row(bound: Bound, rows: Sequence[TokenRow]) -> int:
    """Most tokens that one row takes in a batch, all its windows together."""
    window = bound.reader.window(bound.form.windows["train"])
    cuts = [window.cuts(row.response, row.split) for row in rows]
    return max(len(cut) * max(end - start for start, end in cut) for cut in cuts)


def measure_memory(
    bound: Bound, rows: Sequence[TokenRow], columns: Sequence[Column], *, most_bytes: int | None
) -> Memory:
    """Measure peak memory with growing batches of the longest rows; this also warms up model and caches."""
    wanted = bound.reader.tokens_per_batch
    longest = sorted(rows, key=lambda row: -len(row.ids))
    seen: list[tuple[int, int]] = []
    tokens = max(wanted // _GROWTH**2, len(longest[0].ids))
    while True:
        batch = _filled(longest, min(tokens, wanted))
        positions = sum(len(row.ids) for row in batch)
        reset_peak()
        bound.stored(batch, columns)
        seen.append((positions, peak_bytes()))
        memory = _line_through(seen)
        fits = most_bytes is None or memory.at(min(tokens * _GROWTH, wanted)) <= most_bytes
        if tokens >= wanted or not fits or len(batch) == len(rows):
            return memory
        tokens *= _GROWTH


def measure_speed(bound: Bound, rows: Sequence[TokenRow], columns: Sequence[Column]) -> Speed:
    """Measure seconds a token at a few row lengths; call it after a warm-up."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    found: dict[float, float] = {}
    for quantile in _QUANTILES:
        middle = int(quantile * (len(ordered) - 1))
        around = np.argsort(np.abs(np.arange(len(ordered)) - middle), kind="stable").tolist()
        batch = _filled([ordered[i] for i in around], min(_TIMED_TOKENS, bound.reader.tokens_per_batch))
        tokens = sum(len(row.ids) for row in batch)
        began = time.perf_counter()
        bound.stored(batch, columns)
        found[tokens / len(batch)] = (time.perf_counter() - began) / tokens
    lengths = sorted(found)
    return Speed(np.array(lengths), np.array([found[length] for length in lengths]))


def measure_storing(rows: Sequence[TokenRow], manifest: Manifest) -> Stored:
    """Store the rows with random vectors as one block in a temporary folder."""
    generator = np.random.default_rng(0)
    vectors = {}
    for column in manifest.columns:
        vectors[column.name] = _noise(generator, len(rows), column)
        if column.scale is not None:
            vectors[column.scale] = generator.random(len(rows), np.float32)
    schema = infer_schema([row.row for row in rows], manifest.columns, keep_text=manifest.keeps_text)
    with tempfile.TemporaryDirectory(prefix="headwater-plan-") as folder:
        index = create_index(Path(folder) / "probe.lance", manifest, schema)
        reset_peak()
        began = time.perf_counter()
        losses = np.ones(len(rows), np.float32)
        schema, readings = index.dataset.schema, [RowReading()] * len(rows)
        table = to_table(rows, losses, vectors, schema, readings=readings, keep_text=manifest.keeps_text)
        commit_fragments(index, write_fragments(index, table))
        seconds, peak = time.perf_counter() - began, peak_bytes()
        facts = describe(index)
        overhead = facts["bytes_on_disk"] - facts["bytes"]
    split = facts["bytes_per_row"]
    return Stored(split["vectors"], split["text"], split["other"], overhead // 2, seconds / len(rows), peak)


def reset_peak() -> None:
    """Reset the process's memory peak to the present; only Linux can."""
    if sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return


def resident_bytes() -> int:
    """The process's resident memory now; where only its peak is known, that."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return 1024 * int(line.split()[1])
    return peak_bytes()


def peak_bytes() -> int:
    """The process's peak of resident memory, on Linux, Windows and macOS."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    memory = psutil.Process().memory_info()
    peak: int = getattr(memory, "peak_wset", 0)  # what Windows counts
    if not peak and sys.platform == "darwin":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(peak, int(memory.rss))


def _characters(row: Row) -> int:
    return sum(len(text) for text in row.fields().values())


def _filled(rows: Iterable[TokenRow], tokens: int) -> list[TokenRow]:
    """As many of the first rows as fit in a batch of this many tokens, at least one."""
    batch: list[TokenRow] = []
    widest = 0
    for row in rows:
        widest = max(widest, len(row.ids))
        if batch and widest * (len(batch) + 1) > tokens:
            break
        batch.append(row)
    return batch


def _line_through(seen: Sequence[tuple[int, int]]) -> Memory:
    """Memory as a line through the last two (tokens, peak) pairs; with only one, all memory counts as fixed."""
    tokens, peak = seen[-1]
    if len(seen) < 2 or tokens == seen[-2][0]:
        return Memory(float(peak), 0.0, tokens)
    slope = max((peak - seen[-2][1]) / (tokens - seen[-2][0]), 0.0)
    return Memory(peak - slope * tokens, slope, tokens)


def _noise(generator: np.random.Generator, rows: int, column: Column) -> NDArray[np.generic]:
    if column.dtype in LEVEL_BITS:
        return generator.integers(0, 256, (rows, column.width), np.uint8)
    if column.dtype == "int8":
        return generator.integers(-127, 128, (rows, column.width), np.int8)
    return generator.standard_normal((rows, column.width), np.float32).astype(
        "float32" if column.dtype == "float32" else "float16"
    )
