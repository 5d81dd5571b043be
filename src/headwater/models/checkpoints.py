"""Checkpoints of a training run: reading the list that `Recorder` wrote, and loading the models in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from headwater.core.errors import DataError, UsageError
from headwater.models.load import LoadedModel, load_model

LIST = "checkpoints.json"
"""The file that lists the checkpoints, in the same folder."""

ADAM = "adam.safetensors"
"""The file with the moments of the Adam optimiser that trained a model."""


@dataclass(frozen=True)
class Checkpoint:
    """One recorded model or adapter: its folder, the optimizer step, and the learning rate of that step."""

    path: str
    step: int
    learning_rate: float


def read_checkpoints(folder: str | Path) -> tuple[Checkpoint, ...]:
    """The checkpoints listed in `folder/checkpoints.json` (or in that file), with paths that can be loaded.

    Raises:
        DataError: the list is missing or malformed, or a listed folder is gone.
    """
    file = Path(folder) / LIST if Path(folder).is_dir() else Path(folder)
    try:
        raw = json.loads(file.read_text())
        found = [Checkpoint(str(c["path"]), int(c["step"]), float(c["learning_rate"])) for c in raw]
    except FileNotFoundError:
        remedy = "record a run with headwater.Recorder, or name the folder it wrote"
        raise DataError("no list of checkpoints", where=str(file), remedy=remedy) from None
    except (ValueError, KeyError, TypeError) as error:
        remedy = 'expected [{"path": ..., "step": ..., "learning_rate": ...}, ...]'
        raise DataError(f"not a list of checkpoints: {error}", where=str(file), remedy=remedy) from None
    if not found:
        raise DataError("the list of checkpoints is empty", where=str(file))
    placed = tuple(Checkpoint(str(file.parent / c.path), c.step, c.learning_rate) for c in found)
    for checkpoint in placed:
        if not Path(checkpoint.path).is_dir():
            what = f"checkpoint '{checkpoint.path}' is gone"
            raise DataError(what, where=str(file), remedy="restore it, or unlist it")
    return placed


def load_checkpoint(checkpoint: Checkpoint, loaded: LoadedModel) -> LoadedModel:
    """The recorded model, in the dtype and on the device of `loaded`, the base of a recorded adapter."""
    dtype = str(next(loaded.model.parameters()).dtype).removeprefix("torch.")
    if (Path(checkpoint.path) / "adapter_config.json").is_file():
        if not Path(loaded.name).exists() and loaded.name == "in-memory":
            raise UsageError("adapters need a base model that can be loaded by name", where="checkpoints")
        return load_model(loaded.name, adapter=checkpoint.path, dtype=dtype, device=str(loaded.device))
    own = (Path(checkpoint.path) / "tokenizer.json").is_file()
    tokenizer = None if own else loaded.tokenizer.name_or_path
    return load_model(checkpoint.path, dtype=dtype, device=str(loaded.device), tokenizer=tokenizer)
