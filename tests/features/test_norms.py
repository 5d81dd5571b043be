"""The gradients of norms' scales are autograd's, whether they come from the norm's output or from another run of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from headwater.data.batches import Window, plan_batches
from headwater.features.capture import visit_gradients
from headwater.features.local import Norm
from headwater.features.parameters import select_parameters
from headwater.sketch.blocks import Gradient
from headwater.sketch.products import dense
from oracles.gradient_oracles import random_rows, row_gradients

WIDTH = 6
NORMS = {
    "llama": LlamaRMSNorm,
    "gemma": GemmaRMSNorm,
    "torch": nn.RMSNorm,
    "layer norm": nn.LayerNorm,
    "layer norm without an offset": lambda width: nn.LayerNorm(width, bias=False),
}
AGAIN = {"layer norm"}
"""Those with an offset, whose output does not tell the normalised input as exactly."""


class Normed(nn.Module):
    """An embedding, a norm, and a head; the norm's output may be overwritten by a residual, as some models do."""

    def __init__(self, norm: nn.Module, *, in_place: bool) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(40, WIDTH), norm, nn.Linear(WIDTH, 40)
        self.in_place = in_place

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        hidden = self.embed(input_ids)
        normed = self.norm(hidden * 3)
        normed = normed.add_(hidden) if self.in_place else normed + hidden
        return type("Output", (), {"logits": self.head(normed)})()


def made(kind: str, scale: float | None = None, *, in_place: bool = False) -> Normed:
    torch.manual_seed(0)
    model = Normed(NORMS[kind](WIDTH), in_place=in_place).double()
    with torch.no_grad():
        model.norm.weight.normal_()
        if scale is not None:
            model.norm.weight[2] = scale
    return model.eval().requires_grad_(False)


def runs_of(model: Normed, monkeypatch: pytest.MonkeyPatch) -> int:
    """Compare the norm's gradients with autograd's, row by row; how often the norm ran for it."""
    (batch,) = plan_batches(random_rows((9, 14, 6), vocab=40), Window(64), tokens_per_batch=1000)
    selection = select_parameters(model)
    assert isinstance(next(site for site in selection.sites if site.where == "norm").kind, Norm)
    found: dict[str, torch.Tensor] = {}
    runs, forward = [], type(model.norm).forward
    with monkeypatch.context() as patch:
        patch.setattr(type(model.norm), "forward", lambda self, x: (runs.append(1), forward(self, x))[1])

        def visit(gradient: Gradient) -> None:
            found[gradient.name] = dense(gradient)

        visit_gradients(model, selection, batch, visit)
    for i, row in enumerate(batch.rows):
        truth = row_gradients(model, row, Window(64).cuts(row.response))
        for name, values in found.items():
            if name.startswith("norm"):
                torch.testing.assert_close(values[i], truth[name], rtol=1e-5, atol=1e-8)  # Gemma's compute in float32
    return len(runs)


@pytest.mark.parametrize("kind", NORMS)
def test_the_output_tells_the_gradient_of_the_scale(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(kind)
    runs_of(model, monkeypatch)  # asks once what the norm gives with a scale of zeros
    assert runs_of(model, monkeypatch) == (2 if kind in AGAIN else 1)


@pytest.mark.parametrize(("kind", "scale"), [("llama", 0.0), ("gemma", -1.0), ("torch", 1e-30)])
def test_a_scale_of_zero_tells_nothing(kind: str, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(kind, scale)
    runs_of(model, monkeypatch)
    assert runs_of(model, monkeypatch) == (3 if kind == "gemma" else 2)


def test_nor_does_an_output_that_was_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("llama", in_place=True)
    runs_of(model, monkeypatch)
    assert runs_of(model, monkeypatch) == 2
