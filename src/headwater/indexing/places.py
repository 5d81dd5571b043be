"""Where an index's model is: recorded so that the index works from any folder, and after all was moved together.

A local folder is recorded by its absolute path, which is part of the manifest's `model`, and by its path from the
index (`Manifest.places`). A hub name is recorded as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headwater.core.errors import ModelError
from headwater.index.manifest import Manifest
from headwater.index.noted import is_local
from headwater.index.store import Index

ROLES = {"name": "model", "adapter": "adapter", "tokenizer": "tokenizer", "reference": "reference"}
"""What a model, and the reference model of preference pairs, are loaded from, and the option that names each."""

_ANCESTORS = 3
"""Older indexes have relative paths; they are tried from so many folders above the index."""


def recorded(model: Mapping[str, Any]) -> dict[str, Any]:
    """The `model` of a manifest, with the absolute paths of what is in local folders."""
    return _placed(model, {role: _absolute(place) for role, place in _places(model).items()})


def like_before(model: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The `model` of a manifest, with places as an earlier one wrote them if they are the same folders."""
    mine, theirs = _places(model), _places(before)
    same = {role: theirs[role] for role in mine if role in theirs and _absolute(theirs[role]) == mine[role]}
    return _placed(model, {**mine, **same})


def from_index(path: str, model: Mapping[str, Any]) -> dict[str, str]:
    """Role to the path from the index's folder, for what is in local folders; empty on an object store."""
    if not is_local(path):
        return {}
    places = {role: place for role, place in _places(model).items() if Path(place).is_dir()}
    return {role: os.path.relpath(os.path.realpath(place), os.path.realpath(path)) for role, place in places.items()}


MODEL = ("name", "adapter", "tokenizer")
"""The roles of the index's own model."""


def places_now(index: Index, roles: Iterable[str] = MODEL) -> dict[str, str]:
    """Role to where the index's model, adapter, tokenizer or reference is now, for those of `roles` that it has.

    Raises:
        ModelError: a folder is neither where it was nor where it would be if it had moved with the index.
    """
    places = _places(index.manifest.model)
    return {role: _now(index, index.manifest, role, places[role]) for role in roles if role in places}


def _now(index: Index, manifest: Manifest, role: str, place: str) -> str:
    if Path(place).is_dir():
        return place
    folder = Path(os.path.realpath(index.path))
    tried = [folder / manifest.places[role]] if role in manifest.places else []
    if not os.path.isabs(place) and is_local(index.path):
        tried += [above / place for above in list(folder.parents)[:_ANCESTORS]]
    for candidate in tried:
        if candidate.is_dir():
            return str(candidate)
    if os.path.isabs(place) or place.startswith((".", "~")):
        what = f"the {ROLES[role]} that the index was built with is not at '{place}' any more"
        remedy = f"say where it is now with --{ROLES[role]} FOLDER, or put it back"
        raise ModelError(what, where=index.path, remedy=remedy)
    return place


def _placed(model: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """The `model` of a manifest with other places."""
    loading = {name: places.get(name, value) for name, value in model["loading"].items()}
    moved = {**model, "name": places["name"], "loading": loading}
    if "reference" in places:
        moved["reference"] = {**model["reference"], "name": places["reference"]}
    return moved


def _places(model: Mapping[str, Any]) -> dict[str, str]:
    named = {"name": model["name"], **model["loading"], "reference": model.get("reference", {}).get("name")}
    return {role: named[role] for role in ROLES if named.get(role)}


def _absolute(place: Any) -> Any:
    """The absolute path of a local folder; a hub name, or None, as it is."""
    folder = Path(place).expanduser() if isinstance(place, str) else None
    return os.path.abspath(folder) if folder is not None and folder.is_dir() else place
