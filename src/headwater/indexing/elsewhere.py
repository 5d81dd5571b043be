"""Make the work of an engine in another process, from the arguments of its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from headwater.core.errors import MismatchError
from headwater.engines.blocks import Place
from headwater.index.store import Index, open_index
from headwater.indexing.blocks import IndexRows
from headwater.indexing.open_block import read_open
from headwater.indexing.quantise import Codes
from headwater.indexing.session import open_session
from headwater.models.elsewhere import placed


def index_rows(place: Place, *, index: str, model: str, loading: Mapping[str, Any]) -> IndexRows:
    """Open the index and load its model; with several accelerators the model is spread over them."""
    settle(place)
    session = open_session(index, model, placed(loading, place.accelerators))
    return IndexRows(session.index, session.bound, opened=read_open(session.index))


def index_codes(place: Place, *, index: str, target: str, version: int) -> Codes:
    """Open an index, at the version that is being coded, and the index of its codes."""
    settle(place)
    return Codes(_at(index, version), open_index(target))


def _at(path: str, version: int) -> Index:
    opened = open_index(path)
    if opened.dataset.version != version:
        what = f"{path} is at version {opened.dataset.version}; this work began with version {version}"
        remedy = "wait until nobody changes the index, and run the same command again"
        raise MismatchError(what, fields=("version",), remedy=remedy)
    return opened


def settle(place: Place) -> None:
    """Computations of this process take the place's number of threads."""
    if place.threads is not None:
        torch.set_num_threads(place.threads)
