"""Captured gradients are the gradients: against one autograd backward a row, for every architecture of the zoo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headwater.core.errors import DataError, UsageError
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.data.tokens import TokenRow
from headwater.features.capture import visit_gradients
from headwater.features.parameters import select_parameters
from headwater.features.row_losses import row_losses
from headwater.sketch.blocks import Gradient
from headwater.sketch.products import dense, formed, squared_norms
from oracles.gradient_oracles import everything_in_double, expected, random_rows, row_gradients, token_row
from zoo import tiny_loaded, zoo

WHOLE = Window(64)


def one_batch(rows: list[TokenRow], window: Window = WHOLE) -> TokenBatch:
    (batch,) = plan_batches(rows, window, tokens_per_batch=100_000)
    return batch


def prepared(name: str, dtype: torch.dtype = torch.float64):
    model = zoo()[name](seed=0).to(dtype).eval().requires_grad_(False)
    model.config._experts_implementation = "eager"
    return model


def captured(model, batch: TokenBatch, globs: str = "") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}

    def visit(gradient: Gradient) -> None:
        assert gradient.name not in found, "visited twice"
        found[gradient.name] = dense(gradient)
        norms = formed(gradient).flatten(1).square().sum(1)
        assert torch.allclose(squared_norms(gradient), norms, rtol=1e-6 if norms.dtype == torch.float64 else 0.05)

    visit_gradients(model, select_parameters(model, globs), batch, visit)
    return found


def assert_equal_to_oracle(model, batch: TokenBatch, found, rtol: float, window: Window = WHOLE) -> None:
    for i, row in enumerate(batch.rows):
        oracle = row_gradients(model, row, window.cuts(row.response))
        for name in select_parameters(model).shapes:
            truth = expected(oracle, name)
            mine = found[name][i].reshape(truth.shape) if name in found else torch.zeros_like(truth)
            assert (mine - truth).norm() <= rtol * truth.norm(), name


@pytest.mark.parametrize("name", sorted(zoo()))
def test_batched_gradients_equal_one_backward_a_row(name):
    model = prepared(name)
    batch = one_batch(random_rows((9, 14, 6)))
    with everything_in_double():
        found = captured(model, batch)
        assert_equal_to_oracle(model, batch, found, 1e-8)
    covered = select_parameters(model).coverage
    total = sum(p.numel() for p in model.parameters())
    assert covered.note == ""
    assert covered.seen == (total if name != "llama-lora" else 896)


@pytest.mark.parametrize("name", ["llama-tied", "gemma3", "gpt2", "llama-lora"])
def test_half_precision_stays_within_five_per_cent_of_its_own_backward(name):
    model = prepared(name, torch.bfloat16)
    batch = one_batch(random_rows((14, 14)))
    assert_equal_to_oracle(model, batch, captured(model, batch), 0.05)


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "olmoe"])
def test_long_rows_are_summed_over_their_windows(name):
    model, window = prepared(name), Window(8, 3)
    batch = one_batch(random_rows((21, 6, 13)), window)
    assert len(batch.item_row) > len(batch.rows)
    with everything_in_double():
        assert_equal_to_oracle(model, batch, captured(model, batch), 1e-8, window)


def test_batch_padding_and_order_do_not_matter():
    model = prepared("llama-tied")
    rows = random_rows((9, 14, 6, 14))
    together = captured(model, one_batch(rows))
    order = [row.row.id for row in one_batch(rows).rows]
    for row in rows:
        alone = captured(model, one_batch([row]))
        for name, values in alone.items():
            torch.testing.assert_close(together[name][order.index(row.row.id)], values[0], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(reentrant):
    model = prepared("llama", torch.float32)
    batch = one_batch(random_rows((9, 14)))
    plain = captured(model, batch)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.train()
    again = captured(model, batch)
    assert list(plain) == list(again), "visited as gradients arrive"
    for name, values in plain.items():
        torch.testing.assert_close(again[name], values)


def test_a_module_run_twice_adds_up():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(20, 4)
            self.mix = torch.nn.Linear(4, 4)
            self.head = torch.nn.Linear(4, 20)

        def forward(self, input_ids, attention_mask=None, use_cache=False):
            hidden = self.mix(torch.tanh(self.mix(self.embed(input_ids))))
            return type("Output", (), {"logits": self.head(hidden)})()

    torch.manual_seed(0)
    model = Twice().double().requires_grad_(False)
    batch = one_batch(random_rows((5, 7), vocab=20, prompt=1))
    assert_equal_to_oracle(model, batch, captured(model, batch), 1e-10)


def test_a_span_is_the_gradient_of_the_masked_loss():
    model = prepared("llama")
    (row,) = random_rows((12,))
    span = np.zeros(12, bool)
    span[[5, 9]] = True
    narrowed = token_row(row.ids, span, "r0")
    with everything_in_double():
        batch = one_batch([narrowed])
        assert_equal_to_oracle(model, batch, captured(model, batch), 1e-8)


def test_losses_are_the_models_own():
    model = prepared("llama", torch.float32)
    (row,) = random_rows((12,), prompt=1)
    batch = one_batch([row])
    table = visit_gradients(model, select_parameters(model), batch, lambda gradient: None)
    own = model(input_ids=batch.input_ids, labels=batch.input_ids).loss
    torch.testing.assert_close(row_losses(table, batch)[0], own)


def test_the_default_set_is_the_adapters_and_globs_reach_past_it():
    model = tiny_loaded("llama-lora").model
    default = select_parameters(model)
    assert all("lora_" in name for name in default.shapes)
    mlp = select_parameters(model, "model.layers.*.mlp.*, *lora_A*")
    assert len(mlp.shapes) == 2 * 3 + 4
    assert mlp.coverage.seen < mlp.coverage.total


def test_a_glob_that_matches_nothing_offers_names_that_exist():
    with pytest.raises(UsageError, match=r"model\.layers\.0\.mlp\.up_proj\.weight"):
        select_parameters(zoo()["llama"](), "model.layers.0.mlp.upproj.weight")


def test_globs_that_begin_with_an_exclamation_mark_leave_out():
    model = zoo()["llama"]()
    without = select_parameters(model, "!*.mlp.*").shapes
    assert set(without) == {name for name in select_parameters(model).shapes if ".mlp." not in name}
    assert set(select_parameters(model, "*.mlp.*, !*down_proj*").shapes) == {
        name for name in select_parameters(model, "*.mlp.*").shapes if "down_proj" not in name
    }
    with pytest.raises(UsageError, match=r"no parameter matches .*conv1d"):
        select_parameters(model, "!*.conv1d.*")
    with pytest.raises(UsageError, match="leaves no parameter"):
        select_parameters(model, "!*")


def test_coverage_counts_tensors_too():
    coverage = select_parameters(zoo()["llama"](), "*.mlp.*").coverage
    assert (coverage.tensors_seen, coverage.tensors_total) == (6, 21)
    assert "in 6 of 21 tensors" in str(coverage)


def test_a_row_without_targets_is_refused():
    row = token_row(np.arange(5), np.zeros(5, bool), "r3")
    with pytest.raises(DataError, match="'r3'"):
        captured(zoo()["llama"]().requires_grad_(False), one_batch([row]))
