"""Open indices: every request reads one version of an index, and no request waits for a writer.

An open `Index` stays on its version. When a newer version has been committed, the next request gets a new `Index`;
those that are being answered keep theirs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from headwater.index.failures import storing
from headwater.index.store import Index, open_index
from headwater.view.shelf import Item

Found = TypeVar("Found")

KEPT = 8
"""How many indices stay open."""
REMEMBERED = 512
"""How many counts and facets are kept."""


class Snapshots:
    """Indices by the key of their shelf item, each at the version that was latest when it was asked for."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Index] = OrderedDict()
        self._found: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, item: Item) -> Index:
        """The index at its latest version.

        Raises:
            StoreError: it is gone or damaged.
        """
        with self._lock:
            known = self._open.get(item.path)
        if known is not None:
            with storing(item.title):
                if known.dataset.latest_version == known.dataset.version:
                    return known
        opened = open_index(item.path)
        with self._lock:
            self._open[item.path] = opened
            self._open.move_to_end(item.path)
            while len(self._open) > KEPT:
                self._open.popitem(last=False)
        return opened

    def once(self, index: Index, what: tuple[Any, ...], find: Callable[[], Found]) -> Found:
        """What `find` finds in this version of the index; it is looked for once."""
        key = (index.path, index.dataset.version, *what)
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                known: Found = self._found[key]
                return known
        found = find()
        with self._lock:
            self._found[key] = found
            while len(self._found) > REMEMBERED:
                self._found.popitem(last=False)
        return found
