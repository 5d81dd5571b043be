"""Hashed n-grams of words and characters, and counts of kinds of signs, for many texts at once.

All texts of a call are one long array of codes, so that a text costs some tens of microseconds:

    word → crc32;   character → its code point;   n-gram → mixed product of its codes → 2^16 buckets and a sign

Two n-grams in one bucket add up, or cancel if their signs differ (feature hashing, Weinberger et al. 2009).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse

BITS = 16
"""Each kind of n-gram is hashed into 2^16 buckets."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
_SPACE = ord(" ")
_MIX, _SPREAD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_KINDS = (str.isalpha, str.isupper, str.isdigit, str.isspace)


def word_ngrams(texts: Sequence[str], *, longest: int, norm: str) -> sparse.csr_matrix:
    """N-grams of 1 to `longest` words or signs, without regard to case; float32 `[texts, 65536]`, rows of norm 1.

    `norm` is `l1` (each n-gram's share of the text) or `l2`.
    """
    words = [_TOKEN.findall(text.lower()) for text in texts]
    codes = np.fromiter((zlib.crc32(word.encode("utf-8", "replace")) for text in words for word in text), np.uint64)
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in words])
    grams = [(_hashed(codes, size), owner[: len(codes) - size + 1], owner[size - 1 :]) for size in _sizes(1, longest)]
    found = [(hashes[first == last], first[first == last]) for hashes, first, last in grams]
    return _matrix(found, len(texts), norm)


def character_ngrams(texts: Sequence[str], *, shortest: int, longest: int) -> sparse.csr_matrix:
    """N-grams of characters within a word and the spaces around it; float32 `[texts, 65536]`, rows of l2 norm 1."""
    spaced = [f" {' '.join(words)} " if (words := text.lower().split()) else "" for text in texts]
    codes, owner = code_points(spaced)
    space = codes == _SPACE
    found = []
    for size in _sizes(shortest, longest):
        count = max(len(codes) - size + 1, 0)
        inside = owner[:count] == owner[size - 1 :]
        for at in range(1, size - 1):
            inside &= ~space[at : at + count]
        found.append((_hashed(codes, size)[inside], owner[:count][inside]))
    return _matrix(found, len(texts), "l2")


def sign_shares(texts: Sequence[str]) -> Float[np.ndarray, "texts 4"]:
    """The share of each text's characters that are letters, capitals, digits and white space; 0 for an empty text."""
    codes, owner = code_points(texts)
    present = np.flatnonzero(np.bincount(codes.astype(np.int64), minlength=1))
    table = np.zeros((int(present.max(initial=0)) + 1, len(_KINDS)))
    for code in present.tolist():
        table[code] = [kind(chr(code)) for kind in _KINDS]
    kinds = table[codes]
    counts = np.stack([np.bincount(owner, kinds[:, k], minlength=len(texts)) for k in range(len(_KINDS))], axis=1)
    shares: np.ndarray = counts / np.maximum(np.array([len(text) for text in texts]), 1)[:, None]
    return shares


def code_points(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The characters of all texts as numbers, and the text that each is of."""
    raw = "".join(texts).encode("utf-32-le", "surrogatepass")
    return np.frombuffer(raw, dtype="<u4").astype(np.uint64), np.repeat(np.arange(len(texts)), [*map(len, texts)])


def _sizes(shortest: int, longest: int) -> range:
    return range(shortest, longest + 1)


def _hashed(codes: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """A number of 64 bits for each run of `size` codes; the multiplications overflow on purpose."""
    count = max(len(codes) - size + 1, 0)
    found = np.full(count, size, dtype=np.uint64)
    for at in range(size):
        found = (found ^ codes[at : at + count]) * _MIX
        found ^= found >> np.uint64(29)
    return found * _SPREAD


def _matrix(found: Sequence[tuple[NDArray[np.uint64], NDArray[np.int64]]], texts: int, norm: str) -> sparse.csr_matrix:
    """The n-grams' signs, added up by text and bucket, with each text scaled to norm 1."""
    hashes, owner = (np.concatenate(part) for part in zip(*found, strict=True))
    signs = np.where(hashes >> np.uint64(BITS) & np.uint64(1), 1.0, -1.0)
    places = owner << BITS | (hashes >> np.uint64(64 - BITS)).astype(np.int64)
    order = np.argsort(places, kind="stable")
    places, signs = places[order], signs[order]
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    values = np.add.reduceat(signs, starts) if len(starts) else signs
    rows, columns = places[starts] >> BITS, places[starts] & (2**BITS - 1)
    sizes = np.bincount(rows, np.abs(values) if norm == "l1" else values**2, minlength=texts)
    norms = np.maximum(sizes if norm == "l1" else np.sqrt(sizes), 1e-12)
    ends = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=texts))])
    return sparse.csr_matrix(((values / norms[rows]).astype(np.float32), columns, ends), shape=(texts, 2**BITS))
