"""The recorder: what it leaves of a run is what the run did, step by step, and methods can read it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from headwater.core.errors import UsageError
from headwater.curvature.adam import read_adam
from headwater.data.batches import Window, plan_batches
from headwater.data.tokens import Tokenization
from headwater.features.checkpoints import CheckpointEncoder
from headwater.methods.catalog import find_method
from headwater.models.checkpoints import ADAM, LIST, read_checkpoints
from headwater.models.load import load_model
from headwater.tasks import howdy_task
from headwater.training.cache import KEPT, trained
from headwater.training.fitting import fit
from headwater.training.recorder import Recorder
from headwater.training.tiny import Recipe, new_model, task_rows, train_tiny, train_tokenizer
from oracles.gradient_oracles import random_rows
from zoo import tiny_tokenizer, zoo

RATE, STEPS = 1e-3, 8
SMALL = Recipe(vocabulary=400, layers=1, width=32, heads=2, epochs=2, tokens_per_batch=512, learning_rate=1e-2)
ROWS = howdy_task(0, rows=40, queries=2).rows
SCHEDULES = {
    "linear": lambda taken: RATE * (1 - taken / STEPS),
    "cosine": lambda taken: RATE * 0.5 * (1 + math.cos(math.pi * taken / STEPS)),
    "constant": lambda taken: RATE,
}
"""The rate of a step after so many taken; the first two fall to zero with the last step."""


def train(folder: Path, schedule: str = "linear", model: str = "llama", optim: str = "adamw_torch", **options: Any):
    """A Hugging Face Trainer of eight steps in two epochs, recorded in `folder`."""
    data = [{"input_ids": torch.arange(8) + i, "labels": torch.arange(8) + i} for i in range(8)]
    args = TrainingArguments(
        str(folder.parent / "out"),
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        per_device_train_batch_size=2,
        num_train_epochs=2,
        learning_rate=RATE,
        lr_scheduler_type=schedule,
        optim=optim,
        report_to=[],
    )
    trainer = Trainer(
        model=zoo()[model]().train(),
        args=args,
        train_dataset=data,
        processing_class=tiny_tokenizer(),
        callbacks=[Recorder(folder, **options)],
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_recorded_by_a_trainer_is_that_of_the_step_taken(tmp_path, schedule):
    trainer = train(tmp_path / "seen", schedule, every=3)
    found = read_checkpoints(tmp_path / "seen")
    assert [c.step for c in found] == [3, 6, 8], "every third, and the last"
    assert [c.learning_rate for c in found] == pytest.approx([SCHEDULES[schedule](s - 1) for s in (3, 6, 8)])
    assert found[-1].learning_rate > 0
    if schedule != "constant":
        assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12), "the schedule ends at zero"


def test_the_rate_recorded_by_the_tiny_trainer_is_that_of_the_step_taken(tmp_path):
    rows = task_rows(ROWS)
    tokenizer = train_tokenizer([row.response for row in rows], 300)
    model = new_model(tokenizer, SMALL, seed=0)
    steps: list[int] = []
    recorder = Recorder(tmp_path, every=1)
    token_rows = Tokenization.of(tokenizer).encode(rows)
    how = {"recorder": recorder, "on_step": lambda step: steps.append(step.steps)}
    fit(model, token_rows, SMALL.training, context=SMALL.context, seed=0, **how)
    total = steps[0]
    found = read_checkpoints(tmp_path)
    assert [c.step for c in found] == list(range(1, total + 1))
    warm = [min(1.0, s / (0.1 * total)) for s in range(1, total + 1)]
    decay = [0.5 * (1 + math.cos(math.pi * (s - 1) / total)) for s in range(1, total + 1)]
    expected = [SMALL.learning_rate * w * d for w, d in zip(warm, decay, strict=True)]
    assert [c.learning_rate for c in found] == pytest.approx(expected)
    assert found[-1].learning_rate > 0


def test_every_step_has_the_weights_and_the_moments_after_it(tmp_path):
    trainer = train(tmp_path / "seen", every=2)
    found = read_checkpoints(tmp_path / "seen")
    assert [c.step for c in found] == [2, 4, 6, 8]
    for checkpoint in found:
        loaded = load_model(checkpoint.path, device="cpu")  # the tokenizer is beside the weights
        names = [name for name, _ in loaded.model.named_parameters()]
        adam = read_adam(Path(checkpoint.path) / ADAM, loaded.model, names)
        assert adam.step == checkpoint.step
    last = trainer.model.state_dict()
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, last[name])
    state = {name: trainer.optimizer.state[p] for name, p in trainer.model.named_parameters()}
    for name in names:
        assert torch.equal(adam.first[name], state[name]["exp_avg"])
        assert torch.equal(adam.second[name], state[name]["exp_avg_sq"])
    top, own = load_file(tmp_path / "seen" / ADAM), load_file(Path(found[-1].path) / ADAM)
    assert top.keys() == own.keys()
    assert all(torch.equal(top[name], own[name]) for name in top)


def test_weights_between_two_steps_moved_by_the_rate_that_is_recorded(tmp_path):
    """Adam's step from the recorded moments, times the recorded rate, leads from one checkpoint to the next."""
    train(tmp_path / "seen", "cosine", every=1)
    before, after = read_checkpoints(tmp_path / "seen")[-2:]
    old, new = (dict(load_model(c.path, device="cpu").model.named_parameters()) for c in (before, after))
    adam = read_adam(Path(after.path) / ADAM, load_model(after.path, device="cpu").model, list(old))
    for name in old:
        first, second = adam.first[name] / (1 - adam.beta1**8), adam.second[name] / (1 - adam.beta2**8)
        step = after.learning_rate * first / (second.sqrt() + adam.epsilon)
        torch.testing.assert_close(old[name] - new[name], step, rtol=1e-2, atol=1e-7)


def test_the_end_of_every_epoch_is_recorded_where_no_step_is_named(tmp_path):
    train(tmp_path / "seen")
    found = read_checkpoints(tmp_path / "seen")
    assert [c.step for c in found] == [4, 8]
    assert [c.learning_rate for c in found] == pytest.approx([SCHEDULES["linear"](s - 1) for s in (4, 8)])


def test_steps_can_be_chosen_by_a_rule_and_moments_left_out(tmp_path):
    train(tmp_path / "seen", wanted=lambda step, steps: step == steps // 2, moments=False)
    found = read_checkpoints(tmp_path / "seen")
    assert [c.step for c in found] == [4, 8]
    assert not list((tmp_path / "seen").rglob(ADAM))


def test_an_optimiser_without_moments_is_recorded_without(tmp_path):
    train(tmp_path / "seen", optim="sgd", every=4)
    assert [c.step for c in read_checkpoints(tmp_path / "seen")] == [4, 8]
    assert not list((tmp_path / "seen").rglob(ADAM))


def test_of_an_adapter_the_adapter_alone_is_recorded(tmp_path):
    train(tmp_path / "seen", model="llama-lora", every=8)
    (found,) = read_checkpoints(tmp_path / "seen")
    assert (Path(found.path) / "adapter_config.json").is_file()
    assert not (Path(found.path) / "model.safetensors").exists()
    names = {name.removeprefix("exp_avg.") for name in load_file(Path(found.path) / ADAM) if "exp_avg." in name}
    assert names
    assert all("lora_" in name for name in names)


def test_another_run_takes_the_place_of_the_first(tmp_path):
    train(tmp_path / "seen", every=3)
    train(tmp_path / "seen", "cosine", every=4)
    found = json.loads((tmp_path / "seen" / LIST).read_text())
    assert [c["step"] for c in found] == [4, 8]
    assert found[0]["learning_rate"] == pytest.approx(SCHEDULES["cosine"](3))


def test_what_cannot_be_recorded_is_refused(tmp_path):
    with pytest.raises(UsageError, match="every -1 steps"):
        Recorder(tmp_path, every=-1)
    model = zoo()["llama"]()
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(UsageError, match="before_step"):
        Recorder(tmp_path, every=1).after_step(1, 2, model, optimizer)
    assert not (tmp_path / LIST).exists()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, tuple[str, Path]]:
    """By trainer: a model's folder, and what was recorded of a run."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "seen", every=4)
    train_tiny(
        ROWS, out=folder / "tiny", seed=0, recipe=SMALL, recorder=Recorder(folder / "tiny" / "recorded", every=4)
    )
    return {
        "transformers": (read_checkpoints(folder / "seen")[-1].path, folder / "seen"),
        "tiny": (str(folder / "tiny"), folder / "tiny" / "recorded"),
    }


@pytest.mark.parametrize("trainer", ["transformers", "tiny"])
def test_less_reads_each_checkpoint_with_its_own_moments_and_rate(runs, trainer):
    model, recorded = runs[trainer]
    loaded = load_model(model)
    settings = {"dim": 512, "parameters": "*.q_proj.weight"}
    form = find_method("less", {"checkpoints": str(recorded), **settings}).require_vectors()
    encoder = form.bind(loaded)
    assert isinstance(encoder, CheckpointEncoder)
    found = read_checkpoints(recorded)
    assert len(found) >= 2
    assert {c.name: c.weight for c in encoder.columns} == {f"gradient@step-{c.step}": c.learning_rate for c in found}
    assert all(c.weight > 0 for c in encoder.columns)
    (batch,) = plan_batches(random_rows((9, 14, 6)), Window(64))
    vectors = encoder.encode(batch, "train").vectors
    for checkpoint in found:
        alone = find_method("less", {"adam": f"{checkpoint.path}/{ADAM}", **settings}).require_vectors()
        tokenizer = None if (Path(checkpoint.path) / "tokenizer.json").is_file() else model
        own = alone.bind(load_model(checkpoint.path, tokenizer=tokenizer)).encode(batch, "train").vectors["gradient"]
        torch.testing.assert_close(vectors[f"gradient@step-{checkpoint.step}"], own)


def test_the_cache_keeps_what_was_recorded_beside_the_model(tmp_path):
    told: list[float] = []
    made = trained(tmp_path, "a", ROWS, seed=0, recipe=SMALL, on_progress=lambda _, share: told.append(share))
    found = read_checkpoints(made.recorded)
    steps = len(told)
    assert told[-1] == 1
    assert found[-1].step == steps
    assert len(found) == min(KEPT, steps - steps // 2)
    assert all(c.step > steps // 2 and c.learning_rate > 0 for c in found)
    assert np.all(np.diff([c.learning_rate for c in found]) < 0)
    last, model = (load_file(folder / "model.safetensors") for folder in (Path(found[-1].path), made.folder))
    assert all(torch.equal(last[name], model[name]) for name in model)
    told.clear()
    again = trained(tmp_path, "a", ROWS, seed=0, recipe=SMALL, on_progress=lambda _, share: told.append(share))
    assert (again, told) == (made, [])
    other = trained(tmp_path, "a", ROWS, seed=1, recipe=SMALL, on_progress=lambda _, share: told.append(share))
    assert other.folder != made.folder
    assert told


def test_a_resumed_run_goes_on_with_its_list_and_a_new_one_replaces_it(tmp_path):
    def begin(step: int) -> Recorder:
        recorder = Recorder(tmp_path, every=2)
        state = TrainerState(global_step=step, max_steps=6)
        recorder.on_train_begin(TrainingArguments(tmp_path / "out", report_to=[]), state, TrainerControl())
        return recorder

    def record(recorder: Recorder, steps: range) -> list[int]:
        model = torch.nn.Linear(2, 2)
        model.save_pretrained = lambda path: (Path(path) / "weights").write_text("x")  # type: ignore[assignment]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in steps:
            recorder.before_step(optimizer)
            recorder.after_step(step, 6, model, optimizer)
        return [c.step for c in read_checkpoints(tmp_path)]

    assert record(begin(0), range(1, 5)) == [2, 4]
    assert record(begin(2), range(3, 7)) == [2, 4, 6]
    assert record(begin(0), range(1, 3)) == [2]
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-2"]
