"""headwater: trace what a language model says back to the data that taught it.

    import headwater as hw
    index = hw.build("runs/mine.lance", model="my-model", data="train.jsonl", method="rise")
    for hit in hw.trace(index, prompt="Who wrote this?", top=5).hits():
        print(hit["rank"], hit["score"], hit["id"])

Names are imported when first used, so `import headwater` is quick and does not import torch.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

__version__ = version("headwater")

_HOMES = {
    "build": "headwater.api.verbs",
    "trace": "headwater.api.verbs",
    "score": "headwater.api.verbs",
    **dict.fromkeys(("add", "delete", "compact", "verify", "encode", "retention", "info"), "headwater.api.care"),
    "plan": "headwater.indexing.plan",
    "unlearn": "headwater.unlearning.verbs",
    "GivenRows": "headwater.unlearning.verbs",
    "value": "headwater.valuing.value",
    "value_index": "headwater.valuing.from_index",
    "Distilled": "headwater.methods.alinfik",
    "open_index": "headwater.index.store",
    "open_corpus": "headwater.data.corpus",
    "load_model": "headwater.models.load",
    "wrap_model": "headwater.models.load",
    "find_method": "headwater.methods.catalog",
    "write_report": "headwater.report",
    "Scores": "headwater.core.scores",
    "Trace": "headwater.core.trace",
    "HeadwaterError": "headwater.core.errors",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the names live in one place, the mapping above


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'headwater' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
