"""Find near-duplicates: rows that say the same in nearly the same words, however they are dressed up.

    row → words in plain form (`normal_form`) of what is asked and of what is answered
        → pairs of neighbouring words → rows that share pairs (`candidates`) → are the two alike?

Two texts are alike if the other one has at least `threshold` of the shorter one's pairs (with at most one foreign word
between the two) and is at most 2.5 times as long. So words that are put in, a filler in front or behind, and repeated
text change nothing. Two rows are near-duplicates if the answers are alike and the prompts are, or if two long answers
are nearly the same, whatever was asked.

Text that many rows share says nothing: if two texts both have words of their own and these differ, they are not alike.
That keeps rows behind one instruction, or in one frame, apart. Of a prompt, its own words count however few they are.
Clusters are chained: if a and c are both near b, all three are in one cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
from jaxtyping import UInt32, UInt64
from numpy.typing import NDArray

from headwater.valuation.candidates import candidate_pairs, contains, frequent
from headwater.valuation.normal_form import unspaced, words

THRESHOLD = 0.7
"""Two texts are alike from this share of the shorter one's word pairs."""

MANY = 32
"""Text that so many rows share counts as a frame; what fewer rows share counts as copied."""

LONG, NEARLY_ALL = 20, 0.85
"""Answers of so many words that have so much in common are one answer, whatever was asked."""

OWN_OF_ANSWER, OWN_RUN = 0.2, 10
"""An answer has words of its own if they make this share of its pairs, or (plain texts) so many pairs in a row."""

OWN_ALIKE, FEW_OWN = 0.6, 12
"""Less of their own pairs in common than this, and two texts differ; of so few pairs, one text must have
all of the other's, and hardly more."""

_LEAST_RATIO = 0.4
_SINGLE, _FEW = 4, 10
_SAMPLE = 128


@dataclass(frozen=True)
class Pieces:
    """A text as hashes of its word pairs; a text of fewer than four words as hashes of its words.

    Attributes:
        words: how many words it has.
        size: how many different pairs it has.
        level: a long text is compared by the pairs with a hash below 2^(32 − level) only: 128 or more.
        pairs: all neighbouring words, each pair once, in order.
        near: these, and words with another one between them; sorted, and only the hashes below 2^(32 − level).
    """

    words: int
    size: int
    level: int
    pairs: UInt32[np.ndarray, " pairs"]
    near: UInt32[np.ndarray, " near"]

    @property
    def sample(self) -> UInt32[np.ndarray, " sample"]:
        """The pairs by which the text as a whole is compared."""
        return _below(self.pairs, self.level)

    def holds(self, wanted: UInt32[np.ndarray, " wanted"]) -> NDArray[np.bool_]:
        """Which of the wanted pairs the text has."""
        near = contains(self.near, wanted)
        return near | contains(np.sort(self.pairs), wanted) if self.level else near


@dataclass(frozen=True)
class Sides:
    """What is asked and what is answered; a plain text counts as an answer to nothing."""

    asked: Pieces
    answered: Pieces

    @property
    def telling(self) -> UInt32[np.ndarray, " pairs"]:
        """The pairs by which similar rows are found: a short answer says too little without its prompt."""
        if self.answered.words >= LONG:
            return self.answered.sample
        return np.concatenate([self.answered.sample, self.asked.sample])


def clusters(rows: Iterable[tuple[str, str]], *, threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """Give each row a cluster number: the position of the cluster's first row.

    Args:
        rows: prompt (empty for a plain text) and response of each row; they are read once.
        threshold: least share of word pairs from which texts are alike, above 0 and at most 1.
    """
    cutter, parent = _Cutter(), list[int]()
    first: dict[bytes, int] = {}
    sides: list[Sides] = []
    for place, (prompt, response) in enumerate(rows):
        asked, answered = words(prompt), words(response)
        key = blake2b(f"{unspaced(asked)}\n{unspaced(answered)}".encode("utf-8", "replace"), digest_size=16).digest()
        parent.append(first.setdefault(key, place))
        if parent[-1] == place:
            sides.append(Sides(cutter.cut(asked, seed=1), cutter.cut(answered, seed=2)))
    places = list(first.values())
    alike = _Alike.of(sides, threshold)
    for a, b in chain(candidate_pairs([side.telling for side in sides]), candidate_pairs(alike.own(sides))):
        if _root(parent, places[a]) != _root(parent, places[b]) and alike.rows(sides[a], sides[b]):
            _join(parent, places[a], places[b])
    return np.array([_root(parent, place) for place in range(len(parent))], dtype=np.int64)


class _Cutter:
    """Cuts texts into pieces; keeps the hashes of words it has seen."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def cut(self, text: Sequence[str], *, seed: int) -> Pieces:
        """The pieces of a text, which is given as words; with another seed, all hashes are others."""
        single = np.array([self._hash(word) for word in text], dtype=np.uint64)
        pairs = single if len(text) < _SINGLE else _pair(single[:-1], single[1:])
        near = [pairs]
        if len(text) >= _SINGLE:
            near += [_pair(single[:-2], single[2:]), single[: _FEW if len(text) <= _FEW else 0]]
        mixed = _short(pairs, seed)
        _, place = np.unique(mixed, return_index=True)
        level = max(0, int(np.ceil(np.log2(max(len(place), 1) / (2 * _SAMPLE)))))
        around = np.unique(_short(np.concatenate(near), seed))
        return Pieces(len(text), len(place), level, mixed[np.sort(place)], _below(around, level))

    def _hash(self, word: str) -> int:
        found = self._known.get(word)
        if found is None:
            if len(self._known) >= 1_000_000:  # a bound on memory
                self._known.clear()
            digest = blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
            found = self._known[word] = int.from_bytes(digest, "little")
        return found


@dataclass(frozen=True)
class _Alike:
    """Says whether two rows are near-duplicates.

    Attributes:
        threshold: least share of pairs.
        frames: the pairs that many rows share; sorted.
    """

    threshold: float
    frames: UInt32[np.ndarray, " frequent"]

    @classmethod
    def of(cls, sides: Sequence[Sides], threshold: float) -> _Alike:
        """Find the frames of these rows."""
        texts = [pieces for side in sides for pieces in (side.asked, side.answered)]
        every = [pieces.near for pieces in texts] + [_above(pieces.pairs, pieces.level) for pieces in texts]
        return cls(threshold, frequent(np.concatenate(every), MANY) if every else np.zeros(0, dtype=np.uint32))

    def own(self, sides: Sequence[Sides]) -> list[UInt32[np.ndarray, " own"]]:
        """Each row's own pairs, by which copies in one frame are found; none for a row that is in no frame."""
        found = []
        for side in sides:
            pairs = np.concatenate([side.answered.pairs, side.asked.pairs])
            own = ~contains(self.frames, pairs)
            found.append(pairs[own] if not own.all() else pairs[:0])
        return found

    def rows(self, a: Sides, b: Sides) -> bool:
        """Whether two rows are near-duplicates."""
        plain = not a.asked.words and not b.asked.words
        answers = self._texts(a.answered, b.answered, OWN_OF_ANSWER, OWN_RUN if plain else None)
        if answers < self.threshold:
            return False
        if self._texts(a.asked, b.asked, 0.0, None) >= self.threshold:
            return True
        both = (a.answered, b.answered)
        telling = all(x.words >= LONG and self._own(x).mean() >= OWN_OF_ANSWER for x in both)
        return telling and answers >= max(NEARLY_ALL, self.threshold)

    def _texts(self, a: Pieces, b: Pieces, floor: float, run: int | None) -> float:
        """The share of the shorter text's pairs that the other has; 0 if their lengths or their own words differ."""
        short, long = sorted((a, b), key=lambda pieces: pieces.size)
        if not short.size or short.size < _LEAST_RATIO * long.size:
            return float(short.size == long.size)
        level = max(short.level, long.level)
        shared = _share(_below(short.pairs, level), long.near)
        if shared < self.threshold:
            return shared
        here, back = long.holds(short.pairs), short.holds(long.pairs)
        own = [self._own(short) | ~here, self._own(long) | ~back]  # part of a frame is what both have, and many others
        telling = all(flags.any() and (flags.mean() >= floor or (run and _longest(flags) >= run)) for flags in own)
        return 0.0 if telling and not _same(here[own[0]], back[own[1]]) else shared

    def _own(self, pieces: Pieces) -> NDArray[np.bool_]:
        """Which pairs are not part of a frame."""
        return ~contains(self.frames, pieces.pairs)


def _share(some: UInt32[np.ndarray, " some"], among: UInt32[np.ndarray, " near"]) -> float:
    return float(contains(among, some).mean()) if len(some) else 0.0


def _same(here: NDArray[np.bool_], back: NDArray[np.bool_]) -> bool:
    """Whether two texts' own pairs are the same, given which of them the other text has."""
    fewer, more = sorted((len(here), len(back)))
    if fewer > FEW_OWN:
        return bool(max(here.mean(), back.mean()) >= OWN_ALIKE)
    return bool(here.all() or back.all()) and fewer >= OWN_ALIKE * more


def _longest(flags: NDArray[np.bool_]) -> int:
    """The length of the longest run of True."""
    ends = np.flatnonzero(~np.concatenate([[False], flags, [False]]))
    return int(np.diff(ends).max()) - 1


def _below(hashes: UInt32[np.ndarray, " _"], level: int) -> UInt32[np.ndarray, " _"]:
    return hashes[hashes >> np.uint32(32 - level) == 0] if level else hashes


def _above(hashes: UInt32[np.ndarray, " _"], level: int) -> UInt32[np.ndarray, " _"]:
    return hashes[hashes >> np.uint32(32 - level) != 0] if level else hashes[:0]


def _pair(left: UInt64[np.ndarray, " n"], right: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    pairs: NDArray[np.uint64] = _mix(left) + right * np.uint64(0x9E3779B97F4A7C15)
    return pairs


def _short(hashes: UInt64[np.ndarray, " n"], seed: int) -> UInt32[np.ndarray, " n"]:
    short: NDArray[np.uint32] = (_mix(hashes ^ np.uint64(seed)) >> np.uint64(32)).astype(np.uint32)
    return short


def _mix(hashes: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """A one-to-one map after which every bit depends on every bit (splitmix64's last steps)."""
    mixed = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    final: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return final


def _root(parent: list[int], place: int) -> int:
    while parent[place] != place:
        parent[place] = parent[parent[place]]
        place = parent[place]
    return place


def _join(parent: list[int], left: int, right: int) -> None:
    a, b = _root(parent, left), _root(parent, right)
    parent[max(a, b)] = min(a, b)
