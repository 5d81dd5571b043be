"""What the views need: the shelf, open indices, the model's queue, and how a view's address is written.

A view is data first: the same record becomes a page, JSON and CSV. `View.data` is what JSON shows, `View.table` what
CSV shows, and `View.shown` what only the page needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from headwater.core.errors import StoreError
from headwater.index.store import Index
from headwater.view.jobs import Jobs
from headwater.view.models import Models
from headwater.view.shelf import Item, Kind, Shelf
from headwater.view.snapshots import Snapshots

Parameters = Mapping[str, Any]
"""Parameters of an address: a value or a sequence of values each; what is empty or None is left out."""

Href = Callable[[str, Parameters], str]
"""The address of a view from its path and parameters; empty for one that a bundle does not have."""

PREFIX: dict[Kind, str] = {
    "index": "/i/",
    "trace": "/t/",
    "values": "/v/",
    "ledger": "/l/",
    "prices": "/l/",
    "unlearning": "/u/",
    "evaluation": "/e/",
    "report": "/r/",
}
"""Where things of a kind are: the prefix, and then their key."""


@dataclass(frozen=True)
class View:
    """One view: what JSON, CSV and the page show.

    Attributes:
        template: the page's template.
        title: the page's title.
        data: JSON-ready.
        table: one record a line, for CSV.
        shown: what the template needs besides.
        status: the HTTP status.
    """

    template: str
    title: str
    data: Mapping[str, Any]
    table: Sequence[Mapping[str, Any]] = ()
    shown: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


class MissingError(StoreError):
    """There is nothing at an address."""


@dataclass
class AppSite:
    """Everything a request may ask for.

    Attributes:
        shelf: what was found under the given paths.
        snapshots: the open indices.
        models: the models of the indices.
        jobs: the queue for the models.
        static: whether the pages are for a bundle, in which nothing is live.
        live_model: whether questions can be asked.
    """

    shelf: Shelf
    snapshots: Snapshots
    models: Models
    jobs: Jobs
    static: bool = False

    @classmethod
    def of(cls, shelf: Shelf, *, static: bool = False, **models: Any) -> AppSite:
        """A site of a shelf; other arguments are those of `Models`."""
        snapshots = Snapshots()
        known = Models(snapshots, **models)
        return cls(shelf, snapshots, known, Jobs(known.run), static)

    @property
    def live_model(self) -> bool:
        """Whether questions that need a model can be asked."""
        return self.models.allowed and not self.static

    def item(self, key: str, *kinds: Kind) -> Item:
        """The thing on the shelf; raises `MissingError` if there is none."""
        found = self.shelf.get(key, *kinds)
        if found is None:
            self.shelf.look()
            found = self.shelf.get(key, *kinds)
        if found is None:
            raise MissingError(
                f"there is no {kinds[0] if kinds else 'thing'} '{key[:80]}'", remedy="the start page lists all"
            )
        return found

    def index(self, key: str) -> tuple[Item, Index]:
        """An index on the shelf, at its latest version."""
        item = self.item(key, "index")
        return item, self.snapshots.of(item)


def address(path: str, parameters: Parameters) -> str:
    """A path with its parameters as the app writes it."""
    given = {name: value for name, value in parameters.items() if value not in ("", None, False, (), [])}
    plain = {name: 1 if value is True else value for name, value in given.items()}
    return f"{path}?{urlencode(plain, doseq=True)}" if plain else path


def place_of(item: Item) -> str:
    """The path of a thing's own view."""
    return f"{PREFIX[item.kind]}{item.key}"
