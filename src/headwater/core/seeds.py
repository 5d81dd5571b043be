"""Randomness from names: a keyed integer hash that is the same in NumPy and PyTorch, on any device, in any order.

No stored tables and no global generator: the value at an index depends on (seed, names, index) alone, so any shard of
any layer can be computed anywhere. The mixing rounds are Wellons' `lowbias32` (public domain), chosen for its low
avalanche bias; products are taken modulo 2^64 in int64 and masked to 32 bits, which both libraries do identically.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An int64 NumPy array or an int64 PyTorch tensor; every function returns the kind it is given."""

_MASK = 0xFFFFFFFF


def key(seed: int, *names: str | int) -> int:
    """A 64-bit key for the stream called `names` under `seed`."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def hash32(index: Array, stream: int) -> Array:
    """Uniform 32-bit integers (as int64) for non-negative int64 `index` under the key `stream`; same shape."""
    low, high = stream & _MASK, (stream >> 32) & _MASK
    x = _mix(((index & _MASK) * 0x9E3779B1 + low) & _MASK)
    return _mix((x ^ ((index >> 32) * 0x85EBCA6B + high)) & _MASK)


def buckets(index: Array, stream: int, count: int) -> Array:
    """Uniform integers in [0, count), with a bias below count / 2^32."""
    return (hash32(index, stream) * count) >> 32


def signs(index: Array, stream: int) -> Array:
    """Independent ±1 (int64)."""
    return 1 - 2 * (hash32(index, stream) & 1)


def _mix(x: Array) -> Array:
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)
