"""Checkpoints of a training run: recorded by a callback while it runs, read back for sums over checkpoints."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from headwater.core.errors import DataError, UsageError
from headwater.models.load import LoadedModel, load_model

LIST = "checkpoints.json"
"""The file beside the checkpoints that lists them."""


@dataclass(frozen=True)
class Checkpoint:
    """One recorded model or adapter: its folder, the optimizer step, and the learning rate of that step."""

    path: str
    step: int
    learning_rate: float


class CheckpointRecorder(TrainerCallback):  # type: ignore[misc]
    """A Hugging Face `TrainerCallback` that saves the model (or, with PEFT, the adapter) as training goes.

    Pass it in `Trainer(callbacks=[...])`. It writes `folder/step-N` and the list `folder/checkpoints.json`, which
    `read_checkpoints` reads. Saved by the main process only.

    Args:
        folder: where to write.
        every: save after this many optimizer steps; 0: at the end of every epoch.
    """

    def __init__(self, folder: str | Path, *, every: int = 0) -> None:
        self._folder, self._every = Path(folder), every
        self._found: list[Checkpoint] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save if it is time."""
        if self._every and state.global_step % self._every == 0:
            self._save(state, kwargs)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save if epochs are what is counted."""
        if not self._every:
            self._save(state, kwargs)

    def _save(self, state: TrainerState, now: dict[str, Any]) -> None:
        if not state.is_world_process_zero or any(c.step == state.global_step for c in self._found):
            return
        path = self._folder / f"step-{state.global_step}"
        now["model"].save_pretrained(path)
        if now.get("processing_class") is not None:
            now["processing_class"].save_pretrained(path)
        rate = float(now["optimizer"].param_groups[0]["lr"])
        self._found.append(Checkpoint(path.name, int(state.global_step), rate))
        (self._folder / LIST).write_text(json.dumps([asdict(c) for c in self._found], indent=2) + "\n")


def read_checkpoints(folder: str | Path) -> tuple[Checkpoint, ...]:
    """The checkpoints listed in `folder/checkpoints.json` (or in that file), with paths that can be loaded.

    Raises:
        DataError: no list there, a list that is not one, or a listed folder that is gone.
    """
    file = Path(folder) / LIST if Path(folder).is_dir() else Path(folder)
    try:
        raw = json.loads(file.read_text())
        found = [Checkpoint(str(c["path"]), int(c["step"]), float(c["learning_rate"])) for c in raw]
    except FileNotFoundError:
        remedy = "record a run with CheckpointRecorder, or name the folder it wrote"
        raise DataError("no list of checkpoints", where=str(file), remedy=remedy) from None
    except (ValueError, KeyError, TypeError) as error:
        remedy = 'expected [{"path": ..., "step": ..., "learning_rate": ...}, ...]'
        raise DataError(f"not a list of checkpoints: {error}", where=str(file), remedy=remedy) from None
    if not found:
        raise DataError("the list of checkpoints is empty", where=str(file))
    placed = tuple(Checkpoint(str(file.parent / c.path), c.step, c.learning_rate) for c in found)
    for checkpoint in placed:
        if not Path(checkpoint.path).is_dir():
            raise DataError(
                f"checkpoint '{checkpoint.path}' is gone", where=str(file), remedy="restore it, or unlist it"
            )
    return placed


def load_checkpoint(checkpoint: Checkpoint, loaded: LoadedModel) -> LoadedModel:
    """The recorded model, in the precision and place of the one given."""
    dtype = str(next(loaded.model.parameters()).dtype).removeprefix("torch.")
    if (Path(checkpoint.path) / "adapter_config.json").is_file():
        if not Path(loaded.name).exists() and loaded.name == "in-memory":
            raise UsageError("adapters need a base model that can be loaded by name", where="checkpoints")
        return load_model(loaded.name, adapter=checkpoint.path, dtype=dtype, device=str(loaded.device))
    own = (Path(checkpoint.path) / "tokenizer.json").is_file()
    tokenizer = None if own else loaded.tokenizer.name_or_path
    return load_model(checkpoint.path, dtype=dtype, device=str(loaded.device), tokenizer=tokenizer)
