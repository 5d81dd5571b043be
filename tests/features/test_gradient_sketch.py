"""The laws of RapidIn: what an uncompressed score is, how well a compressed one keeps it, and that tokens add up."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import LlamaConfig, LlamaForCausalLM

from headwater.core.errors import NumericError, UsageError
from headwater.data.batches import TokenBatch, Window, plan_batches
from headwater.data.tokens import TokenRow
from headwater.features.exact import exact_scores
from headwater.features.gradient_sketch import COLUMN, GradientSketch
from headwater.methods.catalog import find_method
from headwater.methods.rapidin import ENTRY
from headwater.models.load import LoadedModel, wrap_model
from oracles.gradient_oracles import ideal_count_sketch, random_rows, row_gradients, token_row
from zoo import SENTENCES, tiny_loaded, tiny_tokenizer

WHOLE = Window(64)


def one_batch(rows: list[TokenRow]) -> TokenBatch:
    (batch,) = plan_batches(rows, WHOLE, tokens_per_batch=100_000)
    return batch


def bound(loaded: LoadedModel, **settings) -> GradientSketch:
    encoder = ENTRY.resolve(settings).require_vectors().bind(loaded)
    assert isinstance(encoder, GradientSketch)
    return encoder


def vectors(encoder, batch: TokenBatch) -> torch.Tensor:
    return encoder.encode(batch, "train").vectors[COLUMN]


@cache
def trained(width: int, hidden: int) -> tuple[LoadedModel, tuple[TokenRow, ...]]:
    """A small Llama that has learned the sentences, and rows of words drawn from them."""
    tokenizer = tiny_tokenizer()
    words = " ".join(SENTENCES).split()
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(words, 12)) for _ in range(40)] + list(SENTENCES)
    ids = [np.array(tokenizer(text).input_ids[:24], dtype=np.int64) for text in texts]
    rows = [token_row(i, np.arange(len(i)) >= 1, f"r{n}") for n, i in enumerate(ids)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=hidden,
            num_hidden_layers=3,
            num_attention_heads=4,
            tie_word_embeddings=True,
        )
        model = LlamaForCausalLM(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        batch = one_batch(rows)
        labels = torch.where(batch.attention, batch.input_ids, -100)
        for _ in range(60):
            loss = model(input_ids=batch.input_ids, attention_mask=batch.attention.long(), labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert loss < 3.5
    return wrap_model(model, tokenizer), tuple(rows)


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "llama-lora"])
def test_the_uncompressed_score_is_the_sum_of_cosines(name):
    loaded = tiny_loaded(name)
    batch = one_batch(random_rows((9, 14, 6)))
    encoder = bound(loaded, sketch="identity")
    found = vectors(encoder, batch) @ vectors(encoder, batch).T
    oracle = [row_gradients(loaded.model, row) for row in batch.rows]
    for i, left in enumerate(oracle):
        for k, right in enumerate(oracle):
            cosines = [
                torch.cosine_similarity(left[n].flatten().double(), right[n].flatten().double(), dim=0)
                for n in encoder.selection.shapes
            ]
            assert float(found[i, k]) == pytest.approx(float(sum(cosines)), abs=2e-5)


@pytest.mark.parametrize("normalize", ["tensor", "row", "none"])
def test_exact_scores_are_those_of_the_identity_sketch(normalize):
    loaded = tiny_loaded("llama-tied")
    rows, queries = random_rows((9, 14, 6, 11)), random_rows((8, 12, 5), seed=1)
    train = plan_batches(rows, WHOLE, tokens_per_batch=25)
    asked = plan_batches(queries, WHOLE, tokens_per_batch=15)
    encoder = bound(loaded, sketch="identity", normalize=normalize)
    left = torch.cat([vectors(encoder, b) for b in train])
    right = torch.cat([vectors(encoder, b) for b in asked])
    found = exact_scores(loaded, train, asked, normalize=normalize)
    torch.testing.assert_close(found, left @ right.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "hidden"), [(48, 120), (64, 128), (32, 256)])
def test_the_error_is_that_of_an_ideal_count_sketch_on_real_gradients(width, hidden):
    """RMS at most 1.2 times, and ranks no worse; powers of two included."""
    loaded, rows = trained(width, hidden)
    batch, buckets, seeds = one_batch(list(rows)), 2048, 8
    exact = vectors(bound(loaded, sketch="identity"), batch)
    truth = (exact @ exact.T).numpy()
    off = ~np.eye(len(truth), dtype=bool)

    def errors(estimates: list[np.ndarray]) -> tuple[float, float]:
        rms = np.sqrt(np.mean([(e - truth)[off] ** 2 for e in estimates]))
        return float(rms), float(np.mean([spearmanr(e[off], truth[off]).statistic for e in estimates]))

    ours, ideal = [], []
    for seed in range(seeds):
        mine = vectors(bound(loaded, buckets=buckets, seed=seed), batch).numpy()
        other = ideal_count_sketch(exact.numpy(), buckets, seed)
        ours.append(mine @ mine.T)
        ideal.append(other @ other.T)
    (rms, rank), (ideal_rms, ideal_rank) = errors(ours), errors(ideal)
    assert rms <= 1.2 * ideal_rms
    assert rank >= ideal_rank - 0.005


@pytest.mark.parametrize("normalize", ["tensor", "row", "none"])
def test_row_normalised_tokens_add_up_to_the_row(normalize):
    loaded = tiny_loaded("llama-tied")
    batch, query = one_batch(random_rows((9, 14, 6))), one_batch(random_rows((8, 10), seed=1))
    encoder = bound(loaded, tokens="row", normalize=normalize, buckets=512)
    probes = vectors(encoder, query)
    truth = vectors(encoder, batch) @ probes.T
    for row, scores in enumerate(encoder.token_scores(batch, "train", {COLUMN: probes})):
        torch.testing.assert_close(scores.values[COLUMN].sum(0), truth[row], rtol=1e-4, atol=1e-4)
        targets = torch.from_numpy(batch.rows[row].response)
        assert torch.equal(~scores.losses.isnan(), targets)
        assert (scores.values[COLUMN][~targets] == 0).all()


def test_token_normalised_scores_are_those_of_one_token_rows():
    loaded = tiny_loaded("llama")
    (row,) = random_rows((9,))
    encoder = bound(loaded, buckets=512)
    probes = vectors(encoder, one_batch(random_rows((8,), seed=1)))
    (scores,) = encoder.token_scores(one_batch([row]), "train", {COLUMN: probes})
    only = np.arange(9) == 6
    alone = vectors(encoder, one_batch([token_row(row.ids, only, "r0")])) @ probes.T
    torch.testing.assert_close(scores.values[COLUMN][6], alone[0], rtol=1e-4, atol=1e-5)


def test_a_grid_sums_to_the_row_and_its_rows_to_token_scores():
    loaded = tiny_loaded("llama")
    row, query = one_batch(random_rows((9,))), one_batch(random_rows((12,), seed=1))
    encoder = bound(loaded, tokens="row", buckets=512)
    grid = encoder.token_grid(row, query)
    assert grid.shape == (9, 12)
    probes = vectors(encoder, query)
    (scores,) = encoder.token_scores(row, "train", {COLUMN: probes})
    torch.testing.assert_close(grid.sum(1), scores.values[COLUMN][:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grid.sum(), (vectors(encoder, row) @ probes.T)[0, 0], rtol=1e-4, atol=1e-4)


def test_batches_do_not_matter():
    loaded = tiny_loaded("llama-tied")
    rows = random_rows((9, 14, 6, 14, 11))
    encoder = bound(loaded, buckets=1024)
    together = one_batch(rows)
    whole = dict(zip([r.row.id for r in together.rows], vectors(encoder, together), strict=True))
    for batch in plan_batches(rows, WHOLE, tokens_per_batch=20):
        for row, vector in zip(batch.rows, vectors(encoder, batch), strict=True):
            torch.testing.assert_close(vector, whole[row.row.id], rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_not_finite_names_its_row():
    loaded = tiny_loaded("llama")
    loaded.model.model.embed_tokens.weight[7] = torch.inf
    rows = random_rows((9, 9))
    rows[0].ids[:], rows[1].ids[4] = 5, 7
    with pytest.raises(NumericError, match="'r1'"):
        bound(loaded, buckets=64).encode(one_batch(rows), "train")


def test_a_sketch_longer_than_the_gradient_is_allowed_and_said():
    assert "longer than the gradient" in str(bound(tiny_loaded("llama-lora")).coverage)
    assert "longer" not in str(bound(tiny_loaded("llama-lora"), buckets=64).coverage)


@pytest.mark.parametrize("setting", [{"normalize": "layer"}, {"sketch": "shft"}, {"tokens": "tokne"}])
def test_an_unknown_choice_is_refused(setting):
    with pytest.raises(UsageError, match="unknown"):
        ENTRY.resolve(setting)


@pytest.mark.parametrize(("name", "normalize"), [("graddot", "none"), ("gradcos", "row"), ("tracin", "none")])
def test_gradient_baselines_are_exact_without_a_sketch(name, normalize):
    loaded = tiny_loaded("llama-tied")
    batch = one_batch(random_rows((9, 14, 6)))
    found = vectors(find_method(name, {"sketch": "identity"}).require_vectors().bind(loaded), batch)
    torch.testing.assert_close(
        found @ found.T, exact_scores(loaded, [batch], [batch], normalize=normalize), rtol=1e-4, atol=1e-4
    )
