"""The laws of RISE: exact gradients when nothing is sketched, unbiased when it is, the same row in any batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from headwater.core.errors import NumericError
from headwater.core.spec import Coverage
from headwater.data.batches import Window, plan_batches
from headwater.data.rows import Row
from headwater.data.tokens import TokenRow
from headwater.features import residuals as readout_module
from headwater.features.readout_sketch import Channels, ReadoutSketch
from headwater.features.residuals import Support, largest
from headwater.models.load import LoadedModel, wrap_model
from headwater.models.readout import Readout, find_readout
from oracles.readout_oracles import readout_gradients, truncated_residual
from zoo import tiny_loaded, zoo

LENGTHS = (5, 11, 3, 24, 17)
RESPONSE_STARTS = (1, 6, 1, 20, 9)
WHOLE = Window(256)


def token_rows(vocab: int, lengths: tuple[int, ...] = LENGTHS, starts: tuple[int, ...] = RESPONSE_STARTS):
    generator = np.random.default_rng(7)
    rows = []
    for i, (length, start) in enumerate(zip(lengths, starts, strict=True)):
        ids = generator.integers(1, vocab, length)
        offsets = np.zeros((length, 2), np.int64)
        rows.append(TokenRow(Row(f"r{i}", i, text="x"), "x", ids, np.arange(length) >= start, offsets, 0, str(i)))
    return rows


def sketch(loaded: LoadedModel, readout: Readout | None = None, **changes) -> ReadoutSketch:
    exact = {
        "readout": readout or find_readout(loaded),
        "channels": Channels(1.0, 1.0, 0.0, 0, 0, 0),
        "support": Support("full"),
        "positions": {"train": "all", "query": "response"},
        "pooling": "none",
        "normalize_factors": False,
        "normalize_sample": False,
    }
    return ReadoutSketch(**{**exact, **changes})


def vectors(encoder: ReadoutSketch, rows, *, role="train", budget=10_000, window=WHOLE, name="rise"):
    out = {}
    for batch in plan_batches(rows, window, tokens_per_batch=budget):
        encoded = encoder.encode(batch, role).vectors[name].double()
        out.update({row.row.ordinal: vector for row, vector in zip(batch.rows, encoded, strict=True)})
    return torch.stack([out[i] for i in range(len(rows))])


def in_float64(name: str) -> LoadedModel:
    loaded = tiny_loaded(name)
    loaded.model.config._experts_implementation = "eager"  # the grouped product has no float64
    return wrap_model(loaded.model.double(), loaded.tokenizer)


@pytest.mark.parametrize("name", sorted(zoo()))
def test_unsketched_products_are_those_of_the_gradients(name):
    loaded = in_float64(name)
    found = find_readout(loaded)
    rows = token_rows(found.weight.shape[0])
    got = vectors(sketch(loaded, found), rows)
    by_weight, by_inserted = zip(*(readout_gradients(loaded, torch.from_numpy(row.ids)) for row in rows), strict=True)
    split = found.weight.numel()
    for part, truth in ((got[:, :split], by_weight), (got[:, split:], by_inserted)):
        expected = torch.stack([gradient.flatten() for gradient in truth])
        torch.testing.assert_close(part @ part.T, expected.double() @ expected.double().T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("minicpm3", {"dim_model_base": 16}),  # the states are scaled before the head
        (
            "falcon_h1",
            {"lm_head_multiplier": 0.5, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
            | {"mamba_n_groups": 1, "mamba_chunk_size": 16, "mamba_d_ssm": 64, "head_dim": 8},
        ),  # the logits are
        ("bert", {"is_decoder": True}),  # a layer, a norm and a shared bias
        ("nanochat", {}),  # a soft-cap of 15
        ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 16}),  # the states are projected
    ],
)
def test_what_lies_before_and_behind_the_head_is_in_the_gradient(name, options):
    shape = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    rest = {"num_key_value_heads": 4, "intermediate_size": 64, "initializer_range": 0.3, "pad_token_id": None}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**shape, **rest, **options), dtype=torch.float32)
    loaded = wrap_model(model, tiny_loaded("llama").tokenizer)
    rows = token_rows(300)
    got = vectors(sketch(loaded), rows)
    for i, row in enumerate(rows):
        truth = torch.cat([g.flatten() for g in readout_gradients(loaded, torch.from_numpy(row.ids))]).double()
        assert (got[i] - truth).norm() < 1e-3 * truth.norm()


@pytest.mark.parametrize("kind", ["full", "top"])
def test_the_slope_multiplies_every_entry_of_the_residual(kind):
    generator = torch.Generator().manual_seed(0)
    logits, slope = torch.randn(2, 3, 50, generator=generator, dtype=torch.float64)
    targets, support = torch.tensor([4, 40, 7]), Support(kind, 0.7, top=8)
    plain = support.read(logits.clone(), targets)[0].project(torch.eye(50, dtype=torch.float64))
    sloped = support.read(logits.clone(), targets, slope)[0].project(torch.eye(50, dtype=torch.float64))
    torch.testing.assert_close(sloped, plain * slope)
    scaled = support.read(logits.clone(), targets, 0.25)[0].project(torch.eye(50, dtype=torch.float64))
    torch.testing.assert_close(scaled, plain * 0.25)


def test_queries_use_only_positions_that_predict_response_tokens():
    loaded = in_float64("llama")
    found = find_readout(loaded)
    rows = token_rows(found.weight.shape[0])
    got = vectors(sketch(loaded, channels=Channels(1.0, 0.0, 0.0, 0, 0, 0)), rows, role="query")
    for row, start, vector in zip(rows, RESPONSE_STARTS, got, strict=True):
        truth, _ = readout_gradients(loaded, torch.from_numpy(row.ids), first=start)
        torch.testing.assert_close(vector, truth.flatten().double(), rtol=1e-5, atol=1e-6)


def test_sketched_products_are_unbiased():
    loaded = in_float64("llama")
    rows = token_rows(find_readout(loaded).weight.shape[0])
    exact = vectors(sketch(loaded), rows)
    truth = exact @ exact.T
    draws = []
    for seed in range(300):
        v = vectors(sketch(loaded, channels=Channels(1.0, 1.0, 0.0, 24, 12, 12), seed=seed), rows)
        draws.append(v @ v.T)
    stack = torch.stack(draws)
    error = (stack.mean(0) - truth).abs()
    assert bool((error <= 4.5 * stack.std(0) / len(draws) ** 0.5).all())


@pytest.mark.parametrize("preset", ["full", "top", "adaptive"])
def test_a_row_is_the_same_in_any_batch(preset):
    loaded = tiny_loaded("gpt-neox")
    support = {"full": Support(), "top": Support("top", 0.1, top=20), "adaptive": Support("full", 0.5, True)}[preset]
    changes = {"channels": Channels(1.0, 0.3, 0.5, 32, 16, 16), "support": support, "pooling": "response"}
    encoder = sketch(loaded, **changes, normalize_factors=True, normalize_sample=True)
    rows = token_rows(find_readout(loaded).weight.shape[0])
    for name in ("rise", "embedding"):
        together, alone = vectors(encoder, rows, name=name), vectors(encoder, rows, budget=1, name=name)
        assert float((together - alone).norm(dim=1).max()) < 1e-3


def test_peak_memory_is_in_chunks_and_chunks_change_nothing(monkeypatch):
    loaded = in_float64("qwen2")
    rows = token_rows(find_readout(loaded).weight.shape[0])
    whole = vectors(sketch(loaded), rows)
    monkeypatch.setitem(readout_module.CHUNK_BYTES, "cpu", 1)
    torch.testing.assert_close(vectors(sketch(loaded), rows), whole, rtol=1e-6, atol=1e-9)


def test_long_rows_are_the_mean_of_their_windows():
    loaded = in_float64("llama")
    rows = token_rows(find_readout(loaded).weight.shape[0], (30,), (1,))
    encoder = sketch(loaded)
    ids = rows[0].ids
    cuts = Window(12, 4).cuts(np.ones(30, dtype=bool))
    assert cuts == [(0, 12), (8, 20), (16, 28), (24, 30)]
    pieces = [
        TokenRow(Row(str(i), i, text="x"), "x", ids[a:b], np.arange(b - a) > 0, rows[0].offsets[a:b], 0, str(i))
        for i, (a, b) in enumerate(cuts)
    ]
    expected = vectors(encoder, pieces).mean(0)
    torch.testing.assert_close(vectors(encoder, rows, window=Window(12, 4))[0], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weight_windows", ["equal", "tokens"])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("role", ["train", "query"])
def test_token_scores_add_up_to_the_score(weight_windows, normalized, role):
    loaded = tiny_loaded("gemma2")
    encoder = sketch(
        loaded,
        channels=Channels(1.0, 0.3, 0.5, 32, 16, 8),
        pooling="response",
        normalize_factors=normalized,
        normalize_sample=normalized,
        weight_windows=weight_windows,
    )
    rows = token_rows(find_readout(loaded).weight.shape[0])
    window = Window(9, 3)
    for name in ("rise", "embedding"):
        probes = vectors(encoder, rows, role=role, window=window, name=name)
        truth = probes @ probes.T
        for batch in plan_batches(rows, window, tokens_per_batch=64):
            scored = encoder.token_scores(batch, role, {name: probes.float()})
            for row, scores in zip(batch.rows, scored, strict=True):
                total = scores.values[name].double().sum(0)
                torch.testing.assert_close(total, truth[row.row.ordinal], rtol=1e-3, atol=1e-4)
                assert bool(scores.losses[:1].isnan().all())


def test_row_losses_are_the_models_own():
    loaded = tiny_loaded("olmo2")
    rows = token_rows(find_readout(loaded).weight.shape[0])
    for support in (Support(), Support("top", 0.1, top=8), Support("full", 2.0)):
        (batch,) = plan_batches(rows, Window(256), tokens_per_batch=10_000)
        losses = sketch(loaded, support=support).encode(batch, "train").losses
        for row, loss in zip(batch.rows, losses, strict=True):
            ids = torch.from_numpy(row.ids)[None]
            labels = torch.where(torch.from_numpy(row.response)[None], ids, -100)
            with torch.no_grad():
                expected = loaded.model(input_ids=ids, labels=labels).loss
            torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.5, 1.0]), st.integers(4, 40), st.floats(0.1, 0.99))
def test_truncation_is_the_published_one(seed, temperature, top, mass):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 50, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(0, 50, (3,), generator=generator)
    expected = [
        truncated_residual(row.tolist(), int(y), temperature=temperature, top=top, mass=mass)
        for row, y in zip(logits, targets, strict=True)
    ]
    residual, losses = Support("top", temperature, top=top, mass=mass).read(logits.clone(), targets)
    got = residual.project(torch.eye(50, dtype=torch.float64))
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(losses, torch.nn.functional.cross_entropy(logits, targets, reduction="none"))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3000), st.integers(1, 64))
def test_largest_is_topk(seed, columns, k):
    values = torch.randn(2, columns, generator=torch.Generator().manual_seed(seed))
    k = min(k, columns)
    top, places = largest(values, k)
    torch.testing.assert_close(top, values.topk(k, -1).values, rtol=0, atol=0)
    torch.testing.assert_close(values.gather(1, places), top, rtol=0, atol=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.7, 1.0, 2.0, 4.0]), st.sampled_from([0.0, 3.0, 90.0, -90.0]))
def test_full_residuals_and_losses_are_those_of_the_softmax(seed, temperature, offset):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 50, generator=generator) * 8 + offset
    targets = torch.randint(0, 50, (4,), generator=generator)
    residual, losses = Support("full", temperature).read(logits.clone(), targets)
    expected = torch.softmax(logits.double() / temperature, -1)
    expected[torch.arange(4), targets] -= 1.0
    torch.testing.assert_close(residual.project(torch.eye(50)).double(), expected, rtol=1e-4, atol=1e-5)
    cross_entropy = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(losses.double(), cross_entropy, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["full", "top"])
def test_adaptive_temperature_ignores_the_scale_of_the_logits(kind):
    logits, targets = torch.randn(6, 40), torch.arange(6)
    support = Support(kind, 0.7, adaptive=True, top=16)
    small, _ = support.read(logits.clone(), targets)
    large, _ = support.read(logits * 5, targets)
    torch.testing.assert_close(small.project(torch.eye(40)), large.project(torch.eye(40)))


def test_the_bfloat16_product_ranks_like_the_exact_one():
    loaded = tiny_loaded("llama")
    rows = token_rows(find_readout(loaded).weight.shape[0])
    settings = {"channels": Channels(), "normalize_factors": True, "normalize_sample": True}
    exact = vectors(sketch(loaded, **settings), rows)
    narrow = vectors(sketch(loaded, **settings, products="bfloat16"), rows)
    assert float((exact - narrow).norm(dim=1).max()) < 0.02


def test_logits_that_are_not_finite_name_the_row():
    loaded = tiny_loaded("llama")
    weight = find_readout(loaded).weight.clone()
    weight[3] = torch.nan
    broken = Readout(weight, None, 1.0, None, Coverage(1, 1), loaded.model.base_model)
    rows = token_rows(weight.shape[0])
    (batch,) = plan_batches(rows[1:2], Window(256), tokens_per_batch=100)
    with pytest.raises(NumericError, match="row 'r1'"):
        sketch(loaded, broken).encode(batch, "train")
