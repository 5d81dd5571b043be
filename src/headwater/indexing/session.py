"""A session: an index with its method and model, checked to belong together, for any number of traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headwater.core.errors import MismatchError, UsageError
from headwater.core.spec import Coverage
from headwater.index.store import Index, open_index
from headwater.indexing.places import MODEL, places_now
from headwater.methods.bound import Bound
from headwater.methods.catalog import restore_method
from headwater.methods.preparing import moved
from headwater.models.load import LoadedModel, load_model
from headwater.models.reader import Reader
from headwater.models.reference import Reference


@dataclass(frozen=True)
class Session:
    """An index, and its method bound to a model that reads new rows in the same way as the index's own."""

    index: Index
    bound: Bound

    def asking(self, targets: str | None) -> Session:
        """The same session, in which `targets` of a query are asked about (a name of `TARGETS`)."""
        reader = self.bound.reader
        tokenization = replace(reader.tokenization, asked=targets)
        return Session(self.index, replace(self.bound, reader=replace(reader, tokenization=tokenization)))


def open_session(
    index: str | Path | Index, model: str | LoadedModel | None = None, loading: Mapping[str, Any] | None = None
) -> Session:
    """Open the session of an index, and load its model unless `model` is a loaded one.

    Args:
        index: path, or an open index.
        model: a loaded model, or where the index's model is now; None for the place that the manifest names.
        loading: options of `load_model` that replace those the index was built with, such as `device`, `device_map`,
            or the adapter's new place; and `reference`, the new place of the reference model of preference pairs.

    Raises:
        MismatchError: model or tokenizer differ from the index's; the message names the fields.
    """
    opened = index if isinstance(index, Index) else open_index(index)
    manifest = opened.manifest
    given = {name: value for name, value in (loading or {}).items() if value is not None}
    reference = _reference(opened, given.pop("reference", None), given)
    if isinstance(model, LoadedModel):
        loaded = model
    else:
        chosen = {**given, "name": model}
        now = places_now(opened, [role for role in MODEL if chosen.get(role) is None])
        name = model or now.pop("name")
        recorded = {**_recorded(manifest.model), **now}
        if recorded.get("tokenizer") == manifest.model["name"]:  # the base model's own, wherever that is now
            recorded["tokenizer"] = name
        loaded = load_model(name, **{**recorded, **given})
    fingerprint, where = manifest.model["fingerprint"], f"the index '{opened.path}'"
    reader = Reader.like(loaded, fingerprint, manifest.tokenization, manifest.plan.tokens_per_batch, where=where)
    method = moved(restore_method(manifest.method), opened.path)
    bound = Bound.of(method, replace(reader, reference=reference))
    require_same_parameters(manifest.coverage, bound.encoder.coverage, where)
    return Session(opened, bound)


def require_same_parameters(then: Coverage, now: Coverage, where: str) -> None:
    """Raise `MismatchError` if the index was read off fewer or more parameters than this version reads."""
    counted = then.tensors_total or "NOT seen" in then.note  # older indexes that saw all they selected are as now
    if counted and then.seen != now.seen:
        what = f"{where} was made from {then.seen:,} parameters, and this version reads {now.seen:,} of the same model"
        raise MismatchError(what, fields=("coverage",), remedy="build it again")


def _reference(index: Index, place: str | None, loading: Mapping[str, Any]) -> Reference | None:
    """The reference model of an index of preference pairs, on the device that the model goes to."""
    known = index.manifest.model.get("reference")
    if known is None:
        if place is not None:
            what = "the index was built without a reference model"
            raise UsageError(what, where="--reference", remedy="leave it out")
        return None
    there = place or places_now(index, ["reference"])["reference"]
    where = {name: loading[name] for name in ("device", "device_map") if name in loading}
    return Reference(there, {**_recorded(known), **where}, known["fingerprint"])


def _recorded(model: Mapping[str, Any]) -> dict[str, Any]:
    """How the index's model was loaded. That its own code may run has to be allowed again: an index may be anybody's.

    Indexes without the field `trust_remote_code` were made when an adapter's tokenizer was not looked at.
    """
    loading = dict(model["loading"])
    if "trust_remote_code" not in loading and loading.get("adapter") and not loading.get("tokenizer"):
        loading["tokenizer"] = model["name"]
    return {**loading, "trust_remote_code": False}
