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

if TYPE_CHECKING:  # `as` tells type checkers that a name is public; they know no others, so they find misspelt ones
    from headwater.api.choosing import price as price
    from headwater.api.choosing import select as select
    from headwater.api.demo import run_demo as run_demo
    from headwater.api.evaluating import evaluate as evaluate
    from headwater.api.from_trace import choose_forget as choose_forget
    from headwater.api.indexing import add as add
    from headwater.api.indexing import approximate_index as approximate_index
    from headwater.api.indexing import build as build
    from headwater.api.indexing import commit as commit
    from headwater.api.indexing import compact as compact
    from headwater.api.indexing import delete as delete
    from headwater.api.indexing import info as info
    from headwater.api.indexing import plan as plan
    from headwater.api.indexing import quantise as quantise
    from headwater.api.indexing import retention as retention
    from headwater.api.indexing import verify as verify
    from headwater.api.planning import forecast as forecast
    from headwater.api.tracing import answer as answer
    from headwater.api.tracing import score as score
    from headwater.api.tracing import trace as trace
    from headwater.api.tracing import trace_words as trace_words
    from headwater.api.tracing import write_scores as write_scores
    from headwater.api.unlearning import unlearn as unlearn
    from headwater.api.valuing import audit as audit
    from headwater.api.valuing import export_target as export_target
    from headwater.api.valuing import value as value
    from headwater.api.valuing import value_index as value_index
    from headwater.api.valuing import value_query as value_query
    from headwater.api.valuing import value_with_student as value_with_student
    from headwater.core.errors import HeadwaterError as HeadwaterError
    from headwater.core.scores import Scores as Scores
    from headwater.core.trace import Trace as Trace
    from headwater.data.corpus import Corpus as Corpus
    from headwater.data.corpus import open_corpus as open_corpus
    from headwater.engines.local import Local as Local
    from headwater.engines.ray_pool import RayPool as RayPool
    from headwater.index.store import Index as Index
    from headwater.index.store import open_index as open_index
    from headwater.indexing.session import Session as Session
    from headwater.indexing.session import open_session as open_session
    from headwater.methods.catalog import find_method as find_method
    from headwater.methods.targets import Target as Target
    from headwater.models.load import LoadedModel as LoadedModel
    from headwater.models.load import load_model as load_model
    from headwater.models.load import wrap_model as wrap_model
    from headwater.report import write_report as write_report
    from headwater.training.recorder import Recorder as Recorder
    from headwater.unlearning.options import UnlearnOptions as UnlearnOptions
    from headwater.valuation.values import Values as Values
    from headwater.valuation.values import read_values as read_values
    from headwater.valuing.third_party import read_query as read_query
    from headwater.view.notebook import view as view

__version__ = version("headwater")

_HOMES = {
    "headwater.api.choosing": ("price", "select"),
    "headwater.api.demo": ("run_demo",),
    "headwater.api.evaluating": ("evaluate",),
    "headwater.api.from_trace": ("choose_forget",),
    "headwater.api.indexing": (
        *("add", "approximate_index", "build", "commit", "compact", "delete", "info", "plan", "quantise", "retention"),
        "verify",
    ),
    "headwater.api.planning": ("forecast",),
    "headwater.api.tracing": ("answer", "score", "trace", "trace_words", "write_scores"),
    "headwater.api.unlearning": ("unlearn",),
    "headwater.api.valuing": (
        *("audit", "export_target", "value", "value_index", "value_query", "value_with_student"),
    ),
    "headwater.core.errors": ("HeadwaterError",),
    "headwater.core.scores": ("Scores",),
    "headwater.core.trace": ("Trace",),
    "headwater.data.corpus": ("Corpus", "open_corpus"),
    "headwater.engines.local": ("Local",),
    "headwater.engines.ray_pool": ("RayPool",),
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
    "headwater.view.notebook": ("view",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604 - the names live in one place, the mapping above


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module 'headwater' has no attribute '{name}'")
        return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
