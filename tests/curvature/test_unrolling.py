"""A segment in closed form against the steps of a linear system, and SOURCE against the steps of the optimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headwater.core.errors import DataError, UsageError
from headwater.curvature.unrolling import Curve, Fit
from headwater.data.corpus import open_corpus
from headwater.data.tokens import Tokenization
from headwater.methods.catalog import find_method
from headwater.methods.scoring import attribute
from headwater.methods.targets import each
from headwater.models.load import wrap_model
from headwater.models.losses import token_losses
from headwater.models.reader import Reader
from headwater.sketch.blocks import Dense, Gradient, Outer
from headwater.training.recorder import Recorder
from oracles.gradient_oracles import row_gradients
from zoo import SENTENCES, tiny_loaded


def orthogonal(size: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed)).double())[0]


@pytest.mark.parametrize("steep", [0.0, 1e-6, 1.0, 300.0])
def test_a_segment_is_what_its_steps_do(steep):
    """θ' = θ − η D (H θ + w g) with D^½ H D^½ = Q Λ Qᵀ: derivatives by θ₀ and by w, by running the steps."""
    generator = torch.Generator().manual_seed(1)
    left, right = orthogonal(3, 2), orthogonal(4, 3)
    values = steep * torch.rand(3, 4, generator=generator).double()
    root = 0.5 + torch.rand(3, 4, generator=generator).double()
    curve = Curve(left, right, values, root)
    end, gradient = torch.randn(2, 3, 4, generator=generator).double()
    steps, rate = 4000, 2.0 / 4000

    def step(weights, by):
        curved = left @ ((left.mT @ (weights / root) @ right) * values) @ right.mT / root
        return weights - rate * root**2 * (curved + by * gradient)

    start = torch.randn(3, 4, generator=generator).double().requires_grad_()
    by = torch.zeros((), dtype=torch.float64, requires_grad=True)
    weights = start
    for _ in range(steps):
        weights = step(weights, by)
    of_start, of_by = torch.autograd.grad((weights * end).sum(), [start, by])
    torch.testing.assert_close(curve.at_start(end[None], steps * rate)[0], of_start, rtol=1e-2, atol=1e-3)
    found = -(curve.of_gradients(end[None], steps * rate)[0] * gradient).sum()
    torch.testing.assert_close(found, of_by.detach(), rtol=1e-2, atol=1e-4)


def test_curves_are_fitted_to_the_scaled_gradients():
    """A tensor without factors gets its own second moments; a matrix those in the eigenvectors of its two sides."""
    generator = torch.Generator().manual_seed(0)
    flat, left, right = (torch.randn(6, *size, generator=generator) for size in ((5,), (2, 3), (2, 4)))
    roots = {"b": 0.5 + torch.rand(1, 5, generator=generator), "w": torch.full((3, 4), 2.0)}

    def visit(to):
        to(Gradient("b", (5,), (Dense(flat),)))
        to(Gradient("w", (3, 4), (Outer(left, right),)))

    curves = Fit(roots, tokens=12).run([visit], 1.0).curves
    torch.testing.assert_close(curves["b"].values, (flat * roots["b"]).square().sum(0, keepdim=True) / 12)
    rows = 2 * torch.einsum("rto,rti->roi", left, right)
    turned = curves["w"].left.mT @ rows @ curves["w"].right
    torch.testing.assert_close(curves["w"].values, turned.square().sum(0) / 12)
    sides = torch.einsum("rto,rtp->op", left, left).double()
    torch.testing.assert_close(
        curves["w"].left.mT.double() @ sides @ curves["w"].left.double(),
        torch.linalg.eigvalsh(sides).diag(),
        atol=1e-4,
        rtol=1e-4,
    )


RECORDS = [{"id": f"r{i}", "text": text} for i, text in enumerate(SENTENCES)]


def one_step(loaded, rows, weights: list[float], optimizer=None) -> dict[str, torch.Tensor]:
    """Train one step of AdamW on the rows with these weights, without weight decay; the parameters afterwards."""
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(True)
    optimizer = optimizer or torch.optim.AdamW(loaded.model.parameters(), 1e-3, weight_decay=0.0)
    total, tokens = 0.0, 0
    for row, weight in zip(rows, weights, strict=True):
        logits = loaded.model(input_ids=torch.from_numpy(row.ids)[None]).logits[0, :-1]
        kept = torch.from_numpy(row.response[1:])
        targets = torch.from_numpy(row.ids[1:]).long()[kept]
        total, tokens = total + weight * token_losses(logits[kept], targets).sum(), tokens + len(targets)
    (total / tokens).backward()
    return optimizer


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_without_curvature_a_step_of_adamw_is_exact(tmp_path, family):
    """η ⟨row's gradient, D ∇L(query)⟩ with the recorded moments, at the recorded weights, from autograd."""
    loaded = tiny_loaded(family)
    rows = Tokenization.of(loaded.tokenizer, max_tokens=64).encode(list(open_corpus(RECORDS)))
    recorder = Recorder(tmp_path / "run", every=1)
    optimizer = one_step(loaded, rows, [1.0] * len(rows))
    recorder.before_step(optimizer)
    optimizer.step()
    recorder.after_step(1, 1, loaded.model, optimizer, loaded.tokenizer)
    loaded = wrap_model(loaded.model.requires_grad_(False), loaded.tokenizer, "trained")
    reader, corpus = Reader.of(loaded, max_tokens=64), list(open_corpus(RECORDS))
    method = find_method("source", {"checkpoints": str(tmp_path / "run"), "preset": "first-order"})
    found = attribute(method, reader, corpus, each(corpus[:2])).values
    expected = np.zeros((len(rows), 2))
    own = [row_gradients(loaded.model, row) for row in rows]
    state = {name: optimizer.state[p] for name, p in loaded.model.named_parameters()}
    for name, parameter in loaded.model.named_parameters():
        scale = 1 / ((state[name]["exp_avg_sq"] / (1 - 0.999)).sqrt() + 1e-8)
        for i, row in enumerate(rows):
            for q in range(2):
                count = int(row.response.sum())
                expected[i, q] += (
                    1e-3
                    * count
                    * float(
                        (own[i][name].reshape(parameter.shape) * scale * own[q][name].reshape(parameter.shape)).sum()
                    )
                )
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3 * np.abs(expected).max())


def test_a_run_without_moments_is_refused_until_it_is_said_to_be_one(tmp_path):
    loaded = tiny_loaded("llama")
    optimizer = torch.optim.SGD(loaded.model.requires_grad_(True).parameters(), 0.1)
    recorder = Recorder(tmp_path / "run", every=1)
    recorder.before_step(optimizer)
    recorder.after_step(1, 1, loaded.model, optimizer, loaded.tokenizer)
    loaded = wrap_model(loaded.model.requires_grad_(False), loaded.tokenizer, "trained")
    reader, corpus, options = Reader.of(loaded), list(open_corpus(RECORDS)), {"checkpoints": str(tmp_path / "run")}
    with pytest.raises(DataError, match="no moments of Adam"):
        attribute(find_method("source", {**options, "fit_rows": 2}), reader, corpus, each(corpus[:1]))
    plain = find_method("source", {**options, "adam": False, "preset": "first-order"})
    found = attribute(plain, reader, corpus, each(corpus[:1])).values[:, 0]
    rows = Tokenization.of(loaded.tokenizer, max_tokens=64).encode(corpus)
    own = [torch.cat([g.flatten() for _, g in sorted(row_gradients(loaded.model, row).items())]) for row in rows]
    expected = [0.1 * int(row.response.sum()) * float(g @ own[0]) for row, g in zip(rows, own, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3 * np.abs(expected).max())


def test_the_run_is_asked_for():
    with pytest.raises(UsageError, match="the training run is unrolled"):
        find_method("source")
