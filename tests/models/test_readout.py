"""A readout is the model's own, on every architecture of the zoo, or it is refused."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import pytest
import torch

from headwater.core.errors import ModelError
from headwater.models.load import LoadedModel, wrap_model
from headwater.models.logit_map import find_map
from headwater.models.readout import Readout, check_readout, find_readout
from zoo import VOCAB, WIDTH, tiny_loaded, tiny_tokenizer, zoo

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


def batch(*lengths: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(1, VOCAB, (len(lengths), max(lengths)), generator=generator)
    attention = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return input_ids * attention, attention


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", zoo())
def test_head_of_hidden_is_the_models_logits(name: str, dtype: torch.dtype) -> None:
    loaded = wrap_model(zoo()[name]().to(dtype), tiny_tokenizer())
    readout = find_readout(loaded)
    input_ids, attention = batch(20, 5, 13)
    found = readout.logits(readout.hidden(input_ids))
    expected = loaded.model(input_ids=input_ids, attention_mask=attention.long()).logits.to(found.dtype)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    error = (found - expected)[attention].abs().max() / expected[attention].abs().max()
    assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("name", zoo())
def test_hidden_of_real_tokens_does_not_depend_on_padding(name: str) -> None:
    readout = find_readout(tiny_loaded(name))
    input_ids, attention = batch(7, 24, 15)
    together = readout.hidden(input_ids)
    for item, length in enumerate(attention.sum(1).tolist()):
        alone = readout.hidden(input_ids[item : item + 1, :length])
        torch.testing.assert_close(together[item, :length], alone[0], rtol=1e-4, atol=1e-5)


def test_no_logits_are_computed_for_the_hidden_state() -> None:
    loaded = tiny_loaded("llama")
    readout = find_readout(loaded)
    loaded.model.lm_head.register_forward_hook(lambda *_: pytest.fail("the head ran"))
    readout.hidden(batch(4)[0])


def test_coverage_counts_the_head_and_says_if_it_is_tied() -> None:
    for name, tied in (("llama", False), ("llama-tied", True), ("gpt2", True), ("phi", False)):
        loaded = tiny_loaded(name)
        coverage = find_readout(loaded).coverage
        assert coverage.seen == VOCAB * WIDTH
        assert (coverage.tensors_seen, coverage.tensors_total) == (1, len(list(loaded.model.parameters())))
        assert ("its bias is not seen" in coverage.note) == (name == "phi")
        assert coverage.total == sum(p.numel() for p in loaded.model.parameters())
        assert ("tied" in coverage.note) == tied


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("gemma2", {"soft_cap": None}),
        ("gemma2", {"soft_cap": 50.0}),
        ("llama", {"soft_cap": 30.0}),
        ("cohere", {"scale": 1.0}),
        ("granite", {"scale": 8.0}),
        ("phi", {"bias": None}),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_wrong_head_is_refused(name: str, fault: dict[str, Any], dtype: torch.dtype) -> None:
    loaded = wrap_model(zoo()[name]().to(dtype), tiny_tokenizer(), name)
    readout = find_readout(loaded)
    check_readout(readout, loaded)
    with pytest.raises(ModelError, match=rf"{name}: logits differ from the model's by .* of the largest"):
        check_readout(dataclasses.replace(readout, **fault), loaded)


def test_a_soft_cap_is_seen_on_logits_far_below_it() -> None:
    model = zoo()["gemma2"]()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(0.01)
    loaded = wrap_model(model, tiny_tokenizer())
    readout = find_readout(loaded)
    with pytest.raises(ModelError, match=r"logits differ"):
        check_readout(dataclasses.replace(readout, soft_cap=None), loaded)


@pytest.mark.parametrize(
    ("name", "options", "scale", "soft_cap"),
    [
        ("recurrent_gemma", {"lru_width": WIDTH, "head_dim": 8, "logits_soft_cap": 30.0}, 1.0, 30.0),
        ("nanochat", {}, 1.0, 15.0),
        ("minicpm3", {"dim_model_base": 16}, 1.0, None),
    ],
)
def test_architectures_unknown_to_the_zoo_are_read_by_what_they_do(
    name: str, options: dict[str, Any], scale: float, soft_cap: float | None
) -> None:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    shape = {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    rest = {"num_key_value_heads": 4, "intermediate_size": 64, "initializer_range": 0.3, "pad_token_id": None}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**shape, **rest, **options))
    readout = find_readout(wrap_model(model, tiny_tokenizer()))
    assert (readout.scale, readout.soft_cap) == (scale, soft_cap)


def test_something_between_trunk_and_head_is_part_of_the_hidden_state() -> None:
    model = zoo()["llama"]()
    model.lm_head.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 0.9,))
    readout = find_readout(wrap_model(model, tiny_tokenizer()))
    model.lm_head.register_forward_hook(lambda *_: pytest.fail("the head ran"))
    input_ids, _ = batch(9, 5)
    states = readout.hidden(input_ids)
    torch.testing.assert_close(states, model.model(input_ids=input_ids).last_hidden_state * 0.9)


@pytest.mark.parametrize("name", zoo())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_the_map_of_the_logits_is_found_by_trying(name: str, dtype: torch.dtype) -> None:
    known = {"gemma2": (1.0, 30.0), "cohere": (0.0625, None), "granite": (0.125, None)}
    model = wrap_model(zoo()[name]().to(dtype), tiny_tokenizer()).model
    assert find_map(model, device=torch.device("cpu")) == known.get(name, (1.0, None))


@pytest.mark.parametrize(
    "change",
    [
        torch.nn.functional.relu,
        lambda z: z.clamp(-5, 5),
        lambda z: z + 1,
        lambda z: z.log_softmax(-1),
        lambda z: -z.abs(),
    ],
)
def test_any_other_map_is_refused(change: Any) -> None:
    class Changed(type(zoo()["llama"]())):  # type: ignore[misc]
        def forward(self, **given: Any) -> Any:
            out = super().forward(**given)
            out.logits = change(out.logits)
            return out

    model = zoo()["llama"]()
    model.__class__ = Changed
    with pytest.raises(ModelError, match=r"neither a multiple nor a soft-cap.*reads out in a way"):
        find_readout(wrap_model(model, tiny_tokenizer()))


def test_a_trunk_that_sees_later_tokens_is_refused() -> None:
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.3,
    )
    with pytest.raises(ModelError, match=r"changes by .* with the tokens after it.*not an encoder"):
        find_readout(wrap_model(BertLMHeadModel(config), tiny_tokenizer()))


def test_models_without_a_head_are_refused() -> None:
    from transformers import AutoModelForSequenceClassification

    llama = zoo()["llama"]()
    llama.config.pad_token_id = 0
    classifier = AutoModelForSequenceClassification.from_config(llama.config)
    for model in (llama.model, classifier):
        with pytest.raises(ModelError, match=r"no head over a vocabulary"):
            find_readout(wrap_model(model, tiny_tokenizer()))


def test_logits_that_are_not_finite_are_refused() -> None:
    model = zoo()["llama"]()
    model.lm_head.weight.data[3, 3] = float("inf")
    with pytest.raises(ModelError, match=r"not finite"):
        find_readout(wrap_model(model, tiny_tokenizer()))


def test_an_adapter_on_the_head_is_folded_in() -> None:
    from peft import LoraConfig, get_peft_model

    for base, options in (
        ("llama", {"target_modules": ["lm_head", "q_proj"]}),
        ("phi", {"target_modules": ["lm_head"]}),
        ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}),
    ):
        model = get_peft_model(zoo()[base](), LoraConfig(r=4, init_lora_weights=False, **options))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "modules_to_save" in name:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        loaded = wrap_model(model, tiny_tokenizer())
        readout = find_readout(loaded)
        input_ids, _ = batch(9)
        found = readout.logits(readout.hidden(input_ids))
        torch.testing.assert_close(found, loaded.model(input_ids=input_ids).logits, rtol=1e-4, atol=1e-4)


def test_a_packed_head_is_read_by_what_it_does() -> None:
    class Packed(torch.nn.Linear):
        """A head in 8 bits, as quantisation libraries make them."""

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return states @ (self.weight.to(states.dtype) / 100).T

    model = zoo()["llama"]()
    packed = Packed(WIDTH, VOCAB, bias=False)
    packed.weight = torch.nn.Parameter((model.lm_head.weight * 100).to(torch.int8), requires_grad=False)
    model.lm_head = packed
    readout = find_readout(wrap_model(model, tiny_tokenizer()))
    torch.testing.assert_close(readout.weight, packed.weight / 100)
    assert readout.coverage.seen == VOCAB * WIDTH


def test_virtual_prompt_tokens_are_refused() -> None:
    from peft import PromptTuningConfig, get_peft_model

    model = get_peft_model(zoo()["llama"](), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(ModelError, match=r"logits of shape \(3, 12, 300\), the model's have \(3, 15, 300\)"):
        find_readout(wrap_model(model, tiny_tokenizer()))


def test_a_half_precision_head_is_the_same_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    readout = find_readout(wrap_model(zoo()["gemma2"]().to(torch.bfloat16), tiny_tokenizer()))
    hidden = readout.hidden(batch(6)[0])
    whole = readout.logits(hidden)
    monkeypatch.setattr("headwater.models.readout._SLICE", 7)
    torch.testing.assert_close(readout.logits(hidden), whole, rtol=1e-6, atol=1e-6)
    assert readout.logits(hidden[0, 0]).shape == (VOCAB,)


def test_a_trunk_object_may_be_anything_that_gives_states() -> None:
    """The readout knows of the trunk only that it gives `last_hidden_state`."""
    readout = find_readout(tiny_loaded("llama"))
    states = torch.randn(1, 3, WIDTH)
    fake = dataclasses.replace(readout, trunk=lambda **_: types.SimpleNamespace(last_hidden_state=states))
    assert isinstance(fake, Readout)
    assert fake.hidden(batch(3)[0]) is states


def test_loaded_models_of_the_zoo_are_frozen() -> None:
    loaded = tiny_loaded("llama-lora")
    assert isinstance(loaded, LoadedModel)
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert not loaded.model.training
    assert loaded.model.config.use_cache is False
