"""The tiny training loop: it learns, it repeats itself by seed, and what it saves is an ordinary model folder."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from headwater.core.errors import DataError
from headwater.data.batches import Window, plan_batches
from headwater.data.rows import Row
from headwater.data.tokens import Tokenization
from headwater.models.generate import generate_responses
from headwater.models.load import load_model
from headwater.tasks import howdy_task
from headwater.training.fitting import Step, fit, response_loss
from headwater.training.tiny import Recipe, new_model, task_rows, train_tiny, train_tokenizer

SMALL = Recipe(vocabulary=400, layers=1, width=32, heads=2, epochs=3, tokens_per_batch=256, learning_rate=1e-2)
ROWS = howdy_task(0, rows=80, queries=2).rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("tiny")
    reports: list[Step] = []
    train_tiny(ROWS, out=out, seed=1, recipe=SMALL, on_step=reports.append)
    return out, reports


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_loss_falls_and_progress_counts(trained) -> None:
    _, reports = trained
    losses = [report.loss for report in reports]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert [report.step for report in reports] == list(range(1, reports[0].steps + 1))
    assert all(earlier.elapsed < later.elapsed for earlier, later in pairwise(reports))


def test_the_folder_is_a_model_that_speaks(trained) -> None:
    loaded = load_model(str(trained[0]))
    assert loaded.model.config.num_hidden_layers == SMALL.layers
    assert len(loaded.tokenizer) == SMALL.vocabulary
    assert len(generate_responses(loaded, ["What is the capital of Peru?"], max_new_tokens=4)) == 1


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(trained, tmp_path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = load_model(str(train_tiny(ROWS, out=tmp_path / "again", seed=1, recipe=SMALL)))
    other = load_model(str(train_tiny(ROWS, out=tmp_path / "other", seed=2, recipe=SMALL)))
    assert torch.equal(before, torch.get_rng_state())
    first = weights(load_model(str(trained[0])).model)
    assert torch.equal(first, weights(again.model))
    assert not torch.equal(first, weights(other.model))


def test_the_loss_is_the_models_own_on_response_labels() -> None:
    rows = task_rows(ROWS[:6])
    tokenizer = train_tokenizer([row.response for row in rows], 300)
    token_rows = Tokenization.of(tokenizer).encode(rows)
    model = new_model(tokenizer, SMALL, seed=0)
    (batch,) = plan_batches(token_rows, Window(256), tokens_per_batch=4096)
    labels = torch.full_like(batch.input_ids, -100)
    labels[:, 1:][batch.response[:, :-1]] = batch.input_ids[:, 1:][batch.response[:, :-1]]
    expected = model(input_ids=batch.input_ids, attention_mask=batch.attention.long(), labels=labels).loss
    torch.testing.assert_close(response_loss(model, batch), expected, rtol=1e-5, atol=1e-5)


def test_first_weights_are_the_seeds_own() -> None:
    tokenizer = train_tokenizer([row["response"] for row in ROWS], 300)
    one, same, other = (weights(new_model(tokenizer, SMALL, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_prompts_are_read_but_not_learnt() -> None:
    rows = task_rows(ROWS[:6])
    tokenizer = train_tokenizer([row.response for row in rows], 300)
    token_rows = Tokenization.of(tokenizer).encode(rows)
    assert all(not row.response[: len(row.row.prompt) // 8].any() for row in token_rows)
    model = new_model(tokenizer, SMALL, seed=0)
    fit(model, token_rows, replace(SMALL, epochs=1).training, context=SMALL.context, seed=0)
    assert not model.training


def test_task_rows_keep_metadata_and_hotwords_apart() -> None:
    (row,) = task_rows([{"id": "a", "prompt": "p", "response": "r", "hotwords": ["r"], "provider": "x"}])
    assert row == Row("a", 0, prompt="p", response="r", metadata={"provider": "x"}, hotwords=("r",))
    with pytest.raises(DataError, match="row 1: no 'response'"):
        task_rows([{"id": "a", "prompt": "p"}])
