"""A fingerprint changes with whatever changes the model's numbers, and with nothing else."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from headwater.core.errors import ModelError
from headwater.models.fingerprint import SAMPLE, contents_digest, model_fingerprint, parameter_count, weights_digest
from headwater.models.load import wrap_model
from zoo import tiny_loaded, tiny_tokenizer, zoo


def test_it_is_json_and_names_what_it_covers() -> None:
    fingerprint = tiny_loaded("llama").fingerprint
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    fields = {"architecture", "code", "configuration", "parameters", "dtype"}
    assert set(fingerprint) == fields | {"weights", "contents", "adapter", "tokenizer"}
    assert fingerprint["architecture"] == "LlamaForCausalLM"
    assert fingerprint["dtype"] == "float32"


@pytest.mark.parametrize("name", zoo())
def test_the_same_seed_gives_the_same_fingerprint_and_another_another(name: str) -> None:
    first, again, other = tiny_loaded(name), tiny_loaded(name), tiny_loaded(name, seed=1)
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint["weights"] != other.fingerprint["weights"]


def test_one_element_of_any_small_tensor_changes_it() -> None:
    model = zoo()["phi"]()
    small = {name: p for name, p in model.named_parameters() if p.numel() <= SAMPLE}
    before = weights_digest(small)
    for name, parameter in small.items():
        for position in (0, parameter.numel() // 2, parameter.numel() - 1):
            flat = parameter.data.view(-1)
            kept = flat[position].clone()
            flat[position] += 1e-3
            assert weights_digest(small) != before, (name, position)
            flat[position] = kept
    assert weights_digest(small) == before


def test_a_large_tensor_is_sampled_over_its_whole_length() -> None:
    tensor = torch.zeros(10 * SAMPLE + 3)
    before = weights_digest({"w": tensor})
    for start in range(0, tensor.numel() - 20, 997):
        changed = tensor.clone()
        changed[start : start + 20] = 1.0
        assert weights_digest({"w": changed}) != before
    changed = tensor.clone()
    changed[1] = 1.0
    assert weights_digest({"w": changed}) == before, "between two samples: documented as not seen"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_every_element_of_a_large_tensor_enters_the_digest_of_its_contents(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randint(1, 200, (300_007,), generator=generator).to(dtype)
    before = contents_digest({"w": tensor})
    assert contents_digest({"w": tensor.clone()}) == before
    assert contents_digest({"w": torch.stack([tensor, tensor], 1)[:, 0]}) == before, "memory layout"
    for position in [0, 1, 2, 3, 7, 8, 100_001, 299_999, 300_005, 300_006]:
        changed = tensor.clone()
        changed[position] += 1
        assert contents_digest({"w": changed}) != before, position
    if dtype.is_floating_point:
        flipped = tensor.clone()
        flipped[3::4] *= -1
        flipped[4:] = tensor[4:]
        assert contents_digest({"w": flipped}) != before, "one bit, the highest of 8 bytes"
    swapped = tensor.clone()
    swapped[[16, 32]] = swapped[[32, 16]] if swapped[16] != swapped[32] else swapped[[16, 32]] + 1
    assert contents_digest({"w": swapped}) != before
    assert contents_digest({"w": torch.cat([tensor[:1], tensor])[1:]}) == before, "a view into other memory"
    assert contents_digest({"w": tensor[None]}) != before
    assert contents_digest({"v": tensor}) != before


def test_buffers_that_are_saved_enter_the_contents() -> None:
    loaded = tiny_loaded("llama")
    loaded.model.register_buffer("codes", torch.arange(9))
    one = model_fingerprint(loaded.model, loaded.tokenizer, None)
    loaded.model.codes[3] += 1
    other = model_fingerprint(loaded.model, loaded.tokenizer, None)
    assert one["contents"] != other["contents"]
    assert one["weights"] == other["weights"] == loaded.fingerprint["weights"]


def test_name_shape_and_dtype_enter_and_order_and_memory_layout_do_not() -> None:
    a, b = torch.arange(6.0), torch.ones(2)
    digest = weights_digest({"a": a, "b": b})
    assert weights_digest({"b": b, "a": a}) == digest
    assert weights_digest({"a": torch.stack([a, a], 1)[:, 0], "b": b}) == digest
    assert weights_digest({"a": a, "c": b}) != digest
    assert weights_digest({"a": a.view(2, 3), "b": b}) != digest
    assert weights_digest({"a": a.double(), "b": b}) != digest
    assert weights_digest({"a": b.half() * 0}) != weights_digest({"a": b.bfloat16() * 0}), "the same bytes"
    for dtype in (torch.bfloat16, torch.float16, torch.uint8):
        assert weights_digest({"a": a.to(dtype)}) == weights_digest({"a": a.to(dtype).clone()})
    assert weights_digest({"a": torch.tensor(1.0)}) != weights_digest({"a": torch.tensor(2.0)})


def test_tied_weights_count_once() -> None:
    tied = zoo()["llama-tied"]()
    assert parameter_count(tied.parameters()) == sum(p.numel() for p in set(tied.parameters()))
    assert parameter_count(zoo()["llama"]().parameters()) > parameter_count(tied.parameters())


def test_an_adapter_and_its_weights_change_it() -> None:
    bare, adapted = tiny_loaded("llama"), tiny_loaded("llama-lora")
    assert bare.fingerprint["weights"] != adapted.fingerprint["weights"]
    assert adapted.fingerprint["architecture"] == "LlamaForCausalLM"
    name, parameter = next((n, p) for n, p in adapted.model.named_parameters() if "lora_B" in n)
    parameter.data.view(-1)[5] += 1e-3
    changed = model_fingerprint(adapted.model, adapted.tokenizer, None)
    assert changed["weights"] != adapted.fingerprint["weights"], name


def test_the_tokenizer_changes_it_alone() -> None:
    model = zoo()["llama"]()
    one = wrap_model(model, tiny_tokenizer()).fingerprint
    other = wrap_model(model, tiny_tokenizer(290)).fingerprint
    assert one["tokenizer"] != other["tokenizer"]
    assert {**one, "tokenizer": ""} == {**other, "tokenizer": ""}


def test_a_copy_has_the_same_fingerprint() -> None:
    loaded = tiny_loaded("gemma2")
    again = copy.deepcopy(loaded.model).to("cpu")
    assert model_fingerprint(again, loaded.tokenizer, None) == loaded.fingerprint


def test_offloaded_weights_are_refused() -> None:
    with pytest.raises(ModelError, match=r"w: the weights are offloaded"):
        weights_digest({"w": torch.empty(3, device="meta")})


@pytest.mark.parametrize(
    ("field", "value"), [("rms_norm_eps", 1e-3), ("hidden_act", "gelu"), ("rope_parameters", {"rope_theta": 5e5})]
)
def test_a_configuration_that_computes_something_else_is_another_model(field: str, value: object) -> None:
    loaded = tiny_loaded("llama")
    again = copy.deepcopy(loaded.model)
    was = getattr(again.config, field)
    setattr(again.config, field, {**was, **value} if isinstance(value, dict) else value)
    found = model_fingerprint(again, loaded.tokenizer, None)
    assert [name for name in found if found[name] != loaded.fingerprint[name]] == ["configuration"]


def test_how_a_model_generates_and_where_it_came_from_are_not_part_of_it() -> None:
    loaded = tiny_loaded("llama")
    again = copy.deepcopy(loaded.model)
    again.config.use_cache, again.config.pad_token_id = True, 5
    again.config._name_or_path, again.config.transformers_version = "elsewhere", "0"
    assert model_fingerprint(again, loaded.tokenizer, None) == loaded.fingerprint
