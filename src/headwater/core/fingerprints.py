"""Fingerprints: short digests of what a result depends on, compared before a stored result is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from headwater.core.errors import MismatchError


def digest(*parts: str | bytes | Mapping[str, Any] | list[Any] | None) -> str:
    """32 hexadecimal digits (blake2b-128) of the parts; dictionaries and lists enter as canonical JSON."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part if isinstance(part, bytes) else canonical(part).encode()
        h.update(len(raw).to_bytes(8, "little"))
        h.update(raw)
    return h.hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; a string is returned as it is."""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """One line per field that differs, named by its dotted path: `tokenizer.digest: 'a1' expected, 'b2' found`."""
    return [f"{name}: {a!r} expected, {b!r} found" for name, a, b in _walk(expected, found)]


def require_equal(expected: Mapping[str, Any], found: Mapping[str, Any], *, what: str, remedy: str) -> None:
    """Raise `MismatchError` naming every differing field unless both agree."""
    lines = differences(expected, found)
    if lines:
        fields = tuple(line.split(":", 1)[0] for line in lines)
        raise MismatchError(f"{what}: {'; '.join(lines)}", fields=fields, remedy=remedy)


def _walk(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any, Any]]:
    for name in sorted({*a, *b}):
        left, right = a.get(name), b.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            yield from _walk(left, right, f"{prefix}{name}.")
        elif left != right:
            yield f"{prefix}{name}", left, right
