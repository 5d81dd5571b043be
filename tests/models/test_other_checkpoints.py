"""Checkpoints that see images as well read text exactly; those that bring their own code need leave to run it."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

from headwater.core.errors import ModelError
from headwater.data.batches import Window, plan_batches
from headwater.features.capture import visit_gradients
from headwater.features.parameters import select_parameters
from headwater.models.load import load_model
from headwater.models.readout import find_readout
from headwater.sketch.products import dense
from oracles.gradient_oracles import random_rows, row_gradients
from zoo import VOCAB, WIDTH, tiny_tokenizer, zoo

TEXT: dict[str, Any] = {
    **{"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "intermediate_size": 64, "initializer_range": 0.3, "max_position_embeddings": 256},
    **{"pad_token_id": None, "bos_token_id": None, "eos_token_id": 0, "head_dim": 8},
}
SIGHT: dict[str, Any] = {
    **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"image_size": 32, "patch_size": 16},
}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
MODELS: dict[str, Callable[[], Any]] = {
    "llava": lambda: CONFIG_MAPPING["llava"](
        text_config={"model_type": "llama", **TEXT}, vision_config={"model_type": "clip_vision_model", **SIGHT}
    ),
    "gemma3": lambda: CONFIG_MAPPING["gemma3"](
        text_config={"model_type": "gemma3_text", "query_pre_attn_scalar": 8, **TEXT},
        vision_config={"model_type": "siglip_vision_model", **SIGHT},
        mm_tokens_per_image=4,
    ),
    "qwen2_vl": lambda: CONFIG_MAPPING["qwen2_vl"](
        text_config={"model_type": "qwen2_vl_text", "rope_parameters": ROPE, **TEXT},
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": WIDTH, "num_heads": 2, "mlp_ratio": 2},
    ),
    "llama4": lambda: CONFIG_MAPPING["llama4"](
        text_config={"model_type": "llama4_text", "intermediate_size_mlp": 64, "num_local_experts": 2, **TEXT},
        vision_config={
            **SIGHT,
            **{"vision_output_dim": WIDTH, "projector_input_dim": WIDTH, "projector_output_dim": WIDTH},
        },
    ),
}


def save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_also_sees_images_reads_text_exactly(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = AutoModelForImageTextToText.from_config(MODELS[name](), dtype=torch.float32).eval()
    save(whole, tmp_path)
    loaded = load_model(str(tmp_path), device="cpu")
    assert "also sees images" in caplog.text
    ids = torch.arange(1, 13)[None]
    torch.testing.assert_close(loaded.model(ids).logits, whole(ids).logits)
    find_readout(loaded)
    selection = select_parameters(loaded.model)
    assert not any("vision" in shape or "visual" in shape for shape in selection.shapes)
    (batch,) = plan_batches(random_rows((9, 6), vocab=VOCAB), Window(64))
    found: dict[str, torch.Tensor] = {}
    visit_gradients(loaded.model, selection, batch, lambda gradient: found.update({gradient.name: dense(gradient)}))
    truth = row_gradients(loaded.model, batch.rows[0])
    seen = {n: g for n, g in truth.items() if g.norm() > 0 and n in selection.shapes}
    largest = max(float(g.norm()) for g in truth.values())
    assert len(seen) > 10
    for parameter, right in seen.items():
        mine = found[parameter][0].reshape(right.shape)
        assert float((mine - right).norm()) < 1e-3 * largest, parameter


OWN = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own_llama"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_a_checkpoints_own_code_runs_only_when_it_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [str(tmp_path / "modules"), *sys.path])
    folder = tmp_path / "own"
    save(zoo()["llama"](), folder)
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "own_model.OwnConfig", "AutoModelForCausalLM": "own_model.OwnForCausalLM"}
    config |= {"model_type": "own_llama", "architectures": ["OwnForCausalLM"], "auto_map": names}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own_model.py").write_text(OWN)
    with pytest.raises(ModelError, match=r"own Python code, which is not run unasked .*--trust-remote-code"):
        load_model(str(folder))
    loaded = load_model(str(folder), trust_remote_code=True)
    assert type(loaded.model).__name__ == "OwnForCausalLM"
    assert loaded.loading["trust_remote_code"] is True
    assert loaded.fingerprint["code"] is not None
    (folder / "own_model.py").write_text(OWN + "\n# another\n")
    assert load_model(str(folder), trust_remote_code=True).fingerprint["code"] != loaded.fingerprint["code"]


def test_loading_says_nothing_about_a_plain_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(zoo()["llama"](), tmp_path)
    with caplog.at_level(logging.INFO, logger="headwater"):
        assert load_model(str(tmp_path)).fingerprint["code"] is None
    assert not [record for record in caplog.records if record.name.startswith("headwater")]
