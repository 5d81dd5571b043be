"""Open indices: every request reads one version of an index, and no request waits for a writer.

An open `Index` stays on its version. When a newer version has been committed, the next request gets a new `Index`;
those that are being answered keep theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from headwater.index.failures import storing
from headwater.index.store import Index, open_index
from headwater.view.kept_results import KeptResults
from headwater.view.shelf import Item

Found = TypeVar("Found")

KEPT = 8
"""How many indices stay open."""
REMEMBERED = 512
"""How many counts and facets are kept."""


class Snapshots:
    """Indices by the key of their shelf item, each at the version that was latest when it was asked for."""

    def __init__(self) -> None:
        self._open: KeptResults[Index] = KeptResults(KEPT)
        self._found: KeptResults[Any] = KeptResults(REMEMBERED)

    def of(self, item: Item) -> Index:
        """The index at its latest version.

        Raises:
            StoreError: it is gone or damaged.
        """
        known = self._open.get(item.path)
        if known is not None:
            with storing(item.title):
                if known.dataset.latest_version == known.dataset.version:
                    return known
        opened = open_index(item.path)
        self._open.put(item.path, opened)
        return opened

    def once(self, index: Index, what: tuple[Any, ...], find: Callable[[], Found]) -> Found:
        """What `find` finds in this version of the index; it is looked for once."""
        found: Found = self._found.of((index.path, index.dataset.version, *what), find)
        return found
