"""Checkpoints of a training run: finding those that `Recorder` or a Hugging Face `Trainer` wrote, and loading them.

folder/checkpoints.json        of a Recorder: lists folders, steps and learning rates
folder/checkpoint-500/         of a Trainer: step and rate are in its trainer_state.json
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core.errors import DataError, UsageError
from headwater.models.load import LoadedModel, load_model
from headwater.models.shards import require_joined

LIST = "checkpoints.json"
"""The file that lists the checkpoints, in the same folder."""

ADAM = "adam.safetensors"
"""The file with the moments of the Adam optimiser that trained a model."""

TRAINER_STATE = "trainer_state.json"
"""The file in which a Trainer keeps a checkpoint's step, and all that it logged until then."""


@dataclass(frozen=True)
class Checkpoint:
    """One recorded model or adapter: its folder, the optimizer step, and the learning rate of that step."""

    path: str
    step: int
    learning_rate: float


def read_checkpoints(folder: str | Path) -> tuple[Checkpoint, ...]:
    """The checkpoints of a run, with paths that can be loaded.

    Args:
        folder: one with a `checkpoints.json`, or that file; or a Trainer's output folder with its `checkpoint-N`
            folders, in the order of their steps; or one of these.

    Raises:
        DataError: there is none of these, a list or a Trainer's state is malformed or tells no usable learning rate, or
            a listed folder is gone.
        ModelError: a checkpoint's weights are in pieces.
    """
    file = Path(folder) / LIST if Path(folder).is_dir() else Path(folder)
    found = _listed(file) if file.is_file() else _of_trainer(Path(folder))
    for checkpoint in found:
        if not Path(checkpoint.path).is_dir():
            what = f"checkpoint '{checkpoint.path}' is gone"
            raise DataError(what, where=str(file), remedy="restore it, or unlist it")
        if not 0 <= checkpoint.learning_rate < math.inf:
            what = f"the checkpoint of step {checkpoint.step} has the learning rate {checkpoint.learning_rate}"
            raise DataError(what, where=str(file), remedy="give its rate, a number of 0 or more, or unlist it")
        require_joined(checkpoint.path)
    return found


def midway(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The checkpoint nearest to the point at which half of the sum of the run's learning rates was spent.

    The rate between two checkpoints is taken to be that of the later one. There gradients still say what the model was
    about to learn; at the end of a run the rows that it knows have gradients near zero.
    """
    steps = np.diff([0, *(checkpoint.step for checkpoint in checkpoints)])
    spent = np.cumsum(steps * [checkpoint.learning_rate for checkpoint in checkpoints])
    return checkpoints[int(np.abs(spent - spent[-1] / 2).argmin())]


def load_checkpoint(checkpoint: Checkpoint, loaded: LoadedModel) -> LoadedModel:
    """The recorded model, in the dtype and on the device of `loaded`, the base of a recorded adapter.

    A model without weights (`headwater.models.weightless`) stands for its own checkpoints.
    """
    if next(loaded.model.parameters()).is_meta:
        if (Path(checkpoint.path) / "adapter_config.json").is_file():
            what, remedy = "recorded adapters cannot be planned without weights", "leave --no-weights out"
            raise UsageError(what, where="checkpoints", remedy=remedy)
        return loaded
    dtype = str(next(loaded.model.parameters()).dtype).removeprefix("torch.")
    how: dict[str, Any] = {"dtype": dtype, "device": str(loaded.device)}
    if (Path(checkpoint.path) / "adapter_config.json").is_file():
        if not Path(loaded.name).exists() and loaded.name == "in-memory":
            raise UsageError("adapters need a base model that can be loaded by name", where="checkpoints")
        how |= {name: loaded.loading.get(name) for name in ("tokenizer", "revision")}
        return load_model(loaded.name, adapter=checkpoint.path, **how)
    own = (Path(checkpoint.path) / "tokenizer.json").is_file()
    return load_model(checkpoint.path, tokenizer=None if own else loaded.tokenizer.name_or_path, **how)


def _listed(file: Path) -> tuple[Checkpoint, ...]:
    try:
        raw = json.loads(file.read_text())
        found = [Checkpoint(str(c["path"]), int(c["step"]), float(c["learning_rate"])) for c in raw]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        remedy = 'expected [{"path": ..., "step": ..., "learning_rate": ...}, ...]'
        raise DataError(f"not a list of checkpoints: {error}", where=str(file), remedy=remedy) from None
    if not found:
        raise DataError("the list of checkpoints is empty", where=str(file))
    for one, after in itertools.pairwise(found):
        if after.step < one.step:
            what = f"step {after.step} is listed after step {one.step}"
            raise DataError(what, where=str(file), remedy="list the checkpoints in the order of the run")
    return tuple(Checkpoint(str(file.parent / c.path), c.step, c.learning_rate) for c in found)


def _of_trainer(folder: Path) -> tuple[Checkpoint, ...]:
    """The checkpoints that a Trainer left in its output folder, or the one that `folder` is."""
    inside = list(folder.iterdir()) if folder.is_dir() else []
    found = [place for place in inside if re.fullmatch(r"checkpoint-\d+", place.name) and place.is_dir()]
    if not found and (folder / TRAINER_STATE).is_file():
        found = [folder]
    if not found:
        remedy = "record a run with headwater.Recorder, or name the folder in which a Trainer left its checkpoint-N"
        raise DataError("no list of checkpoints", where=str(folder), remedy=remedy)
    return tuple(sorted(map(_trained, found), key=lambda checkpoint: checkpoint.step))


def _trained(place: Path) -> Checkpoint:
    """A Trainer's checkpoint, with the rate that it logged at that step, or last before."""
    file = place / TRAINER_STATE
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        step = int(state["global_step"])
        logged = [(int(e["step"]), float(e["learning_rate"])) for e in state["log_history"] if "learning_rate" in e]
    except FileNotFoundError:
        remedy = "restore it, or take the folder out"
        raise DataError(f"a Trainer's checkpoint without {TRAINER_STATE}", where=str(place), remedy=remedy) from None
    except (ValueError, KeyError, TypeError) as error:
        what = f"not a Trainer's state: {type(error).__name__} {error}"
        raise DataError(what, where=str(file), remedy="restore it, or take the folder out") from None
    earlier = [(at, rate) for at, rate in logged if at <= step]
    if not earlier:
        entry = json.dumps([{"path": place.name, "step": step, "learning_rate": 2e-5}])
        remedy = f"write the rates into {place.parent / LIST}, for every checkpoint: {entry}"
        raise DataError(f"no learning rate was logged up to step {step}", where=str(file), remedy=remedy)
    return Checkpoint(str(place), step, max(earlier)[1])
