"""Find pairs of rows that may be near-duplicates without comparing all pairs.

Every piece of a row proposes at most three other rows that hold it: the one before, the first, and the shortest. A pair
with proposals from a tenth of the shorter row's pieces is a candidate, at most eight of a row's own proposals. So the
work grows with the number of pieces times its logarithm, even where thousands of rows share a frame. The shortest
holder is proposed because the bare text is then found from each of its copies, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt32
from numpy.typing import NDArray

LEAST_SHARE = 0.1
MOST = 8
_WIDTH = np.int64(1 << 32)
_PART_BITS = 4


def candidate_pairs(rows: Sequence[UInt32[np.ndarray, " _"]]) -> Iterator[tuple[int, int]]:
    """Pairs of positions (row, other), grouped by the row that proposes the other, most proposals first.

    Args:
        rows: each row's pieces as hashes, each once.
    """
    if not rows:
        return
    sizes = np.array([len(pieces) for pieces in rows], dtype=np.int64)
    keys, votes = _proposals(rows, sizes)
    row, other = keys // _WIDTH, keys % _WIDTH
    likely = votes >= LEAST_SHARE * np.minimum(sizes[row], sizes[other])
    row, other, votes = row[likely], other[likely], votes[likely]
    order = np.lexsort((-votes, row))
    row, other = row[order], other[order]
    kept = np.arange(len(row)) - np.searchsorted(row, row) < MOST
    yield from zip(row[kept].tolist(), other[kept].tolist(), strict=True)


def frequent(pieces: UInt32[np.ndarray, " all"], many: int) -> UInt32[np.ndarray, " frequent"]:
    """The pieces that occur at least `many` times, sorted."""
    ordered = np.sort(pieces)
    if len(ordered) < many:
        return ordered[:0]
    return np.unique(ordered[many - 1 :][ordered[many - 1 :] == ordered[: len(ordered) - many + 1]])


def contains(ordered: UInt32[np.ndarray, " all"], wanted: UInt32[np.ndarray, " _"]) -> NDArray[np.bool_]:
    """Which of the wanted pieces are among the sorted ones."""
    if not len(ordered):
        return np.zeros(len(wanted), dtype=np.bool_)
    places = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    found: NDArray[np.bool_] = ordered[places] == wanted
    return found


def _proposals(
    rows: Sequence[UInt32[np.ndarray, " _"]], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each proposal as `row · 2³² + other`, and how many of the row's pieces make it."""
    pieces, holders = np.concatenate(list(rows)), np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    part = pieces >> np.uint32(32 - _PART_BITS)
    found = np.concatenate([_of_pieces(pieces[some], holders[some], sizes) for some in _parts(part)])
    found.sort()
    ends = np.flatnonzero(np.append(found[1:] != found[:-1], True)) if len(found) else np.zeros(0, dtype=np.int64)
    return found[ends], np.diff(ends, prepend=-1)


def _parts(part: UInt32[np.ndarray, " all"]) -> Iterator[NDArray[np.bool_]]:
    """The pieces in parts by their hash, so that only one part's tables are in memory at a time."""
    for number in range(1 << _PART_BITS):
        yield part == number


def _of_pieces(
    pieces: UInt32[np.ndarray, " all"], holders: NDArray[np.int32], sizes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The proposals of some pieces, one for each piece of a row that makes it."""
    if not len(pieces):
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(pieces, kind="stable")
    pieces, holder = pieces[order], holders[order].astype(np.int64)
    begins = np.append(True, pieces[1:] != pieces[:-1])
    starts = np.flatnonzero(begins)
    group = np.cumsum(begins) - 1
    shortest = np.minimum.reduceat(sizes[holder] * _WIDTH + holder, starts)[group] % _WIDTH
    first = holder[starts][group]
    before = np.where(begins, holder, np.roll(holder, 1))
    chosen = (
        (before, before != holder),
        (first, (first != holder) & (first != before)),
        (shortest, (shortest != holder) & (shortest != before) & (shortest != first)),
    )
    return np.concatenate([holder[some] * _WIDTH + other[some] for other, some in chosen])
