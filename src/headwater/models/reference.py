"""The reference model of the DPO loss: what the model was before it learned from preference pairs.

It is the model itself with its adapter switched off, or another model, which is loaded when it is first asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from headwater.core.errors import UsageError
from headwater.core.fingerprints import require_equal
from headwater.data.batches import TokenBatch
from headwater.models.heads import window_losses
from headwater.models.load import LoadedModel, load_model

_NAME_IT = "--reference MODEL names the model that training began with"


@dataclass(frozen=True)
class Reference:
    """A model by name.

    Attributes:
        name: folder or hub name.
        loading: options of `load_model`.
        fingerprint: what an index's manifest says of it; None if it was not used before.
    """

    name: str
    loading: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: Mapping[str, Any] | None = None

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model, loaded once.

        Raises:
            MismatchError: it is not the model that the fingerprint is of.
        """
        found = load_model(self.name, **self.loading)
        if self.fingerprint is not None:
            what = f"the reference model '{self.name}' is not the one that the index was made with"
            remedy = "give the model it was made with, or build the index again"
            require_equal(self.fingerprint, found.fingerprint, what=what, remedy=remedy)
        return found

    def to_json(self) -> dict[str, Any]:
        """What a manifest keeps of it."""
        loading = dict(self.loaded.loading)
        return {"name": self.name, "loading": loading, "fingerprint": dict(self.loaded.fingerprint)}


def compared(batch: TokenBatch, loaded: LoadedModel, reference: Reference | None) -> TokenBatch:
    """The batch with its pairs' `Contrast.reference` filled in by the reference; None is the model without its adapter.

    Raises:
        UsageError: there is no reference, it is the model itself, or its tokenizer is another than the model's.
    """
    with _without_adapter(loaded) if reference is None else contextlib.nullcontext(reference.loaded) as model:
        if reference is not None:
            _require_fit(loaded, model)
        there = batch.to(model.device)
        total = window_losses(model.model, there)
        ratios = -there.sum_windows(total * there.side.to(total)).double()
    rows = tuple(
        row if row.contrast is None else replace(row, contrast=replace(row.contrast, reference=ratio))
        for row, ratio in zip(batch.rows, ratios.tolist(), strict=True)
    )
    return replace(batch, rows=rows)


def require_reference(loaded: LoadedModel) -> None:
    """Raise `UsageError` unless the model without its adapter is the one that training began with."""
    if loaded.adapter is None or not hasattr(loaded.model, "disable_adapter"):
        what = "the DPO loss compares the model with the one that training began with, and no adapter tells it"
        raise UsageError(what, where="--pairs dpo", remedy=_NAME_IT)
    for config in loaded.model.peft_config.values():
        if getattr(config, "bias", "none") != "none":
            what = f"the adapter trained biases of its base (bias='{config.bias}'), which stay when it is switched off"
            raise UsageError(what, where="--pairs dpo", remedy=_NAME_IT)


@contextlib.contextmanager
def _without_adapter(loaded: LoadedModel) -> Iterator[LoadedModel]:
    require_reference(loaded)
    with loaded.model.disable_adapter():
        yield loaded


def _require_fit(loaded: LoadedModel, other: LoadedModel) -> None:
    if loaded.fingerprint == other.fingerprint:
        what = f"'{other.name}' is the model itself, so no answer is likelier than before and every pair weighs alike"
        raise UsageError(what, where="--reference", remedy="give the model that training began with")
    names = [one.fingerprint["tokenizer"] for one in (loaded, other)]
    if names[0] != names[1]:
        what = f"'{other.name}' has another tokenizer than '{loaded.name}', so it reads other tokens"
        raise UsageError(what, where="--reference", remedy="give the model that training began with")
