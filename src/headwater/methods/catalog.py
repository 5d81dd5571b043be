"""The catalog: every method by name. To add a method, write one file and one line here.

An installed package adds methods through entry points in the group `headwater.methods`, each of which points at a
`MethodEntry` (see docs/adding-a-method.md):

    [project.entry-points."headwater.methods"]
    mine = "my_package.mine:ENTRY"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from headwater.core.arguments import named
from headwater.core.errors import UsageError, unknown_name
from headwater.core.spec import MethodSpec
from headwater.methods import (
    alinfik,
    concord,
    datainf,
    ekfac,
    ekfac_cos,
    embedding,
    graddot,
    less,
    lexical,
    linfik,
    logra,
    lorif,
    loss,
    magic,
    rapidin,
    relatif,
    rise,
    rise_gram,
    self_influence,
    source,
    trackstar,
    trak,
    zoinf,
)
from headwater.methods.method import Method, MethodEntry

GROUP = "headwater.methods"
"""The group of entry points through which installed packages add methods."""


def find_method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method called `name` with `settings`: option name to value, and the preset to start from as `preset`.

    Raises:
        UsageError: an unknown method, option or value; the message names the nearest one.
    """
    return find_entry(name).resolve(named(settings, where="settings", example={"seed": 1}))


def find_entry(name: str) -> MethodEntry[Any]:
    """The catalog's entry of this name; raises `UsageError` with the nearest name if there is none."""
    if name not in CATALOG:
        raise unknown_name("method", name, CATALOG, where="--method")
    return CATALOG[name]


def restore_method(spec: MethodSpec) -> Method:
    """The method an index was built with.

    An index records every option. One that it lacks is newer than the index, and takes the default of the class of
    options, which stands for what the method did before, not that of a preset.
    """
    entry = find_entry(spec.name)
    return entry.resolve({**asdict(type(entry.presets["default"])()), **spec.options})


def vector_method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method called `name` with settings under which it gives vectors.

    Raises:
        UsageError: as in `find_method`, or the method gives no vectors under any settings.
    """
    entry = find_entry(name)
    method = entry.resolve({**entry.as_vectors, **(settings or {})})
    method.require_vectors()
    return method


def add_installed(catalog: dict[str, MethodEntry[Any]], points: Iterable[EntryPoint]) -> None:
    """Add the entries of installed packages to the catalog, each under its own name.

    Raises:
        UsageError: an entry point cannot be imported, is not an entry, or has a name that is taken.
    """
    for point in sorted(points, key=lambda p: p.name):
        where = f"entry point '{point.name} = {point.value}'"
        remedy = f"repair or uninstall {point.dist.name if point.dist else 'the package'}"
        try:
            entry = point.load()
        except Exception as error:  # another package's code may fail in any way
            raise UsageError(f"cannot be imported: {error!r}", where=where, remedy=remedy) from error
        if not isinstance(entry, MethodEntry):
            raise UsageError(f"a {type(entry).__name__} is not a MethodEntry", where=where, remedy=remedy)
        if entry.name in catalog:
            raise UsageError(f"there is a method '{entry.name}' already", where=where, remedy=remedy)
        catalog[entry.name] = entry


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
        lorif.ENTRY,
        relatif.ENTRY,
        linfik.ENTRY,
        alinfik.entry(find_method),
        ekfac.ENTRY,
        ekfac_cos.ENTRY,
        concord.ENTRY,
        datainf.ENTRY,
        magic.ENTRY,
        source.ENTRY,
        zoinf.ENTRY,
        self_influence.entry(vector_method),
        embedding.ENTRY,
        lexical.BM25,
        loss.ENTRY,
        lexical.LENGTH,
        lexical.RANDOM,
    )
}
"""Every method by name."""

add_installed(CATALOG, tuple(entry_points(group=GROUP)))
