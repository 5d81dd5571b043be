"""Loading from folders: what is saved comes back, what does not fit is refused in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.core.errors import ModelError, UsageError
from headwater.models.load import load_model, wrap_model
from headwater.models.readout import find_readout
from zoo import WIDTH, tiny_tokenizer, zoo

IDS = torch.arange(1, 13)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    zoo()["llama"]().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapters") / "lora"
    zoo()["llama-lora"]().save_pretrained(path)
    return path


@pytest.mark.parametrize("name", [n for n in zoo() if n != "llama-lora"])
def test_a_saved_model_comes_back_with_its_fingerprint(name: str, tmp_path: Path) -> None:
    before = wrap_model(zoo()[name](), tiny_tokenizer())
    before.model.save_pretrained(tmp_path)
    before.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    # transformers may choose another tokenizer class for an architecture than the one that was saved beside it
    ours = {"tokenizer": loaded.fingerprint["tokenizer"]}
    assert loaded.fingerprint == {**before.fingerprint, **ours}
    assert load_model(str(tmp_path)).fingerprint == loaded.fingerprint
    assert loaded.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert torch.equal(find_readout(loaded).weight.cpu(), find_readout(before).weight)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_the_dtype_asked_for_is_the_dtype_of_every_parameter(folder: Path, adapter: Path, dtype: str) -> None:
    for merge in (False, True):
        loaded = load_model(str(folder), adapter=str(adapter), merge=merge, dtype=dtype)
        assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, dtype)}
        assert loaded.fingerprint["dtype"] == dtype


def test_dtype_auto_is_the_one_saved(folder: Path, tmp_path: Path) -> None:
    load_model(str(folder), dtype="bfloat16").model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert load_model(str(tmp_path), dtype="auto").fingerprint["dtype"] == "bfloat16"
    assert load_model(str(tmp_path)).fingerprint["dtype"] == "float32"


def test_a_kept_adapter_says_what_a_merged_one_says(folder: Path, adapter: Path) -> None:
    bare = load_model(str(folder), dtype="float64", device="cpu")
    kept = load_model(str(folder), adapter=str(adapter), dtype="float64", device="cpu")
    merged = load_model(str(folder), adapter=str(adapter), merge=True, dtype="float64", device="cpu")
    logits = [m.model(input_ids=IDS).logits for m in (bare, kept, merged)]
    torch.testing.assert_close(logits[1], logits[2], rtol=1e-10, atol=1e-10)
    assert (logits[0] - logits[1]).abs().max() > 0.1
    assert kept.fingerprint["adapter"] == merged.fingerprint["adapter"] is not None
    assert len({m.fingerprint["weights"] for m in (bare, kept, merged)}) == 3
    assert kept.adapter == str(adapter)


def test_an_adapter_is_known_by_its_weights_not_by_its_folder(folder: Path, adapter: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(adapter, tmp_path / "elsewhere")
    fingerprints = [load_model(str(folder), adapter=str(a)).fingerprint for a in (adapter, moved)]
    assert fingerprints[0] == fingerprints[1]


def refit(adapter: Path, target: Path, **changes: Any) -> str:
    shutil.copytree(adapter, target)
    config = json.loads((target / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps(config | changes))
    return str(target)


def test_an_adapter_that_does_not_fit_is_refused(folder: Path, adapter: Path, tmp_path: Path) -> None:
    gpt2 = tmp_path / "gpt2"
    zoo()["gpt2"]().save_pretrained(gpt2)
    tiny_tokenizer().save_pretrained(gpt2)
    with pytest.raises(ModelError, match=r"does not fit.*_proj.*base model it was trained on"):
        load_model(str(gpt2), adapter=str(adapter))
    with pytest.raises(ModelError, match=r"does not fit.*size mismatch.*\[4, 32\].*\[8, 32\]"):
        load_model(str(folder), adapter=refit(adapter, tmp_path / "rank", r=8))
    with pytest.raises(ModelError, match=r"adapter tensors find no module in the model: .*v_proj"):
        load_model(str(folder), adapter=refit(adapter, tmp_path / "fewer", target_modules=["q_proj"]))
    more = refit(adapter, tmp_path / "more", target_modules=["q_proj", "k_proj", "v_proj"])
    with pytest.raises(ModelError, match=r"adapter tensors are not in the file: .*k_proj"):
        load_model(str(folder), adapter=more)
    with pytest.raises(ModelError, match=r"no adapter_config.json"):
        load_model(str(folder), adapter=str(folder))
    with pytest.raises(ModelError, match=r"nowhere"):
        load_model(str(folder), adapter="nowhere")


def test_places_that_hold_no_model_are_refused(folder: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no such model folder.*did you mean '.*tiny-llama'"):
        load_model(str(folder.parent / "tiny-lama"))
    with pytest.raises(ModelError, match=r"an adapter, not a model"):
        load_model(str(adapter))
    with pytest.raises(ModelError, match=r"no config.json in the model folder"):
        load_model(str(tmp_path))
    with pytest.raises(ModelError, match=r"a file is not a model folder"):
        load_model(str(folder / "config.json"))
    with pytest.raises(ModelError, match=r"no such folder, and HF_HUB_OFFLINE is set.*unset HF_HUB_OFFLINE"):
        load_model("someone/something")


def test_a_bare_name_offers_the_folder_beside_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ModelError, match=r"did you mean 'tiny-llama'"):
        load_model("tiny-lama")


def test_incomplete_checkpoints_are_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    tiny_tokenizer().save_pretrained(tmp_path)
    llama = zoo()["llama"]()
    llama.model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lacks 1 weights: lm_head.weight"):
        load_model(str(tmp_path))
    AutoModelForSequenceClassification.from_config(llama.config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"not an encoder or a classifier"):
        load_model(str(tmp_path))
    torn = shutil.copytree(folder, tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"torn: the model cannot be loaded"):
        load_model(str(torn))
    (torn / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"torn: the model cannot be loaded"):
        load_model(str(torn))


def test_encoder_decoders_are_refused(tmp_path: Path) -> None:
    from transformers import T5Config

    T5Config(vocab_size=300, d_model=WIDTH).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"an encoder-decoder is not a causal language model"):
        load_model(str(tmp_path))


def test_options_that_make_no_sense_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown dtype 'bf16'"):
        load_model(str(folder), dtype="bf16")
    with pytest.raises(UsageError, match=r"beside device_map"):
        load_model(str(folder), device="cpu", device_map="auto")
    with pytest.raises(ModelError, match=r"device 'gpu' is not here"):
        load_model(str(folder), device="gpu")
    with pytest.raises(UsageError, match=r"unknown quantization '2bit'"):
        load_model(str(folder), quantization="2bit")


def test_quantization_without_its_library_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.models.quantisers.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"quantization '4bit' needs bitsandbytes .pip install bitsandbytes"):
        load_model(str(folder), quantization="4bit")


def test_a_device_map_places_the_model(folder: Path) -> None:
    loaded = load_model(str(folder), device_map={"": "cpu"})
    assert loaded.device == torch.device("cpu")
    assert loaded.fingerprint == load_model(str(folder)).fingerprint


def test_a_tokenizer_without_pad_token_gets_one_it_has() -> None:
    bare = tiny_tokenizer(pad=False)
    loaded = wrap_model(zoo()["llama"](), bare)
    assert loaded.tokenizer.pad_token_id == loaded.tokenizer.eos_token_id
    assert bare.pad_token_id is None, "the caller's tokenizer is left alone"
    assert len(loaded.tokenizer) == len(bare)
    endless = tiny_tokenizer(pad=False)
    endless.eos_token = None
    loaded = wrap_model(zoo()["llama"](), endless)
    assert loaded.tokenizer.pad_token_id == 0
    assert loaded.tokenizer.get_vocab() == bare.get_vocab()
    text = "The weather, <|end|> and !"
    assert loaded.tokenizer(text)["input_ids"] == bare(text)["input_ids"]


def test_a_pad_token_the_model_cannot_embed_is_replaced() -> None:
    tokenizer = tiny_tokenizer(pad=False)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == 300
    assert wrap_model(zoo()["llama"](), tokenizer).tokenizer.pad_token_id == 0


def test_another_models_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the tokenizer has 300 tokens, the model embeds 280"):
        wrap_model(zoo()["llama"](vocab_size=280), tiny_tokenizer())
    tiny_tokenizer(290).save_pretrained(tmp_path)
    assert len(load_model(str(folder), tokenizer=str(tmp_path)).tokenizer) == 290
    with pytest.raises(ModelError, match=r"no .*tokenizer"):
        load_model(str(folder), tokenizer=str(tmp_path / "none"))
