"""Survey a pool in one pass: count its rows, draw a sample, find leaks and near-duplicates, and keep the rows."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappush, heappushpop
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.core.errors import DataError, HeadwaterError, UsageError
from headwater.core.files import whole_file
from headwater.core.fingerprints import digest
from headwater.core.plain import json_ready
from headwater.core.seeds import key
from headwater.data.columns import ColumnType, restored
from headwater.data.rows import Row, RowsDigest
from headwater.valuation.duplicates import clusters
from headwater.valuation.normal_form import words
from headwater.valuing.kept_rows import KeptRows, to_line


@runtime_checkable
class Pool(Protocol):
    """Rows in a fixed order that can be read again: a corpus, or the rows of an index."""

    @property
    def name(self) -> str:
        """The pool's name in messages."""
        ...

    @property
    def count(self) -> int | None:
        """How many rows there are; None if the pool must be read to know."""
        ...

    def __iter__(self) -> Iterator[Row]:
        """The rows, from the first."""
        ...


@dataclass(frozen=True)
class _Writing:
    """A pool that also writes each row to a file when it is read."""

    pool: Pool
    file: TextIO

    @property
    def name(self) -> str:
        return self.pool.name

    @property
    def count(self) -> int | None:
        return self.pool.count

    @property
    def mapping(self) -> Mapping[str, str]:
        return dict(getattr(self.pool, "mapping", {}))

    @property
    def origin(self) -> Mapping[str, Any]:
        return dict(getattr(self.pool, "origin", {"candidates": self.pool.name}))

    def __iter__(self) -> Iterator[Row]:
        for row in self.pool:
            self.file.write(to_line(row) + "\n")
            yield row


@dataclass(frozen=True)
class SurveyedPool:
    """A pool after its survey.

    Attributes:
        name: the pool's name in messages.
        rows: its rows, which can be read again without the pool.
        columns: role to column, if the pool was opened with such a mapping.
        origin: what opens the pool again, as `Corpus.origin` says it.
        count: how many rows there are.
        digest: `RowsDigest` of all rows; empty if no row has a text, as in an index built without texts.
        identity: digest of all rows with their metadata; a run is only continued on a pool with the same identity.
        sample: the drawn rows, in random order; seed and ids alone decide which rows are drawn.
        leaked: ids of rows with the same text as a target row.
        metadata: type of each metadata column, in order of first appearance; a column that no type holds exactly is
            text (JSON).
        clusters: near-duplicate cluster of each row, or None if nobody asked for them.
    """

    name: str
    rows: Iterable[Row]
    columns: Mapping[str, str]
    origin: Mapping[str, Any]
    count: int
    digest: str
    identity: str
    sample: tuple[Row, ...]
    leaked: tuple[str, ...]
    metadata: dict[str, pa.DataType]
    clusters: NDArray[np.int64] | None


def survey(
    corpus: Pool,
    *,
    sample: int,
    seed: int = 0,
    stratify: str = "",
    target: Collection[Row] = (),
    duplicates: float | None = None,
    keep: Path | None = None,
) -> SurveyedPool:
    """Read the pool once.

    Args:
        corpus: the pool.
        sample: how many rows to draw, uniformly without replacement.
        seed: of the draw.
        stratify: a metadata column; each of its values then gets the same number of rows, as far as it has so many.
        target: rows that must not be in the pool; those that are count as leaks.
        duplicates: similarity from which rows are near-duplicates; None and 0 do not look for them.
        keep: a file for the rows, so that they can be read again without the pool; None reads the pool again.

    Raises:
        DataError: the pool is empty, or has no column `stratify`.
    """
    if duplicates is not None and not 0 <= duplicates <= 1:
        remedy = "give a number from 0 to 1; 0 does not look for them"
        raise UsageError(f"a similarity of {duplicates:g} for near-duplicates", where="duplicates", remedy=remedy)
    if keep is not None:
        choice: dict[str, Any] = {"sample": sample, "seed": seed, "stratify": stratify, "target": target}
        try:
            with whole_file(keep) as part, part.open("w", encoding="utf-8") as file:
                found = survey(_Writing(corpus, file), duplicates=duplicates, **choice)
        except HeadwaterError:
            with contextlib.suppress(OSError):  # remove the new folder if it is empty
                keep.parent.rmdir()
            raise
        return dataclasses.replace(found, rows=KeptRows(corpus.name, keep, found.count))
    scan = _Scan(sample, seed, stratify, {content(row) for row in target})
    sides = ((row.prompt or "", row.answer) for row in scan.through(corpus))
    repeats = clusters(sides, threshold=duplicates) if duplicates else None
    if repeats is None:
        for _ in sides:
            pass
    if not scan.count:
        raise DataError("no rows", where=corpus.name, remedy="check that it is the right pool")
    if stratify and stratify not in scan.kinds:
        remedy = f"columns: {', '.join(scan.kinds) or 'none'}"
        raise DataError(f"no column '{stratify}' to draw by", where=corpus.name, remedy=remedy)
    kinds = {name: kind.exact_type or pa.string() for name, kind in scan.kinds.items()}
    return SurveyedPool(
        name=corpus.name,
        rows=corpus,
        columns=dict(getattr(corpus, "mapping", {})),
        origin=dict(getattr(corpus, "origin", {"candidates": corpus.name})),
        count=scan.count,
        digest=scan.texts.hexdigest() if scan.any_text else "",
        identity=scan.whole.hexdigest(),
        sample=scan.sample(),
        leaked=tuple(scan.leaked),
        metadata=kinds,
        clusters=repeats,
    )


def content(row: Row) -> str:
    """Digest of a row's words in their plain form: spacing, case, invisible and look-alike letters do not matter."""
    return digest({name: words(text) for name, text in row.fields().items()})


def text_of(row: Row) -> str:
    """A row's text fields, one below the other."""
    return "\n".join(row.fields().values())


class _Scan:
    """Collects what `survey` needs while the rows are read."""

    def __init__(self, sample: int, seed: int, stratify: str, target: set[str]) -> None:
        self._sample, self._seed, self._stratify, self._target = sample, seed, stratify, target
        self._drawn: dict[str, list[tuple[int, int, Row]]] = {}
        self.count = 0
        self.texts, self.any_text = RowsDigest(), False
        self.whole = hashlib.blake2b(digest_size=16)
        self.leaked: list[str] = []
        self.kinds: dict[str, ColumnType] = {}

    def through(self, corpus: Pool) -> Iterator[Row]:
        """Pass the rows on, and record each."""
        for row in corpus:
            self.count += 1
            self.texts.add(row)
            self.any_text = self.any_text or bool(row.fields())
            everything = [row.id, row.fields(), row.messages, row.hotwords, dict(row.metadata)]
            self.whole.update((json.dumps(everything, default=str) + "\n").encode())
            if self._target and content(row) in self._target:
                self.leaked.append(row.id)
            for name, value in row.metadata.items():
                self.kinds.setdefault(name, ColumnType()).add(value)
            self._draw(row)
            yield row

    def _draw(self, row: Row) -> None:
        """Keep the `sample` rows with the lowest hashes of each stratum; the heap's top is the highest of them."""
        entry = (-key(self._seed, "sample", row.id), row.ordinal, row)
        drawn = self._drawn.setdefault(str(row.metadata.get(self._stratify)) if self._stratify else "", [])
        if len(drawn) < self._sample:
            heappush(drawn, entry)
        elif self._sample:
            heappushpop(drawn, entry)

    def sample(self) -> tuple[Row, ...]:
        """The sample, one row of each stratum in turn, lowest hash first, so that every beginning is a sample too."""
        order = [sorted(drawn, key=lambda entry: -entry[0]) for _, drawn in sorted(self._drawn.items())]
        turns = (entry for turn in zip_longest(*order) for entry in turn if entry is not None)
        return tuple(row for _, _, row in islice(turns, self._sample))


def cell(value: Any, kind: pa.DataType) -> Any:
    """A metadata value in the form that its column holds: other values of a text column become JSON.

    The value may come from a pool's kept rows, where times, decimals and bytes are text.
    """
    if value is None or not pa.types.is_string(kind):
        return restored(value, kind)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=json_ready)
