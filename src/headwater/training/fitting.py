"""Train a causal language model on rows: one compact loop, for tiny models from scratch and for models of your own.

Ground truth by retraining needs dozens of trainings that differ in their rows alone. The same model, rows, recipe and
seed give the same weights, on the same machine with the same number of threads.

A recipe is written as YAML or JSON; `TrainingRecipe` lists its names:

    epochs: 3
    batch: 8            # rows a step
    rate: 2.0e-4
    optimizer: adamw
    lora: {r: 8, alpha: 16, targets: [q_proj, v_proj]}
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.core.errors import DataError, UsageError, unknown_name
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.data.tokens import TokenRow
from headwater.models.adapters import trained_names
from headwater.models.losses import target_logits, token_losses
from headwater.training.recorder import Recorder

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "linear", "constant")
_PART = 1024
"""A step's rows are read together up to so many positions; a larger step is read in parts of rows of similar length."""


@dataclass(frozen=True)
class TrainingRecipe:
    """How a model is trained; every field is a JSON value.

    Attributes:
        epochs: passes over the rows.
        batch: rows a step; 0 makes batches of rows of similar length with `tokens_per_batch` tokens, padding included.
        tokens_per_batch: as said; used only if `batch` is 0.
        rate: the highest learning rate.
        optimizer: `adamw` (with `beta1`, `beta2`, `weight_decay`) or `sgd` (with `weight_decay`, without momentum).
        schedule: `cosine` or `linear` to zero, or `constant`.
        warmup: the share of the steps in which the rate rises.
        clip: gradients are scaled to at most this norm; 0 leaves them.
        lora: train a new LoRA adapter instead of the weights: `r`, `alpha`, `targets`; None trains the weights, or of
            a model that has an adapter already, the adapter.
    """

    epochs: int = 3
    batch: int = 8
    tokens_per_batch: int = 0
    rate: float = 1e-4
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.95
    schedule: str = "cosine"
    warmup: float = 0.1
    clip: float = 1.0
    lora: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known, where="recipe")
        if self.epochs < 1 or self.rate <= 0 or self.batch < 0 or (self.batch == 0 and self.tokens_per_batch < 1):
            what = f"cannot train {self.epochs} epochs at rate {self.rate} with {self.batch} rows a step"
            raise UsageError(what, where="recipe", remedy="give epochs, rate and batch above 0")
        for name in self.lora or ():
            if name not in ("r", "alpha", "targets"):
                raise unknown_name("field of lora", name, ("r", "alpha", "targets"), where="recipe")


def read_recipe(source: str | Path | Mapping[str, Any]) -> TrainingRecipe:
    """The recipe in a YAML or JSON file, or in a mapping.

    Raises:
        DataError: there is no such file, or it holds no names with values.
        UsageError: an unknown name, or a value of the wrong type.
    """
    given, where = (source, "recipe") if isinstance(source, Mapping) else (_read(Path(source)), str(source))
    known = {entry.name: entry.default for entry in dataclasses.fields(TrainingRecipe)}
    settled = {}
    for name, value in given.items():
        if name not in known:
            raise unknown_name("name", str(name), known, where=where)
        settled[name] = _typed(value, known[name], where=f"{where}: {name}")
    return TrainingRecipe(**settled)


def _read(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"not YAML or JSON: {error}"
        raise DataError(
            " ".join(reason.split()), where=str(path), remedy="a recipe holds lines like 'epochs: 3'"
        ) from None
    if not isinstance(found, Mapping):
        raise DataError("no names with values", where=str(path), remedy="a recipe holds lines like 'epochs: 3'")
    return found


def _typed(value: Any, like: Any, *, where: str) -> Any:
    if like is None or isinstance(like, str):
        wanted = Mapping if like is None else str
        if value is not None and not isinstance(value, wanted):
            raise UsageError(
                f"{json.dumps(value, default=str)} is no {'mapping' if like is None else 'text'}", where=where
            )
        return value
    try:
        number = float(value)  # YAML reads 1e-4 as text
    except (TypeError, ValueError):
        raise UsageError(f"'{value}' is not a number", where=where, remedy=f"for example {like!r}") from None
    if isinstance(like, int) and number != int(number):
        raise UsageError(f"'{value}' is not a whole number", where=where, remedy=f"for example {like!r}")
    return type(like)(number)


@dataclass(frozen=True)
class Step:
    """The state of a training after a step: `loss` in nats, mean over the step's response tokens; `elapsed` seconds."""

    epoch: int
    step: int
    steps: int
    loss: float
    elapsed: float


OnStep = Callable[[Step], None]


def with_lora(model: Any, lora: Mapping[str, Any]) -> Any:
    """The model with a new LoRA adapter around it, whose update is zero; the adapter alone requires gradients."""
    from peft import LoraConfig, get_peft_model

    rank, targets = int(lora.get("r", 8)), lora.get("targets")
    config = LoraConfig(
        r=rank, lora_alpha=lora.get("alpha", 2 * rank), target_modules=targets or "all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def trainable(model: Any, training: TrainingRecipe, *, seed: int) -> Any:
    """The model ready to train by this recipe, changed in place: what is trained, and only that, requires gradients."""
    if training.lora is not None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return with_lora(model.requires_grad_(False), training.lora)
    names = trained_names(model) if hasattr(model, "peft_config") else None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.is_floating_point() and (names is None or name in names))
    return model


def fit(
    model: Any,
    rows: Sequence[TokenRow],
    training: TrainingRecipe,
    *,
    context: int,
    seed: int,
    on_step: OnStep | None = None,
    recorder: Recorder | None = None,
) -> None:
    """Train `model` in place on the rows' target tokens, and leave it in evaluation mode.

    What requires gradients is trained. `context` is how many tokens are read together.
    """
    plan = plan_steps(rows, training, context=context, seed=seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = _optimizer(parameters, training)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, len(plan), training))
    if recorder is not None:
        record_run(recorder, model, rows, training, context=context, seed=seed)
    start = time.perf_counter()
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of dropout
        model.train()
        for step, (epoch, batches) in enumerate(plan):
            optimizer.zero_grad()
            loss = _backward(model, batches)
            if training.clip:
                torch.nn.utils.clip_grad_norm_(parameters, training.clip)
            if recorder is not None:
                recorder.before_step(optimizer)
            optimizer.step()
            schedule.step()
            if recorder is not None:
                recorder.after_step(step + 1, len(plan), model, optimizer)
            if on_step is not None:
                on_step(Step(epoch, step + 1, len(plan), loss, time.perf_counter() - start))
    model.eval()


def record_run(
    recorder: Recorder, model: Any, rows: Sequence[TokenRow], training: TrainingRecipe, *, context: int, seed: int
) -> None:
    """Record what `headwater.training.runs.read_run` needs to repeat the training of this model."""
    digests = [row.digest for row in rows]
    run = {"recipe": dataclasses.asdict(training), "context": context, "seed": seed, "rows": digests}
    ids, targets = (np.concatenate([getattr(row, name) for row in rows]) for name in ("ids", "response"))
    lengths = torch.tensor([len(row.ids) for row in rows])
    tokens = {"ids": torch.from_numpy(ids), "targets": torch.from_numpy(targets), "lengths": lengths}
    recorder.before_training(model, run, tokens)


def response_loss(model: Any, batch: TokenBatch) -> Tensor:
    """Cross-entropy in nats, mean over the batch's target tokens; logits are computed for these positions only.

    No attention mask is needed, because batches are padded on the right and attention looks to the left.
    """
    logits, place = target_logits(model, batch.input_ids, batch.response)
    kept = batch.response.gather(1, place)
    return token_losses(logits[kept], batch.targets.gather(1, place)[kept]).mean()


def _backward(model: Any, batches: Sequence[TokenBatch]) -> float:
    """Add the gradient of the mean loss over the target tokens of all batches; returns that loss, nats."""
    tokens = [int(batch.response.sum()) for batch in batches]
    total = 0.0
    for batch, count in zip(batches, tokens, strict=True):
        loss = response_loss(model, batch.to(model.device)) * (count / sum(tokens))
        loss.backward()
        total += float(loss.detach())
    return total


def _optimizer(parameters: list[Tensor], training: TrainingRecipe) -> torch.optim.Optimizer:
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=training.rate, weight_decay=training.weight_decay)
    betas = (training.beta1, training.beta2)
    return torch.optim.AdamW(parameters, training.rate, betas, weight_decay=training.weight_decay, fused=True)


def plan_steps(
    rows: Sequence[TokenRow], training: TrainingRecipe, *, context: int, seed: int
) -> list[tuple[int, list[TokenBatch]]]:
    """Epoch and batches of every step; the rows are shuffled anew for each epoch."""
    return list(_steps(rows, training, Window(context), np.random.default_rng(seed)))


def _steps(
    rows: Sequence[TokenRow], training: TrainingRecipe, window: Window, rng: np.random.Generator
) -> Iterator[tuple[int, list[TokenBatch]]]:
    for epoch in range(training.epochs):
        shuffled = [rows[i] for i in rng.permutation(len(rows))]
        if training.batch:
            for start in range(0, len(shuffled), training.batch):
                some = shuffled[start : start + training.batch]
                quarter = sum(len(row.ids) for row in some) // 4  # large enough to keep a fast device busy
                yield epoch, plan_batches(some, window, tokens_per_batch=max(_PART, quarter))
        else:
            batches = plan_batches(shuffled, window, tokens_per_batch=training.tokens_per_batch)
            for i in rng.permutation(len(batches)):
                yield epoch, [batches[i]]


def rate_share(step: int, steps: int, training: TrainingRecipe) -> float:
    """The share of the highest rate at a step: it rises over the warm-up, then falls by the schedule."""
    rising = min(1.0, (step + 1) / (training.warmup * steps)) if training.warmup else 1.0
    falling = {
        "cosine": 0.5 * (1 + math.cos(math.pi * step / steps)),
        "linear": 1 - step / steps,
        "constant": 1.0,
    }[training.schedule]
    return rising * falling
