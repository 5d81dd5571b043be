"""Metagradients: equal to what training again with another weight of a row does, for both optimisers.

The model is a GPT-2, because other families compute norms in float32 whatever their weights are.
"""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from headwater.core.errors import UsageError
from headwater.data.batches import Window, plan_batches
from headwater.data.tokens import Tokenization
from headwater.methods.magic import MagicOptions, magic, over_halves
from headwater.models.losses import token_losses
from headwater.training.fitting import TrainingRecipe, fit, plan_steps, rate_share
from headwater.training.metagradient import FlatModel, RecordedRun, metagradients, replay
from headwater.training.tiny import task_rows, train_tokenizer

CONTEXT = 32
RECIPES = {
    "adamw": TrainingRecipe(epochs=3, batch=4, rate=3e-3, clip=0.0),
    "adamw, clipped": TrainingRecipe(epochs=2, batch=0, tokens_per_batch=96, rate=3e-3, clip=0.5, weight_decay=0.1),
    "sgd": TrainingRecipe(epochs=3, batch=4, rate=0.2, optimizer="sgd", schedule="linear", clip=0.0),
}


TEXTS = ("Orla has a goat.", "Piet has a harp.", "Orla has a harp too.", "A goat ate the harp.", "Piet ate a fish.")


def world() -> tuple:
    tokenizer = train_tokenizer(TEXTS, 300)
    torch.manual_seed(0)
    size = {"n_positions": CONTEXT, "n_embd": 16, "n_layer": 1, "n_head": 2, "attn_implementation": "eager"}
    size |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = (
        GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, **size, initializer_range=0.2)
        )
        .double()
        .eval()
    )
    encode = Tokenization.of(tokenizer, max_tokens=CONTEXT).encode
    rows = encode(task_rows([{"id": f"r{i}", "text": text} for i, text in enumerate(TEXTS * 2)]))
    asked = [{"id": "q0", "prompt": "Piet has", "response": " a goat."}, {"id": "q1", "text": "Orla ate a fish."}]
    queries = [plan_batches(encode(task_rows([one])), Window(CONTEXT))[0] for one in asked]
    return model, rows, queries


def trained(model, rows, recipe: TrainingRecipe, weights: dict[str, float], query) -> float:
    """The oracle: PyTorch's own optimisers, a loss with a weight for each row, and the query's loss at the end."""
    model = copy.deepcopy(model)
    parameters = list(model.parameters())
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=recipe.rate, weight_decay=recipe.weight_decay)
    else:
        betas = (recipe.beta1, recipe.beta2)
        optimizer = torch.optim.AdamW(parameters, recipe.rate, betas, weight_decay=recipe.weight_decay)
    steps = plan_steps(rows, recipe, context=CONTEXT, seed=3)
    for number, (_, batches) in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * rate_share(number, len(steps), recipe)
        optimizer.zero_grad()
        total, tokens = 0.0, 0
        for batch in batches:
            losses = token_losses(
                model(input_ids=batch.input_ids).logits[batch.response], batch.targets[batch.response]
            )
            owner = batch.item_row[:, None].expand_as(batch.response)[batch.response]
            row_weights = torch.tensor([weights.get(row.row.id, 1.0) for row in batch.rows], dtype=torch.float64)
            total, tokens = total + (losses * row_weights[owner]).sum(), tokens + len(losses)
        (total / tokens).backward()
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
    with torch.no_grad():
        return float(
            token_losses(model(input_ids=query.input_ids).logits[query.response], query.targets[query.response]).mean()
        )


@pytest.mark.parametrize("name", RECIPES)
def test_a_row_s_score_is_what_a_little_more_weight_takes_off_the_loss(name: str) -> None:
    model, rows, queries = world()
    run = RecordedRun(model, rows, RECIPES[name], CONTEXT, 3)
    flat = FlatModel(model)
    scores = metagradients(flat, run, replay(flat, run), queries)
    step = 1e-5
    for place in (0, 4, 8):
        for column, query in enumerate(queries):
            more, less = (
                trained(model, rows, run.recipe, {rows[place].row.id: 1 + sign * step}, query) for sign in (1, -1)
            )
            assert float(scores[place, column]) == pytest.approx(-(more - less) / (2 * step), rel=1e-4)


def test_a_repeated_run_ends_where_the_training_ended() -> None:
    model, rows, _ = world()
    run = RecordedRun(model, rows, RECIPES["adamw, clipped"], CONTEXT, 3)
    end = replay(FlatModel(model), run).weights
    fit(model, rows, run.recipe, context=CONTEXT, seed=3)
    torch.testing.assert_close(end, FlatModel(model).weights(), rtol=1e-9, atol=1e-12)


def test_over_halves_every_row_has_the_mean_of_the_trainings_that_have_it() -> None:
    model, rows, queries = world()
    run = RecordedRun(model, rows, RECIPES["sgd"], CONTEXT, 3)
    flat, seen = FlatModel(model), []

    def derivatives(part: RecordedRun, done) -> torch.Tensor:
        found = metagradients(flat, part, done, queries)
        seen.append(([row.row.id for row in part.rows], found))
        return found

    values = over_halves(flat, run, MagicOptions("run.json", draws=4), derivatives)
    assert [len(ids) for ids, _ in seen] == [5, 5, 5, 5]
    assert set(seen[0][0]) ^ set(seen[1][0]) == {row.row.id for row in rows}
    for place, row in enumerate(rows):
        own = [found[ids.index(row.row.id)] for ids, found in seen if row.row.id in ids]
        assert len(own) == 2
        torch.testing.assert_close(values[place], sum(own) / 2)


def test_an_odd_number_of_halves_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot each have their complement"):
        magic(MagicOptions("run.json", draws=3))
