"""Of every kind of adapter, what PEFT trains is read, and is autograd's gradient; or it is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from headwater.core.errors import ModelError
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.features import apart
from headwater.features.capture import visit_gradients
from headwater.features.parameters import select_parameters
from headwater.models.adapters import trained_names
from headwater.models.load import load_model
from headwater.sketch.products import dense
from oracles.gradient_oracles import expected, random_rows, row_gradients
from zoo import VOCAB, tiny_tokenizer, zoo

TASK: dict[str, Any] = {"task_type": "CAUSAL_LM"}
LAYERS: dict[str, Any] = TASK | {"target_modules": ["q_proj", "down_proj"]}


def lora(**changes: Any) -> peft.LoraConfig:
    return peft.LoraConfig(**(LAYERS | {"r": 3, "lora_alpha": 6} | changes))


EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
VIRTUAL: dict[str, Any] = TASK | {"num_virtual_tokens": 3}
KINDS: dict[str, tuple[str, Any]] = {
    "lora": ("llama", lora()),
    "lora, bias lora_only": ("qwen2", lora(bias="lora_only")),
    "lora, bias all": ("qwen2", lora(bias="all")),
    "lora_bias": ("llama", lora(lora_bias=True)),
    "dora": ("llama", lora(use_dora=True)),
    "dora on Conv1D": ("gpt2", lora(target_modules=["c_attn"], use_dora=True, fan_in_fan_out=True)),
    "lora on the embedding and the head": ("llama", lora(target_modules=["q_proj", "embed_tokens", "lm_head"])),
    "lora on the embedding, tied": ("llama-tied", lora(target_modules=["embed_tokens"], ensure_weight_tying=True)),
    "dora on the embedding": ("llama", lora(target_modules=["embed_tokens"], use_dora=True)),
    "embedding saved, tied": ("llama-tied", lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
    "norms saved": ("llama", lora(modules_to_save=["input_layernorm", "norm"])),
    "trainable tokens": ("llama", lora(trainable_token_indices=[5, 7, 250, 299])),
    "trainable tokens, tied": ("llama-tied", lora(trainable_token_indices=[5, 7, 250, 299])),
    "lora on experts": ("olmoe", lora(target_modules=["q_proj"], target_parameters=EXPERTS)),
    "oft": ("llama", peft.OFTConfig(**LAYERS, oft_block_size=8)),
    "boft": ("llama", peft.BOFTConfig(**LAYERS, boft_block_size=4)),
    "ia3": ("llama", peft.IA3Config(**LAYERS, feedforward_modules=["down_proj"])),
    "loha": ("llama", peft.LoHaConfig(**LAYERS, r=3)),
    "lokr": ("llama", peft.LoKrConfig(**LAYERS, r=3)),
    "vera": ("llama", peft.VeraConfig(**LAYERS, r=3)),
    "layer norms": ("llama", peft.LNTuningConfig(**TASK, target_modules=["input_layernorm", "norm"])),
    "a bank that all layers share": ("llama", peft.VBLoRAConfig(**LAYERS, r=3, num_vectors=8, vector_length=8, topk=2)),
    "prompt": ("llama", peft.PromptTuningConfig(**VIRTUAL)),
    "cpt": ("llama", peft.CPTConfig(**TASK, cpt_token_ids=[1, 2, 3], cpt_mask=[1] * 3, cpt_tokens_type_mask=[1] * 3)),
    "prefix": ("llama", peft.PrefixTuningConfig(**VIRTUAL)),
    "p-tuning": ("llama", peft.PromptEncoderConfig(**VIRTUAL, encoder_hidden_size=16)),
}


def tuned(base: str, config: Any, *, dtype: torch.dtype = torch.float64) -> tuple[Any, set[str]]:
    """A model with an adapter whose tensors have values of their own, frozen; and what PEFT marks as trained."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = peft.get_peft_model(zoo()[base](), config).to(dtype).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.requires_grad_(False)
    model.get_base_model().set_experts_implementation("eager")
    return model, trained


def read(model: Any, selection: Any, batch: TokenBatch) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    visit_gradients(model, selection, batch, lambda gradient: found.update({gradient.name: dense(gradient)}))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_all_that_was_trained_is_autograds(kind: str) -> None:
    model, trained = tuned(*KINDS[kind])
    assert trained_names(model) == trained
    selection = select_parameters(model)
    assert {name.partition("[")[0] for name in selection.shapes} == trained
    assert selection.coverage.note == ""
    (batch,) = plan_batches(random_rows((9, 14, 6)), Window(10, 4))
    found = read(model, selection, batch)
    for i, row in enumerate(batch.rows):
        truth = row_gradients(model, row, Window(10, 4).cuts(row.response))
        largest = max(float(truth[name].norm()) for name in trained)
        assert largest > 0
        for name in selection.shapes:
            right = expected(truth, name)
            mine = found[name][i].reshape(right.shape) if name in found else torch.zeros_like(right)
            torch.testing.assert_close(
                mine, right, rtol=1e-5, atol=1e-5 * largest, msg=lambda text, n=name: f"{n} {text}"
            )
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_of_several_adapters_the_active_ones_are_read() -> None:
    model, _ = tuned("llama", lora())
    model.add_adapter("second", lora(target_modules=["v_proj"]))
    assert all(".default." in name for name in select_parameters(model).shapes)
    model.base_model.set_adapter(["default", "second"])
    model.eval().requires_grad_(False)
    names = select_parameters(model.double()).shapes
    assert {name.split(".")[-2] for name in names} == {"default", "second"}
    model.set_adapter("second")
    model.requires_grad_(False)
    assert all(".second." in name for name in select_parameters(model).shapes)


def test_an_adapter_that_mixes_the_rows_of_a_batch_is_refused() -> None:
    model, _ = tuned("llama", peft.LilyConfig(**LAYERS, r=4))
    with pytest.raises(ModelError, match=r"a row's logits change by .* the rows beside it"):
        select_parameters(model)


def test_what_is_too_large_to_read_is_named_with_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    model, trained = tuned("llama", lora(target_modules=["q_proj"], trainable_token_indices=[61, 122, 183]))
    monkeypatch.setattr("headwater.features.replay.MOST", 50)
    monkeypatch.setattr(apart, "MOST", 50)
    note = select_parameters(model).coverage.note
    assert "NOT seen: 96 in 1 tensors" in note
    assert "trainable_tokens_delta" in note
    batch = apart_batch(model)
    truth = [row_gradients(model, row) for row in batch.rows]
    squared = {name: float(sum(one[name] for one in truth).square().sum()) for name in trained}
    (delta,) = (name for name in trained if "trainable_tokens" in name)
    assert squared[delta] > 0
    assert f"{100 * squared[delta] / sum(squared.values()):.2g} % of the squared gradient" in note


def apart_batch(model: Any) -> TokenBatch:
    from headwater.features.proof import proving_batch

    return proving_batch(model)


@pytest.mark.parametrize("kind", ["prompt", "oft", "lora, bias all", "trainable tokens, tied"])
def test_a_saved_adapter_gives_the_same_gradients(kind: str, tmp_path: Path) -> None:
    base, config = KINDS[kind]
    zoo()[base]().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    model, trained = tuned(base, config, dtype=torch.float32)
    model.save_pretrained(tmp_path / "adapter")
    loaded = load_model(str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), device="cpu")
    selection = select_parameters(loaded.model)
    (batch,) = plan_batches(random_rows((9, 14, 6), vocab=VOCAB), Window(64))
    found = read(loaded.model, selection, batch)
    kept = {name for name in trained if "mlp_head" not in name}
    assert set(selection.shapes) == kept
    for i, row in enumerate(batch.rows):
        truth = row_gradients(model, row)
        for name in kept & found.keys():
            torch.testing.assert_close(found[name][i].reshape(truth[name].shape), truth[name], rtol=1e-3, atol=1e-4)


def test_an_adapter_that_no_weight_can_hold_is_not_merged(tmp_path: Path) -> None:
    zoo()["llama"]().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    tuned("llama", KINDS["prompt"][1], dtype=torch.float32)[0].save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"PROMPT_TUNING cannot be merged.*without --merge"):
        load_model(str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), merge=True)
