"""Measure methods on tasks with ground truth, together with their controls.

result = hw.evaluate("detection", methods=["rise", "rapidin"], settings={"pool": "howdy"}, out="runs/eval")
result.to_pandas()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.core.arguments import named
from headwater.evaluation.listener import SILENT, Listener, OnNote
from headwater.evaluation.result import Result
from headwater.evaluation.runs import run_evaluation
from headwater.training.cache import OnShare


def evaluate(
    task: str,
    *,
    methods: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    out: str | Path = "runs/eval",
    on_progress: OnShare | None = None,
    on_note: OnNote | None = None,
) -> Result:
    """Run an evaluation and return its tables.

    Args:
        task: `detection`, `separation`, `selection`, `lds`, `removal`, `forgetting` or `sanity`.
        methods: one or several, as on the command line (`rise`, `rapidin:normalize=row`, `rise+0.5*bm25`). Without
            it, the task's default methods.
        settings: the task's settings by name (`rows`, `queries`, `seed`, ...).
        out: folder for models and indexes; those of earlier runs are used again.
        on_progress: called with the name of the current step and the share of it that is done, 0 to 1.
        on_note: called with messages that should stay visible, such as how long a run will take.

    Raises:
        UsageError: an unknown task, method or setting.
    """
    chosen = (methods,) if isinstance(methods, str) else tuple(methods)
    given = {**named(settings, where="settings", example={"seed": 1}), **({"methods": chosen} if chosen else {})}
    listener = Listener(on_progress or SILENT.on_progress, on_note or SILENT.on_note)
    return run_evaluation(task, given, Path(out), listener)
