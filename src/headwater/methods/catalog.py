"""The catalog: every method by name. Adding a method is one file and one line here.

An installed package adds its own through the entry-point group `headwater.methods`, each pointing at a `MethodEntry` or
a `StreamingEntry` (see docs/adding-a-method.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwater.core.errors import unknown_name
from headwater.core.spec import MethodSpec
from headwater.methods import (
    alinfik,
    datainf,
    ekfac,
    embedding,
    graddot,
    less,
    lexical,
    linfik,
    logra,
    loss,
    rapidin,
    rise,
    rise_gram,
    trackstar,
    trak,
    zoinf,
)
from headwater.methods.installed import add_installed
from headwater.methods.method import Method, MethodEntry
from headwater.methods.streamed import streamed
from headwater.methods.streaming import StreamingEntry, StreamingMethod

CATALOG: dict[str, MethodEntry[Any]] = {
    entry.name: entry
    for entry in (
        rise.ENTRY,
        rise_gram.ENTRY,
        rapidin.ENTRY,
        graddot.GRADDOT,
        graddot.GRADCOS,
        graddot.TRACIN,
        less.ENTRY,
        trak.ENTRY,
        trackstar.ENTRY,
        logra.ENTRY,
    )
}

STREAMING: dict[str, StreamingEntry[Any]] = {
    entry.name: entry
    for entry in (
        linfik.ENTRY,
        alinfik.ENTRY,
        ekfac.ENTRY,
        datainf.ENTRY,
        zoinf.ENTRY,
        embedding.ENTRY,
        lexical.BM25,
        loss.ENTRY,
        lexical.LENGTH,
        lexical.RANDOM,
    )
}
"""Methods that need no index, by name."""

add_installed(CATALOG, STREAMING)


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
    """The method called `name` as one that needs no index, with settings as in `find_method`.

    Methods of an index are streamed: their vectors are made, compared and dropped.
    """
    if name in CATALOG:
        return streamed(CATALOG[name].resolve(settings or {}))
    if name not in STREAMING:
        raise unknown_name("method", name, [*CATALOG, *STREAMING])
    return STREAMING[name].resolve(settings or {})
