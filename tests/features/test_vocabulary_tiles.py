"""Residuals made in tiles of the vocabulary: against the softmax written out, and against the path without tiles."""

from __future__ import annotations

import pytest
import torch

from headwater.core.spec import Coverage
from headwater.data.batches import Window, plan_batches
from headwater.features import readout_sketch, vocabulary_tiles
from headwater.features.readout_sketch import Channels, ReadoutSketch
from headwater.features.residuals import Support
from headwater.features.vocabulary_tiles import sketched_residuals
from headwater.models.readout import Readout
from oracles.gradient_oracles import random_rows
from zoo import tiny_loaded

VOCAB, WIDTH, SKETCHED, TOKENS = 53, 6, 5, 19


def case(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    weight = torch.randn(VOCAB, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    matrix = torch.randn(VOCAB, SKETCHED, generator=generator, dtype=torch.float64)
    return states, torch.randint(0, VOCAB, (TOKENS,), generator=generator), weight, matrix


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("columns", [1, 7, 53, 512])
def test_tiles_give_the_softmax_written_out(temperature: float, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_tiles, "COLUMNS", columns)
    states, targets, weight, matrix = case()
    logits = states @ weight.T
    residual = torch.softmax(logits / temperature, 1) - torch.nn.functional.one_hot(targets, VOCAB)
    found = sketched_residuals(states / temperature, targets, weight, matrix, temperature)
    torch.testing.assert_close(found.product, residual @ matrix)
    torch.testing.assert_close(found.losses, -torch.log_softmax(logits, 1)[torch.arange(TOKENS), targets])
    assert found.safe.all()


def test_the_small_residual_of_a_well_predicted_token_keeps_its_direction() -> None:
    """T − e_y, in float32, would be rounded to nothing: the target's probability is 1 − 10⁻⁸."""
    weight = torch.full((VOCAB, 1), 1.0, dtype=torch.float64)
    weight[:, 0] += 0.2 * torch.arange(VOCAB) / VOCAB
    weight[7] = 23.0
    matrix, targets = case()[3], torch.tensor([7])
    residual = torch.softmax(weight.T, 1) - torch.nn.functional.one_hot(targets, VOCAB)
    assert 0 < -residual[0, 7] < 5e-8
    found = sketched_residuals(torch.ones(1, 1), targets, weight.float(), matrix.float(), 1.0)
    expected = residual @ matrix
    assert (found.product - expected).norm() < 1e-5 * expected.norm()


def encoder(readout: Readout, temperature: float) -> ReadoutSketch:
    positions = {"train": "response", "query": "response"}
    channels, support = Channels(1.0, 0.3, 0.0, 16, 8, 8), Support(temperature=temperature)
    return ReadoutSketch(readout, channels, support, positions, normalize_factors=False, normalize_sample=False)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_vectors_are_those_of_the_path_without_tiles(
    temperature: float, dtype: torch.dtype, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a row's exponentials leave float32's range, which only the other path can read."""
    model = tiny_loaded("llama").model.to(dtype)
    weight = model.get_output_embeddings().weight.detach().clone()
    weight[11] *= 4000  # some tokens' logits reach several hundreds
    readout = Readout(weight, None, scale, None, Coverage(weight.numel(), weight.numel()), model.base_model)
    monkeypatch.setattr(readout_sketch, "TOKENS", 5)
    monkeypatch.setattr(vocabulary_tiles, "COLUMNS", 16)
    (batch,) = plan_batches(random_rows((9, 14, 6)), Window(64), tokens_per_batch=64)
    tiled = encoder(readout, temperature)
    safe: list[bool] = []
    spied = sketched_residuals
    monkeypatch.setattr(
        readout_sketch,
        "sketched_residuals",
        lambda *given: (found := spied(*given), safe.extend(found.safe.tolist()))[0],
    )
    found = tiled.encode(batch, "train")
    assert any(safe)
    assert not all(safe)
    monkeypatch.setattr(ReadoutSketch, "_in_tiles", False)
    expected = tiled.encode(batch, "train")
    difference = found.vectors["rise"] - expected.vectors["rise"]
    assert (difference.norm(dim=1) < 1e-4 * expected.vectors["rise"].norm(dim=1)).all()
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-4, atol=1e-4)
