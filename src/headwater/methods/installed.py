"""Methods that other installed packages bring, found through the entry-point group `headwater.methods`.

[project.entry-points."headwater.methods"]
mine = "my_package.mine:ENTRY"
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from headwater.core.errors import UsageError
from headwater.methods.method import MethodEntry
from headwater.methods.streaming import StreamingEntry

GROUP = "headwater.methods"


def add_installed(indexed: dict[str, MethodEntry[Any]], streaming: dict[str, StreamingEntry[Any]]) -> None:
    """Add every installed package's entries to the two catalogs, by the entry's own name.

    Raises:
        UsageError: an entry point that cannot be imported, is not an entry, or takes a name that is taken.
    """
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        where = f"entry point '{point.name} = {point.value}'"
        remedy = f"repair or uninstall {point.dist.name if point.dist else 'the package'}"
        try:
            entry = point.load()
        except Exception as error:  # another package's code may fail in any way
            raise UsageError(f"cannot be imported: {error!r}", where=where, remedy=remedy) from error
        if not isinstance(entry, MethodEntry | StreamingEntry):
            what = f"a {type(entry).__name__} is neither a MethodEntry nor a StreamingEntry"
            raise UsageError(what, where=where, remedy=remedy)
        if entry.name in indexed or entry.name in streaming:
            raise UsageError(f"there is a method '{entry.name}' already", where=where, remedy=remedy)
        if isinstance(entry, MethodEntry):
            indexed[entry.name] = entry
        else:
            streaming[entry.name] = entry
