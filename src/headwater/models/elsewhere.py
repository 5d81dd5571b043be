"""Describe a reader without its weights, so that another process loads the model and reads rows in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwater.core.errors import UsageError
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader


def described_loading(loaded: LoadedModel, placing: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a model and the arguments of `load_model` with which another process loads it.

    Args:
        loaded: the model.
        placing: where others load it: `device` and `device_map`; those that are None are left out.

    Raises:
        UsageError: the model was made in the memory of this process.
    """
    if "merge" not in loaded.loading:  # `wrap_model` made it of a model in memory
        what = f"the model '{loaded.name}' is in the memory of this process, so no other can load it"
        raise UsageError(what, where="--engine", remedy="give the model by its folder or hub name, or run locally")
    chosen = {**loaded.loading, **{name: value for name, value in placing.items() if value is not None}}
    return _findable(loaded.name), {name: _findable(value) for name, value in chosen.items()}


def described_reader(reader: Reader, placing: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A reader as `reader_like` makes it again, JSON-ready; arguments and errors as in `described_loading`."""
    if reader.reference is not None:
        what = "preference pairs with a reference model are read in this process alone"
        raise UsageError(what, where="--engine", remedy="leave --engine out")
    name, loading = described_loading(reader.loaded, placing or {})
    return {
        "name": name,
        "loading": loading,
        "model": dict(reader.loaded.fingerprint),
        "tokenization": reader.tokenization.fingerprint,
        "asked": reader.tokenization.asked,
        "tokens_per_batch": reader.tokens_per_batch,
    }


def reader_like(described: Mapping[str, Any], *, accelerators: int) -> Reader:
    """Load the model of a reader that `described_reader` described; with several accelerators it is spread over them.

    Raises:
        MismatchError: the model or its tokenizer is not the one that was described; names the fields.
    """
    loaded = load_model(described["name"], **placed(described["loading"], accelerators))
    known, tokens = (described["model"], described["tokenization"]), described["tokens_per_batch"]
    reader = Reader.like(loaded, *known, tokens, where="the process that divides the work")
    return replace(reader, tokenization=replace(reader.tokenization, asked=described["asked"]))


def placed(loading: Mapping[str, Any], accelerators: int) -> dict[str, Any]:
    """Arguments of `load_model` in a process with so many accelerators; several share a model that has no place yet."""
    spread = accelerators > 1 and not loading.get("device") and not loading.get("device_map")
    return {**loading, "device_map": "auto"} if spread else dict(loading)


def _findable(value: Any) -> Any:
    """The path as another process finds it, if the value is the name of a file or folder that is here."""
    return str(Path(value).absolute()) if isinstance(value, str) and value and Path(value).exists() else value
