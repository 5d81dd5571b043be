"""Checkpoints stored with scales: read by their own quantiser, or refused; never codes taken for weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from headwater.core.errors import ModelError, UsageError
from headwater.models.load import load_model
from headwater.models.quantisers import ask_for_plain_weights
from headwater.models.stored import require_scales
from zoo import tiny_tokenizer, zoo

FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
INT8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
        }
    },
}


def stored(folder: Path, suffix: str, how: dict[str, Any] | None) -> dict[str, torch.Tensor]:
    """Save a model whose linear layers are float8 numbers with one scale each; the weights that they stand for."""
    zoo()["llama"]().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    plain, found = load_file(folder / "model.safetensors"), {}
    for name, weight in list(plain.items()):
        found[name] = weight
        if name.endswith("_proj.weight"):
            scale = (weight.abs().max() / 448).reshape(1, 1)
            plain[name], plain[name + suffix] = (weight / scale).to(torch.float8_e4m3fn), scale
            found[name] = plain[name].float() * scale
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    configure(folder, quantization_config=how)
    return found


def configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_float8_numbers_are_multiplied_by_their_scales(tmp_path: Path, dtype: str) -> None:
    right = stored(tmp_path, "_scale_inv", FP8)
    loaded = load_model(str(tmp_path), dtype=dtype, device="cpu")
    for name, parameter in loaded.model.named_parameters():
        assert parameter.dtype == getattr(torch, dtype)
        torch.testing.assert_close(parameter, right[name].to(parameter.dtype), msg=name)
    loaded.model.save_pretrained(tmp_path / "again")
    loaded.tokenizer.save_pretrained(tmp_path / "again")
    assert load_model(str(tmp_path / "again"), dtype=dtype).fingerprint == loaded.fingerprint


@pytest.mark.parametrize("how", [FP8, INT8, {"quant_method": "mxfp4"}])
def test_quantisers_that_can_are_asked_for_plain_weights(how: dict[str, Any]) -> None:
    config = zoo()["llama"]().config
    config.quantization_config = dict(how)
    ask_for_plain_weights(config, where="here")
    assert config.quantization_config == {**how, "dequantize": True}


def test_scales_without_a_quantiser_are_refused(tmp_path: Path) -> None:
    stored(tmp_path, "_scale_inv", None)
    with pytest.raises(ModelError, match=r"holds 14 tensors .* no place for: .*_scale_inv.*config.json"):
        load_model(str(tmp_path))
    configure(tmp_path, quantization_config={"quant_method": "modelopt"})
    with pytest.raises(ModelError, match=r"weights stored with 'modelopt', which no quantiser here reads"):
        load_model(str(tmp_path))


def test_codes_without_a_quantiser_are_refused(tmp_path: Path) -> None:
    stored(tmp_path, "_scale_inv", None)
    plain = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    packed = plain | {name: torch.zeros(plain[name].numel() // 2, 1, dtype=torch.uint8)}
    save_file(packed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"other shapes than config.json says .*quantization_config"):
        load_model(str(tmp_path))
    codes = {key.replace(".weight", ".qweight"): value for key, value in plain.items() if "_scale_inv" not in key}
    save_file(codes, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 21 weights: .*; it holds 21 tensors .*qweight.*quantization_config"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("how", "package"),
    [
        (INT8, "compressed-tensors"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "optimum"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "hqq"}, "hqq"),
    ],
)
def test_a_quantiser_that_is_not_installed_is_named(tmp_path: Path, how: dict[str, Any], package: str) -> None:
    if importlib.util.find_spec(package.replace("-", "_")) is not None:
        pytest.skip(f"{package} is installed here")
    stored(tmp_path, "_scale", how)
    with pytest.raises(ModelError, match=rf"(?i){package}"):
        load_model(str(tmp_path))


def test_what_is_quantised_is_not_quantised_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(tmp_path, "_scale_inv", FP8)
    monkeypatch.setattr("headwater.models.quantisers.importlib.util.find_spec", lambda _: True)
    with pytest.raises(UsageError, match=r"quantised already, with fp8 .leave --quantization out"):
        load_model(str(tmp_path), quantization="4bit")


def test_heads_that_predict_further_tokens_are_left_out_and_other_tensors_are_not(tmp_path: Path) -> None:
    zoo()["llama"]().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    more = {"model.layers.2.enorm.weight": torch.ones(3), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(weights | more, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensors that the model has no place for: model.layers.2.enorm.weight"):
        load_model(str(tmp_path))
    configure(tmp_path, num_nextn_predict_layers=1)
    load_model(str(tmp_path))
    save_file(weights | {"v_head.weight": torch.ones(3)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no place for: v_head.weight"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("left", ["all but one", "none"])
def test_float8_numbers_without_their_scales_are_refused(left: str, tmp_path: Path) -> None:
    stored(tmp_path, "_scale_inv", FP8)
    tensors = load_file(tmp_path / "model.safetensors")
    scales = [name for name in tensors if name.endswith("_scale_inv")]
    gone = scales[:1] if left == "all but one" else scales
    rest = {name: value for name, value in tensors.items() if name not in gone}
    save_file(rest, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"lacks the scales of {len(gone)} weights stored with fp8: model.layers.0"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_codes_of_the_shape_of_weights_are_refused(dtype: torch.dtype, file: str, tmp_path: Path) -> None:
    stored(tmp_path, "_scale_inv", None)
    tensors = load_file(tmp_path / "model.safetensors")
    plain = {name: value.float() for name, value in tensors.items() if not name.endswith("_scale_inv")}
    name = "model.layers.0.mlp.up_proj.weight"
    (tmp_path / "model.safetensors").unlink()
    if file.endswith("bin"):
        torch.save(plain | {name: plain[name].to(dtype)}, tmp_path / file)
    else:
        save_file(plain | {name: plain[name].to(dtype)}, tmp_path / file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"1 weights are stored as codes .*: {name} .*quantization_config"):
        load_model(str(tmp_path))


def test_codes_in_one_of_several_files_are_refused(tmp_path: Path) -> None:
    zoo()["llama"]().save_pretrained(tmp_path, max_shard_size="40KB")
    tiny_tokenizer().save_pretrained(tmp_path)
    load_model(str(tmp_path))
    file = sorted(tmp_path.glob("model-*.safetensors"))[1]
    save_file({k: v.to(torch.int8) for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"weights are stored as codes .I8., and no scales"):
        load_model(str(tmp_path))


def test_a_model_whose_own_dtype_is_float8_is_read(tmp_path: Path) -> None:
    model = zoo()["llama"]()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    tensors = {k: v.to(torch.float8_e4m3fn) for k, v in load_file(tmp_path / "model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"21 weights are stored as codes .F8_E4M3."):
        load_model(str(tmp_path))
    configure(tmp_path, dtype="float8_e4m3fn")
    loaded = load_model(str(tmp_path), device="cpu")
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, tensors[name].float())


def test_old_buffers_are_left_out(tmp_path: Path) -> None:
    model = zoo()["gpt2"]()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    mask = torch.ones(1, 1, 8, 8, dtype=torch.uint8)
    old = {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4), "transformer.h.0.attn.bias": mask}
    save_file(tensors | old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ids = torch.arange(1, 13)[None]
    assert torch.equal(load_model(str(tmp_path), device="cpu").model(ids).logits, model.eval()(ids).logits)


@pytest.mark.parametrize(
    ("prefix", "how"),
    [
        ("module.", "DistributedDataParallel .*model.module.save_pretrained"),
        ("_orig_mod.", "torch.compile .*model._orig_mod.save_pretrained"),
        ("base_model.model.", "PEFT .*merge_and_unload"),
    ],
)
def test_a_wrappers_prefix_is_named(prefix: str, how: str, tmp_path: Path) -> None:
    zoo()["llama"]().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    renamed = {prefix + name: value for name, value in tensors.items()}
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"hold '{prefix}', which {how}"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("weight", "scales"),
    [
        ("up_proj.weight", "up_proj.weight_scale_inv"),
        ("up_proj.weight", "up_proj.weight_scale"),
        ("up_proj.weight", "up_proj.scale"),
        ("up_proj.weight", "up_proj.SCB"),
        ("up_proj.weight", "up_proj.weight.SCB"),
        ("up_proj.weight", "up_proj.weight.absmax"),
        ("up_proj.weight", "up_proj.weight.quant_state.bitsandbytes__nf4"),
        ("up_proj.weight_packed", "up_proj.weight_scale"),
        ("experts.gate_up_proj", "experts.gate_up_proj_scale_inv"),
        ("experts.gate_up_proj_blocks", "experts.gate_up_proj_scales"),
    ],
)
def test_every_quantisers_scales_are_found_beside_its_codes(weight: str, scales: str, tmp_path: Path) -> None:
    config = zoo()["llama"]().config
    config.quantization_config = {"quant_method": "any"}
    config.save_pretrained(tmp_path)
    codes = {f"model.layers.0.mlp.{weight}": torch.zeros(4, 4, dtype=torch.uint8)}
    more = {"model.layers.0.mlp.up_proj.input_scale": torch.ones(1)}
    values = {f"model.layers.0.mlp.{scales}": torch.ones(4, dtype=torch.uint8)}
    save_file(codes | more | values, tmp_path / "model.safetensors")
    require_scales(None, config, str(tmp_path), None)
    save_file(codes | more, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=rf"lacks the scales of 1 weights .*{weight}"):
        require_scales(None, config, str(tmp_path), None)
