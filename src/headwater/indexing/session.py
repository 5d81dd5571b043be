"""A session: an index and its method on a model, checked to belong together; kept open, it serves many traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater.index.store import Index, open_index
from headwater.methods.bound import Bound
from headwater.methods.catalog import restore_method
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader


@dataclass(frozen=True)
class Session:
    """An index with its method bound to a model that reads new rows the way its own were read."""

    index: Index
    bound: Bound


def open_session(
    index: str | Path | Index,
    model: str | LoadedModel | None = None,
    loading: Mapping[str, Any] | None = None,
) -> Session:
    """The session of an index.

    Args:
        index: path, or an open index.
        model: a loaded model, or where the index's model is now; None is where the manifest says it is.
        loading: options of `load_model` other than those the index was built with, where the model is loaded here:
            `device`, `device_map`, or where its adapter is now.

    Raises:
        MismatchError: model or tokenizer differ from the index's; names the fields.
    """
    opened = index if isinstance(index, Index) else open_index(index)
    manifest = opened.manifest
    if isinstance(model, LoadedModel):
        loaded = model
    else:
        given = {name: value for name, value in (loading or {}).items() if value is not None}
        loaded = load_model(model or manifest.model["name"], **{**manifest.model["loading"], **given})
    reader = Reader.like(
        loaded,
        manifest.model["fingerprint"],
        manifest.tokenization,
        manifest.plan.tokens_per_batch,
        where=f"the index '{opened.path}'",
    )
    return Session(opened, Bound.of(restore_method(manifest.method), reader))
