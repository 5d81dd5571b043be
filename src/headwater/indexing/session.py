"""A session: an index, the model that made it and the method bound to it, checked to belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headwater.core.fingerprints import require_equal
from headwater.data.templates import resolve_template
from headwater.data.tokens import Tokenization
from headwater.index.store import Index
from headwater.indexing.encode import Reader
from headwater.methods.catalog import restore_method
from headwater.models.load import LoadedModel, load_model


@dataclass(frozen=True)
class Session:
    """An index with the reader that can read new rows the way its own were read."""

    index: Index
    reader: Reader


def open_session(index: Index, model: LoadedModel | str | None = None, **placement: Any) -> Session:
    """The session of an index.

    Args:
        index: the index.
        model: a loaded model, or where the index's model is now; None is where the manifest says it is.
        placement: `device` and `device_map` of `load_model`, where the model is still to be loaded.

    Raises:
        MismatchError: model or tokenizer differ from the index's; names the fields.
    """
    manifest = index.manifest
    if isinstance(model, LoadedModel):
        loaded = model
    else:
        loaded = load_model(model or manifest.model["name"], **manifest.model["loading"], **placement)
    require_equal(
        manifest.model["fingerprint"],
        dict(loaded.fingerprint),
        what=f"the model '{loaded.name}' is not the one the index '{index.path}' was built with",
        remedy="give the model it was built with, or build another index",
    )
    template = resolve_template(manifest.tokenization["template"]["name"], loaded.tokenizer)
    tokenization = Tokenization(loaded.tokenizer, template, int(manifest.tokenization["max_tokens"]))
    require_equal(
        manifest.tokenization,
        tokenization.fingerprint,
        what=f"rows would be tokenised otherwise than in the index '{index.path}'",
        remedy="give the tokenizer it was built with, or build another index",
    )
    method = restore_method(manifest.method)
    return Session(index, Reader.bind(loaded, method, tokenization, manifest.plan.tokens_per_batch))
