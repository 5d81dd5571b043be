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


def require_equal(expected: Mapping[str, Any], found: Mapping[str, Any], *, what: str, remedy: str) -> None:
    """Raise `MismatchError` unless both agree; its fields are all that differ, its message shows a few, shortened."""
    apart = list(_walk(expected, found))
    if apart:
        shown = [f"{name}: {_short(a)} expected, {_short(b)} found" for name, a, b in apart[:_SHOWN]]
        more = [f"{len(apart) - _SHOWN} more differ"] if len(apart) > _SHOWN else []
        raise MismatchError(
            f"{what}: {'; '.join([*shown, *more])}", fields=tuple(name for name, _, _ in apart), remedy=remedy
        )


_SHOWN, _WIDTH = 4, 60


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _walk(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any, Any]]:
    for name in sorted({*a, *b}):
        left, right = a.get(name), b.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            yield from _walk(left, right, f"{prefix}{name}.")
        elif left != right:
            yield f"{prefix}{name}", left, right
