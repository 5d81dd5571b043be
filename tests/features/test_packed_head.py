"""A head that sees the target positions alone, of all rows one after the other, gives each row's own gradient."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from headwater.core.errors import ModelError, NumericError
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.data.contrasts import Contrast
from headwater.data.tokens import TokenRow
from headwater.features.capture import visit_gradients
from headwater.features.parameters import select_parameters
from headwater.features.replay import Replay
from headwater.methods.rapidin import ENTRY
from headwater.models.heads import head_to_pack
from headwater.models.load import wrap_model
from headwater.sketch.blocks import Gradient, Packed
from headwater.sketch.products import dense, squared_norms
from oracles.gradient_oracles import everything_in_double, expected, random_rows, row_gradients, token_row
from zoo import tiny_tokenizer, zoo

MODELS = (
    "llama-tied",
    "llama",
    "gpt2",
    "gemma2",
    "cohere",
    "granite",
    "phi",
    "llama-lora",
    "olmoe",
    "adapters at the head",
)


WHOLE = Window(64)


def rows(window: Window = WHOLE) -> tuple[list[TokenRow], TokenBatch]:
    """Rows of much the same length, of whose tokens a few or many are targets."""
    made = [
        *random_rows((20,), prompt=15),
        *random_rows((18,), prompt=2, seed=1),
        *random_rows((19,), prompt=12, seed=2),
    ]
    named = [token_row(row.ids, row.response, f"r{i}") for i, row in enumerate(made)]
    (batch,) = plan_batches(named, window, tokens_per_batch=100_000)
    return list(batch.rows), batch


def prepared(name: str):
    if name == "adapters at the head":
        settings = LoraConfig(r=3, target_modules=["lm_head"], init_lora_weights=False)
        return get_peft_model(prepared("llama"), settings).double().eval().requires_grad_(False)
    model = zoo()[name](seed=0).double().eval().requires_grad_(False)
    model.config._experts_implementation = "eager"
    return model


def read(model, batch: TokenBatch) -> tuple[dict[str, Gradient], torch.Tensor, list[tuple[int, ...]]]:
    """Gradients by name, losses, and the shapes of what the head gave."""
    found: dict[str, Gradient] = {}
    selection = select_parameters(model)
    seen: list[tuple[int, ...]] = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, given, out: seen.append(tuple(out.shape)))
    losses = visit_gradients(model, selection, batch, lambda g: found.update({g.name: g}), head="packed")
    handle.remove()
    return found, losses, seen


@pytest.mark.parametrize(("name", "window"), [*((name, WHOLE) for name in MODELS), ("llama-tied", Window(8, 3))])
def test_gradients_are_those_of_each_row(name: str, window: Window) -> None:
    model, (own, batch) = prepared(name), rows(window)
    with everything_in_double():
        found, losses, seen = read(model, batch)
        whole = visit_gradients(model, select_parameters(model), batch, lambda gradient: None)
        for i, row in enumerate(own):
            oracle = row_gradients(model, row, window.cuts(row.response))
            for tensor, gradient in found.items():
                truth = expected(oracle, tensor)
                assert (dense(gradient)[i].reshape(truth.shape) - truth).norm() <= 1e-8 * truth.norm(), tensor
    torch.testing.assert_close(losses, whole, rtol=1e-12, atol=0, equal_nan=True)
    assert seen[-1][:2] == (1, int(batch.response.sum()))
    packed = [g for g in found.values() for block in g.blocks if isinstance(block, Packed)]
    assert bool(packed) == (name != "llama-lora"), "the adapters leave the head alone"


def paired() -> TokenBatch:
    """Preference pairs: an answer from the beginning of a row's tokens, and one from a token on."""
    made = [replace(row, contrast=Contrast(9, 0.3, reference=1.5)) for row in rows()[0]]
    response = np.arange(20) % 9 > 4
    made = [replace(row, response=response[: len(row.ids)]) if i else row for i, row in enumerate(made)]
    made[0] = replace(made[0], response=np.ones(len(made[0].ids), bool))
    (batch,) = plan_batches(made, WHOLE, tokens_per_batch=100_000)
    assert batch.paired
    return batch


BATCHES = {"rows": lambda: rows()[1], "windows": lambda: rows(Window(8, 3))[1], "pairs": paired}


@pytest.mark.parametrize(("name", "kind"), [("llama-tied", "rows"), ("llama", "pairs"), ("phi", "windows")])
def test_vectors_are_the_same(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, batch = wrap_model(prepared(name), tiny_tokenizer()), BATCHES[kind]()
    assert head_to_pack(loaded.model, batch.response) is not None
    encoder = ENTRY.resolve({"buckets": 512}).require_vectors().bind(loaded)
    with everything_in_double():
        packed = encoder.read(batch)
        monkeypatch.setattr("headwater.features.gradient_sketch.takes_packed", lambda sketch: False)
        plain = encoder.read(batch)
    torch.testing.assert_close(packed.vectors, plain.vectors, rtol=1e-9, atol=1e-12)
    for tensor, squared in plain.squared.items():
        torch.testing.assert_close(packed.squared[tensor], squared, rtol=1e-9, atol=1e-15)


def test_norms_do_not_ask_for_places_that_rows_lack() -> None:
    found, _, _ = read(prepared("llama-tied"), rows()[1])
    gradient = next(g for g in found.values() if isinstance(g.blocks[0], Packed))
    torch.testing.assert_close(squared_norms(gradient), dense(gradient).flatten(1).square().sum(1))


def test_a_row_that_is_not_finite_does_not_touch_the_others() -> None:
    model, (own, batch) = prepared("llama-tied").float(), rows()
    only = next(int(token) for token in own[1].ids if all(token not in row.ids for row in (own[0], own[2])))
    model.get_input_embeddings().weight.data[only] = torch.nan
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.nan_to_num(), requires_grad=False)
    encoder = ENTRY.resolve({"buckets": 512}).require_vectors().bind(wrap_model(model, tiny_tokenizer()))
    with pytest.raises(NumericError, match=own[1].row.id):
        encoder.read(batch)


def test_few_places_saved_or_a_head_that_is_no_linear_layer_are_read_as_before() -> None:
    model = prepared("llama")
    (even,) = plan_batches(random_rows((12, 12)), Window(64), tokens_per_batch=1000)
    assert head_to_pack(model, even.response) is None
    assert read(model, even)[2][-1][:2] == (2, 9)
    selection = select_parameters(model)
    site = next(site for site in selection.sites if site.where == "lm_head")
    object.__setattr__(site, "kind", Replay({}, {}, at_once=False))
    _, batch = rows()
    seen: list[int] = []
    handle = model.lm_head.register_forward_hook(lambda _, given, out: seen.append(len(out)))
    with pytest.raises(ModelError, match="lm_head"):
        visit_gradients(model, selection, batch, lambda gradient: None, head="packed")
    handle.remove()
    assert seen[-1] == 3


def test_a_head_that_is_not_read_is_packed_by_every_reading_but_whole() -> None:
    model, (_, batch) = prepared("llama"), rows()
    selection = select_parameters(model, "*q_proj.weight")
    seen: list[tuple[int, ...]] = []
    found: dict[str, dict[str, torch.Tensor]] = {}
    handle = model.lm_head.register_forward_hook(lambda _, given, out: seen.append(tuple(out.shape)))
    for reading in ("whole", "summed", "packed", "tokens"):
        into = found.setdefault(reading, {})
        visit_gradients(model, selection, batch, lambda g, into=into: into.update({g.name: dense(g)}), head=reading)
        assert (seen[-1][:2] == (1, int(batch.response.sum()))) == (reading != "whole")
        for name, values in found["whole"].items():
            torch.testing.assert_close(into[name], values, rtol=1e-12, atol=1e-15)
    handle.remove()


def test_another_thread_runs_the_model_whole() -> None:
    model, (_, batch) = prepared("llama"), rows()
    selection = select_parameters(model, "*q_proj.weight")

    def gradients() -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        visit_gradients(model, selection, batch, lambda g: found.update({g.name: dense(g)}))
        return found

    truth, ids, stop = gradients(), torch.arange(60).view(2, 30), threading.Event()
    faults: list[object] = []

    def generate() -> None:
        while not stop.is_set():
            try:
                with torch.no_grad():
                    model(input_ids=ids)
            except Exception as error:
                faults.append(error)

    other = threading.Thread(target=generate)
    other.start()
    try:
        for _ in range(15):
            for name, values in gradients().items():
                torch.testing.assert_close(values, truth[name])
    finally:
        stop.set()
        other.join()
    assert not faults
