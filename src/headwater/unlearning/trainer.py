"""One trainer for every objective: transformers' Trainer with our loss. It brings devices, checkpoints and resuming.

Gradient checkpointing is non-reentrant, which needs no gradient at the inputs of a block. The embeddings' outputs
require one anyway (`enable_input_require_grads`), so that adapters in checkpointed blocks learn in any case.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from headwater.core.errors import DataError
from headwater.core.progress import tell
from headwater.models.losses import all_logits, loss_table
from headwater.unlearning.adapter import own_randomness, reference
from headwater.unlearning.hardening import hardened
from headwater.unlearning.objectives import Objective, RowLosses, batch_loss, low_loss_weights
from headwater.unlearning.sequences import Composition, Example, StepPlan, collate
from headwater.unlearning.watch import STATE, Watch


@dataclass(frozen=True)
class Schedule:
    """How long to train, and how fast.

    Attributes:
        rate: learning rate of AdamW; it decays by half a cosine over `steps`.
        steps: most optimizer steps.
        composition: rows of a step.
        ramp: for the probe: the rate grows from `rate` by this factor each step instead.
        clip: largest norm of the gradient.
        weight_decay: of AdamW.
        seed: of the order of rows and of dropout.
        harden: see `headwater.unlearning.hardening`.
        checkpointing: recompute activations in the backward pass to save memory.
        save_every: steps between checkpoints; 0 for none.
    """

    rate: float
    steps: int = 320
    composition: Composition = field(default_factory=Composition)
    ramp: float | None = None
    clip: float = 1.0
    weight_decay: float = 0.0
    seed: int = 0
    harden: str | None = None
    checkpointing: bool = False
    save_every: int = 0


@dataclass
class Material:
    """Everything the objective reads: the examples and, by `place`, their weights and L under the model before.

    `preferred` is L of the right answer (or refusal) under the model before; 0 where there is none.
    """

    examples: Sequence[Example]
    weights: Tensor
    reference: Tensor
    preferred: Tensor | None = None

    def without(self, places: Sequence[int]) -> Material:
        """The same without the examples at these places."""
        kept = [e for e in self.examples if e.place not in set(places)]
        return Material(kept, self.weights, self.reference, self.preferred)

    def reweigh(self, objective: Objective, places: Sequence[int], losses: Tensor) -> None:
        """Give the rows at `places` LoReUn's dynamic weights, computed from their current L̄ `[places]`."""
        self.weights = self.weights.clone()
        self.weights[list(places)] = low_loss_weights(losses, tau=objective.tau)


class _TellSteps(TrainerCallback):  # type: ignore[misc]
    """Reports the steps that are done."""

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Report this step."""
        tell("unlearning", state.global_step, state.max_steps, "steps")


class ForgettingTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with an objective's loss."""

    def __init__(
        self, objective: Objective, material: Material, watch: Watch, schedule: Schedule, **arguments: Any
    ) -> None:
        self.objective, self.material, self.watch, self.schedule = objective, material, watch, schedule
        self.parts: dict[str, float] = {}
        super().__init__(callbacks=[watch], **arguments)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The batch's loss; its parts are kept for the log."""
        rows, logits = self._rows(model, inputs)
        counts, devices = self.schedule.composition, self.args.world_size
        loss, parts = batch_loss(
            self.objective,
            rows,
            forget=max(counts.forget, 1) / devices,
            retain=max(counts.retain, 1) / devices,
            multiplier=None if self.watch.multiplier is None else self.watch.multiplier.value,
        )
        self.parts = {name: float(value) for name, value in parts.items()}
        self.watch.finite = self.watch.finite and bool(loss.isfinite())
        return (loss, {"logits": logits}) if return_outputs else loss

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """The gradient of one batch, taken as the schedule's hardening wants it."""
        plain = super().training_step
        loss: Tensor = hardened(model, self.schedule.harden, lambda: plain(model, inputs, num_items_in_batch))
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log each term of the loss beside the Trainer's own numbers."""
        super().log({**logs, **self.parts}, start_time)

    def _rows(self, model: Any, inputs: dict[str, Any]) -> tuple[RowLosses, Tensor]:
        place, clean = inputs["place"].cpu(), inputs["clean"]
        logits, hidden = self._read(model, inputs["input_ids"])
        response, count = inputs["response"], len(place)
        table = loss_table(logits[response], inputs["targets"], response)
        total = table.sum(1)
        mean = total / response.sum(1)
        known, prefers = clean >= 0, self.material.preferred
        behind = clean.clamp(min=0)
        return RowLosses(
            total=total[:count],
            mean=mean[:count],
            reference=self.material.reference[place].to(total),
            clean=torch.where(known, mean[behind], 0),
            forget=inputs["forget"],
            copy=inputs["copy"],
            weight=self.material.weights[place].to(total),
            divergence=self._divergence(model, inputs, logits, count) if self.objective.keep == "kl" else None,
            tokens=table[:count],
            counts=response.sum(1)[:count].to(total),
            preferred=None if prefers is None else torch.where(known, total[behind], 0) - prefers[place].to(total),
            hidden=None if hidden is None else _at_response(hidden, response)[:count],
            hidden_reference=self._hidden_before(model, inputs)[:count] if self.objective.steers else None,
        ), logits

    def _read(self, model: Any, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits and, if the objective reads them, the hidden states after the middle block."""
        if not self.objective.steers:
            return all_logits(model, input_ids), None
        output = model(input_ids=input_ids, use_cache=False, output_hidden_states=True)
        tokens = input_ids.shape[1]
        return output.logits[:, -tokens:], output.hidden_states[len(output.hidden_states) // 2][:, -tokens:]

    def _hidden_before(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        with reference(self.accelerator.unwrap_model(model)) as before:
            hidden = self._read(before, inputs["input_ids"])[1]
        assert hidden is not None
        return _at_response(hidden, inputs["response"])

    def _divergence(self, model: Any, inputs: dict[str, Any], logits: Tensor, count: int) -> Tensor:
        """KL(ref ‖ model) of the first `count` sequences: nats, averaged over response tokens."""
        with reference(self.accelerator.unwrap_model(model)) as before:
            old = all_logits(before, inputs["input_ids"][:count])
        response = inputs["response"][:count]
        log_p = torch.log_softmax(old[response].float(), dim=-1)
        log_q = torch.log_softmax(logits[:count][response].float(), dim=-1)
        tokens = (log_p.exp() * (log_p - log_q)).sum(-1)
        table = tokens.new_zeros(response.shape).masked_scatter(response, tokens)
        rows: Tensor = table.sum(1) / response.sum(1)
        return rows


def _at_response(hidden: Tensor, response: Tensor) -> Tensor:
    """Hidden states `[rows, tokens, width]`, 0 outside the response."""
    return hidden * response[..., None]


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of most steps that was written to its end; a kill in the middle of one leaves it without a state.

    The Trainer writes `trainer_state.json` last, and the watch its own state after that.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        with contextlib.suppress(OSError, ValueError, RuntimeError, EOFError):
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            torch.load(path / STATE, weights_only=True)
            return path
    return None


def train(
    model: Any,
    objective: Objective,
    material: Material,
    watch: Watch,
    schedule: Schedule,
    *,
    folder: Path | None = None,
    resume: bool = False,
) -> list[dict[str, float]]:
    """Train `model` in place until the watch stops it or the steps are done, and return the log, one entry a step.

    Args:
        model: a model with at least one trainable parameter.
        objective: what to minimise.
        material: examples, weights, reference losses.
        watch: when to stop.
        schedule: how long and how fast.
        folder: where checkpoints go; needed to save or resume.
        resume: continue from the last checkpoint in `folder`, if there is one.

    Raises:
        DataError: the schedule reads forget rows or retain rows, and there are none.
    """
    groups = {"forget": schedule.composition.forget, "retain": schedule.composition.retain}
    for name, count in groups.items():
        if count and not any(e.forget == (name == "forget") for e in material.examples):
            raise DataError(f"each step reads {count} {name} rows, and there are none", where="unlearning")
    with own_randomness(schedule.seed), tempfile.TemporaryDirectory() as scratch:
        trainer = ForgettingTrainer(
            objective,
            material,
            watch,
            schedule,
            model=model,
            args=_arguments(schedule, str(folder or scratch), device=watch.device),
            train_dataset=StepPlan(material.examples, schedule.composition, steps=schedule.steps, seed=schedule.seed),
            data_collator=collate,
        )
        trainer.remove_callback(PrinterCallback)  # standard output is for results
        trainer.add_callback(_TellSteps())
        if schedule.checkpointing:
            model.enable_input_require_grads()
        if schedule.ramp is not None:
            trainer.create_optimizer()
            growth = schedule.ramp
            trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda step: growth**step)
        last = last_whole_checkpoint(folder) if resume and folder is not None else None
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
        return [entry for entry in trainer.state.log_history if "loss" in entry]


def _arguments(schedule: Schedule, folder: str, *, device: torch.device) -> Any:
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=schedule.steps,
        per_device_train_batch_size=schedule.composition.rows,
        accelerator_config={"split_batches": True},  # divide a step's rows among the devices
        learning_rate=schedule.rate,
        lr_scheduler_type="cosine",
        max_grad_norm=schedule.clip,
        weight_decay=schedule.weight_decay,
        gradient_checkpointing=schedule.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if schedule.checkpointing else None,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
        logging_steps=1,
        save_strategy="steps" if schedule.save_every else "no",
        save_steps=schedule.save_every or 500,
        save_total_limit=2,
        seed=schedule.seed,
        report_to="none",
        disable_tqdm=True,
        use_cpu=device.type == "cpu",
    )
    if arguments.n_gpu > 1:  # several devices need torchrun; without it the Trainer would copy the model in one process
        arguments._n_gpu = 1
    return arguments
