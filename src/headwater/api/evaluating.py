"""Measure methods on ground truth, beside their controls.

result = hw.evaluate("detection", methods=["rise", "rapidin"], settings={"pool": "howdy"}, out="runs/eval")
result.to_pandas()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.evaluation.result import Result
from headwater.evaluation.runs import run_evaluation


def evaluate(
    task: str,
    *,
    methods: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    out: str | Path = "runs/eval",
    on_progress: Callable[[str, float], None] | None = None,
) -> Result:
    """Run an evaluation and return its tables.

    Args:
        task: `detection`, `separation`, `selection`, `lds`, `removal`, `forgetting` or `sanity`.
        methods: as on the command line (`rise`, `rapidin:normalize=row`, `rise+0.5*bm25`); the task's own unless given.
        settings: the task's settings by name (`rows`, `queries`, `seed`, ...).
        out: folder for models and indexes; what is there is used again.
        on_progress: called with what is being done and the share of it that is done.

    Raises:
        UsageError: an unknown task, method or setting.
    """
    given = {**(settings or {}), **({"methods": tuple(methods)} if methods else {})}
    return run_evaluation(task, given, Path(out), on_progress or (lambda words, share: None))
