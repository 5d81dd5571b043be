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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.api.choosing import price, select
    from headwater.api.demo import run_demo
    from headwater.api.evaluating import evaluate
    from headwater.api.from_trace import choose_forget
    from headwater.api.indexing import (
        add,
        approximate_index,
        build,
        compact,
        delete,
        info,
        plan,
        quantise,
        retention,
        verify,
    )
    from headwater.api.tracing import score, trace, write_scores
    from headwater.api.unlearning import unlearn
    from headwater.api.valuing import (
        audit,
        export_target,
        value,
        value_index,
        value_query,
        value_with_student,
    )
    from headwater.core.errors import HeadwaterError
    from headwater.core.scores import Scores
    from headwater.core.trace import Trace
    from headwater.data.corpus import Corpus, open_corpus
    from headwater.index.store import Index, open_index
    from headwater.indexing.session import Session, open_session
    from headwater.methods.catalog import find_method
    from headwater.methods.targets import Target
    from headwater.models.load import LoadedModel, load_model, wrap_model
    from headwater.report import write_report
    from headwater.training.recorder import Recorder
    from headwater.unlearning.options import UnlearnOptions
    from headwater.valuation.values import Values, read_values
    from headwater.valuing.third_party import read_query

__version__ = version("headwater")

_HOMES = {
    "headwater.api.choosing": ("price", "select"),
    "headwater.api.demo": ("run_demo",),
    "headwater.api.evaluating": ("evaluate",),
    "headwater.api.from_trace": ("choose_forget",),
    "headwater.api.indexing": (
        *("add", "approximate_index", "build", "compact", "delete", "info", "plan", "quantise", "retention", "verify"),
    ),
    "headwater.api.tracing": ("score", "trace", "write_scores"),
    "headwater.api.unlearning": ("unlearn",),
    "headwater.api.valuing": (
        *("audit", "export_target", "value", "value_index", "value_query", "value_with_student"),
    ),
    "headwater.core.errors": ("HeadwaterError",),
    "headwater.core.scores": ("Scores",),
    "headwater.core.trace": ("Trace",),
    "headwater.data.corpus": ("Corpus", "open_corpus"),
    "headwater.index.store": ("Index", "open_index"),
    "headwater.indexing.session": ("Session", "open_session"),
    "headwater.methods.catalog": ("find_method",),
    "headwater.methods.targets": ("Target",),
    "headwater.models.load": ("LoadedModel", "load_model", "wrap_model"),
    "headwater.report": ("write_report",),
    "headwater.training.recorder": ("Recorder",),
    "headwater.unlearning.options": ("UnlearnOptions",),
    "headwater.valuation.values": ("Values", "read_values"),
    "headwater.valuing.third_party": ("read_query",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604 - the names live in one place, the mapping above


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'headwater' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
