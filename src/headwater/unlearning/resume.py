"""Continue an interrupted run: its inputs, its rate and its weights are kept in files beside the checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater.core.errors import StoreError
from headwater.core.files import write_text
from headwater.core.fingerprints import require_equal
from headwater.unlearning.weights import Weights
from headwater.unlearning.weights_file import save_weights

CHECKPOINTS = "checkpoints"
RUN, WEIGHTS = "run.json", "weights.csv"


@dataclass(frozen=True)
class Kept:
    """The identity of a run and, if it was interrupted before, its rate and its weights file."""

    identity: Mapping[str, Any]
    rate: float | None = None
    weights: Path | None = None


def begin(folder: Path | None, identity: Mapping[str, Any], *, resume: bool) -> Kept:
    """Read what an interrupted run left in `folder`; a new run gets its identity alone.

    Raises:
        StoreError: a run is there already, and `resume` is not set.
        MismatchError: on resume, the run there had another model, other rows or other options.
    """
    if folder is None or not (folder / RUN).is_file():
        return Kept(identity)
    if not resume:
        remedy = "continue it with --resume, or choose another folder"
        raise StoreError("a run is here already", where=str(folder), remedy=remedy)
    noted = json.loads((folder / RUN).read_text(encoding="utf-8"))
    require_equal(
        noted["identity"],
        plain_json(identity),
        what=f"the run in '{folder}' began with other inputs",
        remedy="give the inputs it began with, or choose another folder",
    )
    weights = folder / WEIGHTS
    return Kept(identity, noted["rate"], weights if weights.is_file() else None)


def note(folder: Path | None, kept: Kept, *, rate: float, weights: Weights | None) -> None:
    """Save what a resumed run needs; called before the first step."""
    if folder is None:
        return
    if weights is not None:
        save_weights(weights, folder / WEIGHTS)
    run = {"identity": plain_json(kept.identity), "rate": rate}
    write_text(folder / RUN, json.dumps(run, indent=1) + "\n")


def plain_json(value: Any) -> Any:
    """The value as it would come back from a JSON file; infinities become text."""
    if isinstance(value, Mapping):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
