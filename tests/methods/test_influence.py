"""EK-FAC and DataInf against dense inverses, Z0-Inf and the controls through the streaming protocol."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from headwater.core.errors import DataError, UsageError
from headwater.data.corpus import open_corpus
from headwater.data.rows import Row
from headwater.evaluation.stage import Stage
from headwater.features.parameters import select_linear
from headwater.methods.catalog import find_method
from headwater.methods.ekfac import sample
from headwater.methods.scoring import attribute, prepare
from headwater.methods.targets import each
from headwater.models.load import load_model
from headwater.models.reader import Reader
from oracles.gradient_oracles import row_gradients
from oracles.influence_oracles import datainf, ekfac, zoinf
from zoo import SENTENCES, tiny_loaded

WORDS = " ".join(SENTENCES).split()
RECORDS = [
    {"id": f"r{i}", "prompt": " ".join(WORDS[i : i + 3]), "response": " ".join(WORDS[2 * i : 2 * i + 4])}
    for i in range(12)
]
GLOB = "*.k_proj.weight"


@pytest.fixture
def stage(tmp_path) -> Stage:
    return Stage(tiny_loaded("llama"), open_corpus(RECORDS), tmp_path)


def token_sides(stage: Stage, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(gradient at the layer's output, its input) of every token that carries a gradient, one row at a time."""
    model = stage.loaded.model
    module = model.get_submodule(name.removesuffix(".weight"))
    lefts, rights = [], []
    for row in Reader.of(stage.loaded).tokenize(stage.rows):
        kept = {}

        def hook(_, inputs, output, kept=kept):
            kept["in"] = inputs[0].detach()
            kept["out"] = output
            output.requires_grad_() if not output.requires_grad else None
            output.retain_grad()

        handle = module.register_forward_hook(hook)
        model.get_input_embeddings().weight.requires_grad_(True)
        ids = torch.from_numpy(row.ids)[None]
        log = torch.log_softmax(model(input_ids=ids).logits[0], -1)
        targets = row.response.nonzero()[0]
        loss = -sum(log[t - 1, int(row.ids[t])] for t in targets) / len(targets)
        loss.backward()
        handle.remove()
        model.get_input_embeddings().weight.requires_grad_(False)
        left = kept["out"].grad[0]
        carries = left.ne(0).any(1)
        lefts.append(left[carries].double().numpy())
        rights.append(kept["in"][0][carries].double().numpy())
    return np.concatenate(lefts), np.concatenate(rights)


def gradients(stage: Stage, name: str) -> np.ndarray:
    rows = Reader.of(stage.loaded).tokenize(stage.rows)
    return np.stack([row_gradients(stage.loaded.model, row)[name].double().numpy() for row in rows])


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 2e-3) -> None:
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_ekfac_is_the_explicit_dense_inverse(stage):
    names = list(select_linear(stage.loaded.model, GLOB).shapes)
    expected = 0.0
    for name in names:
        rows = gradients(stage, name)
        expected = expected + ekfac(rows, rows[:3], token_sides(stage, name), rows, 0.1)
    found = stage.score(f"ekfac:labels=data,parameters={GLOB}", stage.rows[:3]).scores.values
    close(found, expected, 5e-3)


def test_sampled_labels_follow_seed_and_rows_and_change_the_curvature(stage):
    def scores(label: str) -> np.ndarray:
        return stage.score(label, stage.rows[:2]).scores.values

    sampled = scores(f"ekfac:parameters={GLOB}")
    np.testing.assert_array_equal(sampled, scores(f"ekfac:parameters={GLOB}"))
    assert not np.allclose(sampled, scores(f"ekfac:parameters={GLOB},seed=1"), rtol=1e-3)
    assert not np.allclose(sampled, scores(f"ekfac:parameters={GLOB},labels=data"), rtol=1e-3)


def test_ekfac_with_a_large_damping_is_the_scaled_inner_product(stage):
    name = "model.layers.0.self_attn.k_proj.weight"
    flat = gradients(stage, name).reshape(12, -1)
    rows = flat @ flat[:3].T
    values = stage.score(f"ekfac:damping=1e6,parameters={name}", stage.rows[:3]).scores.values
    close(values / np.abs(values).max(), rows / np.abs(rows).max(), 1e-3)


def test_datainf_is_the_mean_of_explicit_inverses(stage):
    glob = "model.norm.weight,*.input_layernorm.weight"
    names = ["model.norm.weight", *(f"model.layers.{i}.input_layernorm.weight" for i in range(2))]
    expected = sum(datainf(gradients(stage, n), gradients(stage, n)[:3], 0.1) for n in names)
    method = find_method("datainf", {"parameters": glob})
    scores = attribute(method, Reader.of(stage.loaded), stage.rows, each(stage.rows[:3]))
    close(scores.values, expected)


def test_datainf_reads_matrices_too(stage):
    name = "model.layers.1.self_attn.k_proj.weight"
    rows = gradients(stage, name).reshape(12, -1)
    scores = stage.score(f"datainf:parameters={name}", stage.rows[:3]).scores
    close(scores.values, datainf(rows, rows[:3], 0.1))


def test_methods_that_are_fitted_ask_for_rows(stage):
    for name in ("ekfac", "datainf"):
        with pytest.raises(DataError, match="was given none"):
            prepare(find_method(name), Reader.of(stage.loaded), each(stage.rows[:1]))


def wander(folder: Path) -> list[np.ndarray]:
    """A run of three checkpoints, recorded in `folder`; gives their weights."""
    base, listed, weights = tiny_loaded("llama"), [], []
    for step in range(3):
        for parameter in base.model.parameters():
            generator = torch.Generator().manual_seed(step)
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        base.model.save_pretrained(folder / f"step-{step}")
        base.tokenizer.save_pretrained(folder / f"step-{step}")
        listed.append({"path": f"step-{step}", "step": step, "learning_rate": 0.1})
        weights.append(np.concatenate([p.double().flatten().numpy() for p in base.model.parameters()]))
    (folder / "checkpoints.json").write_text(json.dumps(listed))
    return weights


def test_zoinf_reads_losses_at_recorded_checkpoints(stage, tmp_path):
    weights, losses = wander(tmp_path / "run"), []
    for step in range(3):
        there = Stage(load_model(str(tmp_path / "run" / f"step-{step}")), stage.corpus, tmp_path / "x")
        losses.append(-there.score("loss", stage.rows[:1]).scores.values[:, 0].astype(np.float64))
    expected = zoinf(np.stack(weights), np.stack(losses), np.stack(losses)[:, :3], 2)
    found = stage.score(f"zoinf:checkpoints={tmp_path / 'run'}", stage.rows[:3]).scores.values
    close(found, expected, 2e-2)
    variance = stage.score(f"zoinf:form=variance,checkpoints={tmp_path / 'run'}", stage.rows[:2]).scores.values
    close(variance[:, 1], np.stack(losses).var(0), 2e-2)
    with pytest.raises(UsageError, match="recorded training run"):
        find_method("zoinf")


@pytest.mark.parametrize("label", ["embedding", "zoinf:checkpoints={run}", "ekfac:parameters=" + GLOB])
def test_a_query_is_asked_about_its_hotwords_alone(stage, tmp_path, label):
    """The same tokens, the same targets: the response's last words as hotwords, or as all of the response."""
    wander(tmp_path / "run")
    whole = Row("whole", 0, prompt="What is the capital of France?", response="The capital of France is Paris.")
    narrow = replace(whole, id="narrow", hotwords=("is Paris.<|end|>",))
    alone = Row("alone", 0, prompt=f"{whole.prompt} The capital of France", response="is Paris.")
    scores = stage.score(label.format(run=tmp_path / "run"), [whole, narrow, alone]).scores.values
    close(scores[:, 1], scores[:, 2])
    assert np.abs(scores[:, 1] - scores[:, 0]).max() > 0.02 * np.abs(scores[:, 0]).max()


def test_the_controls_are_what_they_say(stage):
    values = {
        name: stage.score(name, stage.rows[:3]).scores.values for name in ("loss", "loss:preset=high", "embedding")
    }
    np.testing.assert_allclose(values["loss"], -values["loss:preset=high"])
    assert (np.diag(values["embedding"][:3]) > 1 - 1e-5).all()
    assert np.abs(values["embedding"]).max() <= 1 + 1e-5
    assert (values["embedding"].argmax(0) == [0, 1, 2]).all()


def test_sampled_labels_are_drawn_from_the_softmax():
    """Frequencies of many draws against the probabilities; the extreme numbers give a first and a last token."""
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -torch.inf])
    chance = (torch.arange(20_000).double() + 0.5) / 20_000
    drawn = sample(logits.expand(len(chance), -1), chance)
    shares = torch.bincount(drawn, minlength=5) / len(chance)
    torch.testing.assert_close(shares, logits.softmax(0), atol=2e-4, rtol=0.0)
    assert sample(logits.expand(2, -1), torch.tensor([0.0, 1 - 2**-32], dtype=torch.float64)).tolist() == [0, 3]
