"""Find near-duplicates: rows that share many word triples, by MinHash and locality-sensitive hashing (datasketch).

Clusters are chained: if a and c are both near b, all three are in one cluster. The estimated Jaccard similarity of two
neighbours is at least `threshold`; the estimate's error is about 1/√permutations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

THRESHOLD = 0.7
"""Two rows with at least this Jaccard similarity count as near-duplicates."""

_PERMUTATIONS = 64
_WORD = re.compile(r"\w+")
_BATCH = 1024


def clusters(texts: Iterable[str], *, threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """Give each text a cluster number: the position of the cluster's first text.

    Args:
        texts: rows as text; they are read once.
        threshold: least Jaccard similarity of the word triples of neighbours, above 0 and at most 1.
    """
    lsh = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
    kept: list[MinHash] = []
    parent: list[int] = []
    exact: dict[frozenset[bytes], int] = {}
    for position, (pieces, sketch) in enumerate(_sketches(texts)):
        parent.append(position)
        first = exact.setdefault(pieces, position)
        kept.append(sketch)
        if first != position:
            parent[position] = _root(parent, first)
            continue
        for near in lsh.query(sketch):
            if sketch.jaccard(kept[near]) >= threshold:
                _join(parent, near, position)
        lsh.insert(position, sketch)
    return np.array([_root(parent, position) for position in range(len(parent))], dtype=np.int64)


def _sketches(texts: Iterable[str]) -> Iterator[tuple[frozenset[bytes], MinHash]]:
    block: list[frozenset[bytes]] = []
    for text in texts:
        block.append(_pieces(text))
        if len(block) == _BATCH:
            yield from zip(block, _hashed(block), strict=True)
            block = []
    yield from zip(block, _hashed(block), strict=True)


def _hashed(block: list[frozenset[bytes]]) -> list[MinHash]:
    return list(MinHash.bulk([list(pieces) for pieces in block], num_perm=_PERMUTATIONS)) if block else []


def _pieces(text: str) -> frozenset[bytes]:
    """The text's triples of lower-case words; if it has fewer than three words, its words; if none, the text itself."""
    words = _WORD.findall(text.lower())
    if len(words) < 3:
        return frozenset(word.encode() for word in words) or frozenset([text.encode()])
    return frozenset(" ".join(words[i : i + 3]).encode() for i in range(len(words) - 2))


def _root(parent: list[int], position: int) -> int:
    while parent[position] != position:
        parent[position] = parent[parent[position]]
        position = parent[position]
    return position


def _join(parent: list[int], left: int, right: int) -> None:
    a, b = _root(parent, left), _root(parent, right)
    parent[max(a, b)] = min(a, b)
