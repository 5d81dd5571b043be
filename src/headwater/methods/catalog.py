"""The catalog: every method by name. Adding a method is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwater.core.errors import unknown_name
from headwater.core.spec import MethodSpec
from headwater.methods import graddot, rapidin, rise
from headwater.methods.method import Method, MethodEntry
from headwater.methods.streaming import StreamingEntry, StreamingMethod

CATALOG: dict[str, MethodEntry[Any]] = {
    entry.name: entry
    for entry in (
        rise.ENTRY,
        rapidin.ENTRY,
        graddot.GRADDOT,
        graddot.GRADCOS,
        graddot.TRACIN,
    )
}

STREAMING: dict[str, StreamingEntry[Any]] = {}
"""Methods that need no index, by name."""


def find_method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method called `name` with `settings` (option name to value; `preset` names a starting point).

    Raises:
        UsageError: unknown method, option or value; offers the nearest name.
    """
    if name not in CATALOG:
        raise unknown_name("method", name, CATALOG)
    return CATALOG[name].resolve(settings or {})


def restore_method(spec: MethodSpec) -> Method:
    """The method an index was built with."""
    return find_method(spec.name, spec.options)


def find_streaming(name: str, settings: Mapping[str, Any] | None = None) -> StreamingMethod:
    """The streaming method called `name`, with settings as in `find_method`."""
    if name not in STREAMING:
        raise unknown_name("method", name, STREAMING)
    return STREAMING[name].resolve(settings or {})
