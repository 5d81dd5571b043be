"""Record a training run: the checkpoints that methods such as TracIn and LESS read.

    folder/step-N/                      the model (with PEFT, the adapter) after step N
    folder/step-N/adam.safetensors      the optimiser's moments after that step, if it is an Adam
    folder/adam.safetensors             the moments after the last recorded step
    folder/checkpoints.json             the recorded steps, and the learning rate of each
    folder/run.json                     with start.safetensors and rows.safetensors, what repeats the run
                                        (`headwater.training.runs`); `fit` alone has them written

With the Hugging Face Trainer:      Trainer(..., callbacks=[Recorder("runs/recorded", every=100)])
In your own loop:                   recorder.before_step(optimizer); optimizer.step(); recorder.after_step(...)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from headwater.core.errors import UsageError
from headwater.core.files import whole_file, whole_folder, write_text
from headwater.curvature.adam import keeps_moments, write_adam
from headwater.models.checkpoints import ADAM, LIST, Checkpoint

RUN, START, ROWS = "run.json", "start.safetensors", "rows.safetensors"

Wanted = Callable[[int, int], bool]
"""Whether to record after a step, given the step's number and how many there will be."""


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Records weights, learning rates and Adam's moments during training, in the main process only.

    Args:
        folder: where to write; what an earlier run recorded there is replaced.
        every: record after every so many optimizer steps; 0 records at the end of every epoch (Trainer only).
        wanted: which steps to record, instead of `every`.
        moments: record Adam's moments as well as the weights (they are twice as large).

    Raises:
        UsageError: `every` is negative.
    """

    def __init__(
        self, folder: str | Path, *, every: int = 0, wanted: Wanted | None = None, moments: bool = True
    ) -> None:
        if every < 0:
            raise UsageError(f"every {every} steps", where="Recorder", remedy="1 or more; 0 for every epoch")
        self._folder, self._moments = Path(folder), moments
        self._wanted = wanted or ((lambda step, steps: step % every == 0) if every else None)
        self._found: list[Checkpoint] = []
        self._rate: float | None = None

    def before_training(self, model: Any, run: Mapping[str, Any], rows: Mapping[str, Tensor]) -> None:
        """Record what repeats the training: `run`, which is JSON-ready, the rows' tokens, and the weights before it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        start = {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}
        for name, tensors in ((START, start), (ROWS, dict(rows))):
            with whole_file(self._folder / name) as part:
                save_file(tensors, part)
        write_text(self._folder / RUN, json.dumps(dict(run), indent=1) + "\n")

    def before_step(self, optimizer: Any) -> None:
        """Note the learning rate of the step that the optimiser is about to take, before a schedule changes it."""
        self._rate = float(optimizer.param_groups[0]["lr"])

    def after_step(self, step: int, steps: int, model: Any, optimizer: Any, tokenizer: Any = None) -> None:
        """Record the model if this step is to be recorded, or is the last one.

        Args:
            step: how many optimizer steps have been taken.
            steps: how many there will be.
            model: the model that is trained.
            optimizer: its optimizer.
            tokenizer: saved with the model, so that its folder can be loaded alone; None saves no tokenizer.

        Raises:
            UsageError: `before_step` was not called, so the learning rate is unknown.
        """
        if self._wanted is not None and (self._wanted(step, steps) or step == steps):
            self._save(step, model, optimizer, tokenizer)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **now: Any) -> None:
        """Keep the checkpoints of a run that is resumed, and remove everything else that was recorded earlier."""
        listed = self._folder / LIST
        if not state.is_world_process_zero or not listed.is_file():
            return
        earlier = [Checkpoint(**entry) for entry in json.loads(listed.read_text(encoding="utf-8"))]
        self._found = [c for c in earlier if c.step <= state.global_step]
        for checkpoint in earlier[len(self._found) :]:
            shutil.rmtree(self._folder / checkpoint.path, ignore_errors=True)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **now: Any
    ) -> None:
        """Note the learning rate of the step about to be taken."""
        self.before_step(now["optimizer"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **now: Any) -> None:
        """Record the model if this step is to be recorded."""
        if state.is_world_process_zero:
            tokenizer = now.get("processing_class")
            self.after_step(state.global_step, state.max_steps, now["model"], now["optimizer"], tokenizer)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **now: Any) -> None:
        """Record the model if it is recorded by epochs."""
        if state.is_world_process_zero and self._wanted is None:
            self._save(state.global_step, now["model"], now["optimizer"], now.get("processing_class"))

    def _save(self, step: int, model: Any, optimizer: Any, tokenizer: Any) -> None:
        if any(c.step == step for c in self._found):
            return
        if self._rate is None:
            what = "the learning rate of the step is unknown"
            raise UsageError(what, where="Recorder", remedy="call before_step(optimizer) before optimizer.step()")
        place = self._folder / f"step-{step}"
        shutil.rmtree(place, ignore_errors=True)
        with whole_folder(place) as part:
            model.save_pretrained(part)
            if tokenizer is not None:
                tokenizer.save_pretrained(part)
            if self._moments and keeps_moments(optimizer):
                write_adam(part / ADAM, optimizer, model)
                write_adam(self._folder / ADAM, optimizer, model)
        self._found.append(Checkpoint(place.name, step, self._rate))
        write_text(self._folder / LIST, json.dumps([asdict(c) for c in self._found], indent=2) + "\n")
