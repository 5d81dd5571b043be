"""A Hugging Face Trainer's own checkpoint folders: steps, rates and Adam's moments are those of the run itself."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import Trainer, TrainingArguments

from headwater.core.errors import DataError, MismatchError, ModelError
from headwater.curvature.moments import read_moments
from headwater.data.batches import Window, plan_batches
from headwater.methods.catalog import find_method
from headwater.models.checkpoints import LIST, TRAINER_STATE, load_checkpoint, read_checkpoints
from headwater.models.load import load_model
from headwater.models.shards import require_joined
from oracles.gradient_oracles import random_rows, row_gradients
from zoo import tiny_tokenizer, zoo

RATE = 1e-3


@dataclass
class Run:
    """A finished run: its folder, its base model's folder, and the optimiser's true state by parameter name."""

    folder: Path
    base: Path
    state: dict[str, dict[str, Any]]

    def loaded(self) -> Any:
        return load_checkpoint(read_checkpoints(self.folder)[-1], load_model(str(self.base), device="cpu"))


def trained(place: Path, name: str, *, adapter: bool = False) -> Run:
    model = zoo()[name]()
    model.save_pretrained(place / "base")
    tiny_tokenizer().save_pretrained(place / "base")
    if adapter:
        config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"])
        model = get_peft_model(model, config)
    data = [{"input_ids": torch.arange(9) + i, "labels": torch.arange(9) + i} for i in range(8)]
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "max_steps": 5,
        "learning_rate": RATE,
        "save_steps": 2,
    }
    settings |= {"logging_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True, "weight_decay": 0.1}
    trainer = Trainer(model=model.train(), args=TrainingArguments(str(place / "run"), **settings), train_dataset=data)
    trainer.train()
    names = {id(parameter): n for n, parameter in model.named_parameters()}
    state = {names[id(p)]: {k: v.clone() for k, v in kept.items()} for p, kept in trainer.optimizer.state.items()}
    return Run(place / "run", place / "base", state)


@pytest.fixture(scope="module", params=["llama", "llama-tied", "gpt2", "gemma3", "adapter"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp(request.param)
    return trained(place, "llama" if request.param == "adapter" else request.param, adapter=request.param == "adapter")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("run"), "llama")


def test_steps_and_rates_are_those_of_the_run(llama: Run) -> None:
    found = read_checkpoints(llama.folder)
    assert [c.step for c in found] == [2, 4, 5]
    # linear decay over five steps: step n is taken at (1 - (n - 1) / 5) of the full rate
    assert [c.learning_rate for c in found] == pytest.approx([RATE * 0.8, RATE * 0.4, RATE * 0.2])
    assert read_checkpoints(llama.folder / "checkpoint-4") == found[1:2]


def test_a_rate_is_that_of_the_last_log_before(llama: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(llama.folder / "checkpoint-4", tmp_path / "run" / "checkpoint-4")
    state = json.loads((copy / TRAINER_STATE).read_text())
    kept = [entry for entry in state["log_history"] if entry["step"] in (1, 3)]
    (copy / TRAINER_STATE).write_text(json.dumps({**state, "log_history": kept}))
    assert read_checkpoints(tmp_path / "run")[0].learning_rate == pytest.approx(RATE * 0.6)
    (copy / TRAINER_STATE).write_text(json.dumps({**state, "log_history": [{"loss": 1.0, "step": 3}]}))
    with pytest.raises(DataError, match="no learning rate was logged up to step 4") as caught:
        read_checkpoints(tmp_path / "run")
    listed = str(caught.value).split("for every checkpoint: ")[1].rstrip(")")
    (tmp_path / "run" / LIST).write_text(listed)
    assert [(c.step, c.learning_rate) for c in read_checkpoints(tmp_path / "run")] == [(4, 2e-5)], "the remedy works"


def test_moments_are_those_of_each_parameter(run: Run) -> None:
    loaded = run.loaded()
    adam = read_moments(run.folder / "checkpoint-5", loaded.model, list(run.state))
    assert (adam.step, adam.beta1, adam.beta2, adam.epsilon) == (5, 0.9, 0.999, 1e-8)
    assert adam.first.keys() == run.state.keys()
    for name, kept in run.state.items():
        torch.testing.assert_close(adam.first[name], kept["exp_avg"], rtol=0, atol=0)
        torch.testing.assert_close(adam.second[name], kept["exp_avg_sq"], rtol=0, atol=0)


def test_tracin_is_the_weighted_sum_of_autograds_products(run: Run) -> None:
    base = load_model(str(run.base), device="cpu")
    encoder = find_method("tracin", {"sketch": "identity", "checkpoints": str(run.folder)}).require_vectors().bind(base)
    (batch,) = plan_batches(random_rows((9, 14, 6)), Window(64))
    vectors = encoder.encode(batch, "train").vectors
    found = sum(c.weight * vectors[c.name] @ vectors[c.name].T for c in encoder.columns)
    truth = torch.zeros(3, 3)
    for checkpoint in read_checkpoints(run.folder):
        rows = torch.stack([flat(load_checkpoint(checkpoint, base).model, row, run.state) for row in batch.rows])
        truth += checkpoint.learning_rate * (rows @ rows.T)
    torch.testing.assert_close(found, truth, rtol=2e-3, atol=1e-5)


def flat(model: Any, row: Any, names: Any) -> torch.Tensor:
    gradients = row_gradients(model, row)
    return torch.cat([gradients[name].flatten() for name in names])


def step(gradient: torch.Tensor, kept: dict[str, Any]) -> torch.Tensor:
    """Adam's sixth step on a gradient, with PyTorch's default constants."""
    m, v = 0.9 * kept["exp_avg"] + 0.1 * gradient, 0.999 * kept["exp_avg_sq"] + 0.001 * gradient**2
    return (m / (1 - 0.9**6)) / ((v / (1 - 0.999**6)).sqrt() + 1e-8)


def test_less_is_the_cosine_of_the_step_from_the_true_state(run: Run) -> None:
    base = load_model(str(run.base), device="cpu")
    last = run.folder / "checkpoint-5"
    settings = {"sketch": "identity", "checkpoints": str(last)}
    encoder = find_method("less", settings).require_vectors().bind(base)
    (batch,) = plan_batches(random_rows((9, 14, 6)), Window(64))
    (column,) = encoder.columns
    rows, queries = (encoder.encode(batch, role).vectors[column.name] for role in ("train", "query"))
    gradients = [row_gradients(run.loaded().model, row) for row in batch.rows]
    steps = torch.stack([torch.cat([step(g[n], run.state[n]).flatten() for n in run.state]) for g in gradients])
    plain = torch.stack([torch.cat([g[n].flatten() for n in run.state]) for g in gradients])
    truth = torch.nn.functional.normalize(steps, dim=1) @ torch.nn.functional.normalize(plain, dim=1).T
    torch.testing.assert_close(rows @ queries.T, truth, rtol=2e-3, atol=1e-4)


def edited(run: Run, folder: Path, change: Any) -> Path:
    raw = torch.load(run.folder / "checkpoint-5" / "optimizer.pt", weights_only=True)
    change(raw)
    torch.save(raw, folder / "optimizer.pt")
    return folder / "optimizer.pt"


def swapped(raw: Any) -> None:
    raw["param_groups"][0]["params"].reverse()


def one_less(raw: Any) -> None:
    raw["param_groups"][1]["params"].pop()


def quantised(raw: Any) -> None:
    raw["state"] = {number: {"state1": torch.zeros(2), "step": 5} for number in raw["state"]}


def one_group(raw: Any) -> None:
    """The groups of a hand-made optimiser: embeddings, then the rest; shapes alone tell them apart."""
    first, second = raw["param_groups"]
    first["params"], second["params"] = first["params"][:1], [*first["params"][1:], *second["params"]]


FAULTS = {
    "shapes": (swapped, MismatchError, "its shapes are not those of the model"),
    "count": (one_less, MismatchError, "the optimizer trained 20 tensors, and the model has 21"),
    "other optimiser": (quantised, DataError, "not the moments of an Adam that has stepped; there is state1, step"),
    "other order": (one_group, MismatchError, "its shapes are not those of the model"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_state_whose_parameters_are_not_certain_is_refused(fault: str, llama: Run, tmp_path: Path) -> None:
    change, kind, message = FAULTS[fault]
    with pytest.raises(kind, match=message):
        read_moments(edited(llama, tmp_path, change), llama.loaded().model, list(llama.state))


def test_groups_of_another_rule_are_told_by_shapes_or_refused(llama: Run, tmp_path: Path) -> None:
    """Norms with weight decay, in the model's order, as a rule of another version divides them."""
    model, names = llama.loaded().model, list(dict(llama.loaded().model.named_parameters()))
    raw = torch.load(llama.folder / "checkpoint-5" / "optimizer.pt", weights_only=True)
    state = [{k: v.clone() for k, v in llama.state[name].items()} for name in names]
    group = {k: v for k, v in raw["param_groups"][0].items() if k != "params"}
    torch.save(
        {"state": dict(enumerate(state)), "param_groups": [{**group, "params": list(range(len(names)))}]},
        tmp_path / "optimizer.pt",
    )
    adam = read_moments(tmp_path, model, names)
    assert all(torch.equal(adam.second[name], llama.state[name]["exp_avg_sq"]) for name in names)
    half = (
        [i for i, name in enumerate(names) if "layers.0" in name],
        [i for i, name in enumerate(names) if "layers.0" not in name],
    )
    groups = [{**group, "params": part} for part in half]
    torch.save({"state": dict(enumerate(state)), "param_groups": groups}, tmp_path / "optimizer.pt")
    with pytest.raises(MismatchError, match="its shapes fit the parameters in several ways"):
        read_moments(tmp_path, model, names)


def test_what_is_not_tensors_is_not_run(llama: Run, tmp_path: Path) -> None:
    torch.save({"state": {}, "param_groups": [Run]}, tmp_path / "optimizer.pt")
    with pytest.raises(DataError, match="no state of an optimizer"):
        read_moments(tmp_path, llama.loaded().model, ["x"])


SHARDS = {
    "zero": (["global_step4/zero_pp_rank_0_mp_rank_00_model_states.pt", "zero_to_fp32.py"], "zero_to_fp32.py . ."),
    "zero without its script": (["global_step4/x.pt"], "python -m deepspeed.utils.zero_to_fp32"),
    "fsdp": (["pytorch_model_fsdp_0/__0_0.distcp"], "accelerate merge-weights .*pytorch_model_fsdp_0"),
    "fsdp, whole under another name": (["pytorch_model_fsdp.bin"], "mv .*pytorch_model_fsdp.bin .*pytorch_model.bin"),
    "fsdp, local": (["pytorch_model_rank0.bin", "pytorch_model_rank1.bin"], "FULL_STATE_DICT"),
    "tensor parallel": (["mp_rank_00/model_optim_rng.pt"], "convert.py --model-type GPT .*--load-dir"),
    "tensor parallel, deepspeed": (["mp_rank_00/x.pt", "zero_to_fp32.py"], "python zero_to_fp32.py . ."),
    "inside fsdp": (["__0_0.distcp"], "accelerate merge-weights"),
}


@pytest.mark.parametrize("kind", SHARDS)
def test_weights_in_pieces_are_recognised(kind: str, llama: Run, tmp_path: Path) -> None:
    files, command = SHARDS[kind]
    copy = shutil.copytree(llama.folder / "checkpoint-4", tmp_path / "run" / "checkpoint-4")
    (copy / "model.safetensors").unlink()
    for file in files:
        (copy / file).parent.mkdir(exist_ok=True)
        (copy / file).touch()
    for load in (lambda: load_model(str(copy)), lambda: read_checkpoints(tmp_path / "run")):
        with pytest.raises(ModelError, match=f"its weights are .*{command}"):
            load()


def test_the_empty_tensors_of_zero_are_no_weights(llama: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(llama.folder / "checkpoint-4", tmp_path / "run" / "checkpoint-4")
    require_joined(copy)
    (copy / "global_step4").mkdir()
    require_joined(copy)
    save_file({"model.norm.weight": torch.zeros(0), "buffer": torch.ones(2)}, copy / "model.safetensors")
    command = "cd .*checkpoint-4 && rm model.safetensors && python -m deepspeed.utils.zero_to_fp32 . ."
    with pytest.raises(ModelError, match=f"ZeRO shards .'global_step4'.*{command}"):
        load_model(str(copy))


def test_an_optimizer_in_pieces_is_said(llama: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(llama.folder / "checkpoint-4", tmp_path / "checkpoint-4")
    (copy / "optimizer.pt").unlink()
    (copy / "optimizer_0").mkdir()
    (copy / "optimizer_0" / "__0_0.distcp").touch()
    with pytest.raises(DataError, match=r"the optimizer's state is in pieces .'optimizer_0"):
        read_moments(copy, llama.loaded().model, list(llama.state))


def at_rate_zero(checkpoint: Path) -> None:
    state = json.loads((checkpoint / TRAINER_STATE).read_text())
    logged = {"learning_rate": 0.0, "step": state["global_step"]}
    (checkpoint / TRAINER_STATE).write_text(json.dumps({**state, "log_history": [*state["log_history"][:-2], logged]}))


def test_a_checkpoint_of_rate_zero_is_left_out(
    llama: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("headwater"), "propagate", True)
    run, base = shutil.copytree(llama.folder, tmp_path / "run"), load_model(str(llama.base))
    shutil.rmtree(run / "checkpoint-2")
    at_rate_zero(run / "checkpoint-5")
    found = find_method("tracin", {"sketch": "identity", "checkpoints": str(run)}).require_vectors().bind(base)
    assert {column.name.split("@")[1] for column in found.columns} == {"step-4"}
    assert "theirs is 0: checkpoint-5" in caplog.text
    for folder in (run / "checkpoint-5", run):
        shutil.rmtree(run / "checkpoint-4", ignore_errors=True)
        alone = find_method("tracin", {"sketch": "identity", "checkpoints": str(folder)}).require_vectors()
        with pytest.raises(DataError, match="rate logged at checkpoint-5 is 0") as caught:
            alone.bind(base)
        (folder / LIST).write_text(str(caught.value).split(f"{LIST}: ")[1].rstrip(")"))
        assert {column.weight for column in alone.bind(base).columns} == {2e-5}, "the remedy works"
