"""Measure methods on tasks with ground truth, together with their controls.

result = hw.evaluate("detection", methods=["rise", "rapidin"], settings={"pool": "howdy"}, out="runs/eval")
result.to_pandas()

result = hw.evaluate("detection", model="my-model", data=rows, queries=queries, relevant="poisoned = true")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.api.sources import Model, Rows
from headwater.core.arguments import named
from headwater.engines.blocks import Engine
from headwater.engines.local import Local
from headwater.evaluation.listener import SILENT, Listener, OnNote
from headwater.evaluation.own import Own
from headwater.evaluation.result import Result
from headwater.evaluation.runs import run_evaluation
from headwater.training.cache import OnShare


def evaluate(
    task: str,
    *,
    methods: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    model: Model | None = None,
    data: Rows | None = None,
    queries: Rows | None = None,
    out: str | Path = "runs/eval",
    on_progress: OnShare | None = None,
    on_note: OnNote | None = None,
    engine: Engine | None = None,
    **own: Any,
) -> Result:
    """Run an evaluation and return its tables.

    Args:
        task: `detection`, `separation`, `selection`, `lds`, `removal`, `forgetting` or `sanity`.
        methods: one or several, as on the command line (`rise`, `rapidin:normalize=row`, `rise+0.5*bm25`). Without
            it, the task's default methods.
        settings: the task's settings by name (`rows`, `queries`, `seed`, ...).
        model: your own model, to measure on your own rows instead of a built-in task; for `lds` and `removal` the model
            before it learns the rows.
        data: your own rows.
        queries: your own queries; those without a response get one generated.
        out: folder for models and indexes; those of earlier runs are used again.
        on_progress: called with the name of the current step and the share of it that is done, 0 to 1.
        on_note: called with messages that should stay visible, such as how long a run will take.
        engine: where `lds` and `removal` train their models, `headwater.RayPool(...)` or None: in this process. Its
            workers see `out`.
        own: more about your own task, as `headwater.evaluation.own.Own` lists it: `relevant`, `relevant_ids` or
            `label` (which rows a query should find), `recipe` (how the model learns the rows), `name`, `columns`,
            `query_columns`, `opening`, `loading`, `reading`.

    Raises:
        UsageError: an unknown task, method or setting.
    """
    chosen = (methods,) if isinstance(methods, str) else tuple(methods)
    given = {**named(settings, where="settings", example={"seed": 1}), **({"methods": chosen} if chosen else {})}
    if own or any(part is not None for part in (model, data, queries)):
        given["own"] = Own.of({"model": model, "data": data, "queries": queries, **own})
    listener = Listener(on_progress or SILENT.on_progress, on_note or SILENT.on_note, engine or Local())
    return run_evaluation(task, given, Path(out), listener)
