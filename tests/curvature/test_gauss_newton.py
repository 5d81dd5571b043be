"""Products with the Fisher matrix against the matrix itself, and conjugate gradients against a dense solve."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headwater.core.errors import ModelError
from headwater.curvature.gauss_newton import Fisher, conjugate_gradients
from headwater.data.batches import Window
from headwater.data.corpus import open_corpus
from headwater.features.exact import whole_gradients
from headwater.features.parameters import select_linear, select_parameters
from headwater.methods.catalog import find_method
from headwater.methods.ekfac import EkfacOptions, fit_ekfac
from headwater.methods.scoring import attribute
from headwater.methods.targets import each
from headwater.models.attention import plain_attention
from headwater.models.reader import Reader
from zoo import tiny_loaded

WINDOW = Window(64)
CORPUS = open_corpus([{"id": f"r{i}", "prompt": "the quick " * (i + 1), "response": "fox runs"[i:]} for i in range(2)])
GLOBS = {"llama": "model.layers.0.self_attn.k_proj.weight", "gpt2": "transformer.h.0.attn.c_proj.weight"}


def explicit(loaded, rows, name: str, transposed: bool) -> torch.Tensor:
    """F of one parameter, `[size, size]` in the gradients' layout: Σ over tokens of Jᵀ (diag(p) − p pᵀ) J."""
    parameter = dict(loaded.model.named_parameters())[name]
    total = 0.0
    for row in rows:
        ids, places = torch.from_numpy(row.ids)[None], torch.from_numpy(row.response.nonzero()[0]) - 1

        def logits(value, ids=ids, places=places):
            given = {name: value}
            return torch.func.functional_call(loaded.model, given, kwargs={"input_ids": ids}).logits[0, places]

        with plain_attention(loaded.model):
            slope = torch.func.jacrev(logits)(parameter.detach())
        slope = (slope.mT if transposed else slope).flatten(2)
        p = logits(parameter.detach()).softmax(-1)
        total = (
            total
            + sum(j.mT @ (torch.diag(q) - torch.outer(q, q)) @ j for j, q in zip(slope, p, strict=True))
            / len(places) ** 2
        )
    return total / len(rows)


@pytest.mark.parametrize("family", list(GLOBS))
def test_products_are_those_of_the_whole_matrix(family):
    loaded = tiny_loaded(family)
    reader = Reader.of(loaded)
    selection = select_linear(loaded.model, GLOBS[family])
    (name,) = selection.shapes
    rows = list(CORPUS)
    fisher = Fisher(loaded, selection.shapes, reader.batches(rows, WINDOW), transposed=selection.transposed)
    vectors = torch.randn(3, *selection.shapes[name], generator=torch.Generator().manual_seed(0))
    matrix = explicit(loaded, reader.tokenize(rows), name, name in selection.transposed)
    expected = (vectors.flatten(1) @ matrix).reshape(vectors.shape)
    before = loaded.model.config._attn_implementation
    found = fisher.times({name: vectors})[name]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert loaded.model.config._attn_implementation == before


def test_conjugate_gradients_solve_each_system():
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix = half @ half.mT + 0.1 * torch.eye(12, dtype=torch.float64)
    wanted = {
        "a": torch.randn(4, 2, 4, generator=generator, dtype=torch.float64),
        "b": torch.randn(4, 1, 4, generator=generator, dtype=torch.float64),
    }
    wanted["a"][3], wanted["b"][3] = 0, 0

    def flat(vectors):
        return torch.cat([v.flatten(1) for v in vectors.values()], 1)

    def shaped(values):
        return {"a": values[:, :8].reshape(4, 2, 4), "b": values[:, 8:].reshape(4, 1, 4)}

    def product(vectors):
        return shaped(flat(vectors) @ matrix)

    def scaled(vectors):
        return shaped(flat(vectors) / matrix.diagonal())

    solved = torch.linalg.solve(matrix, flat(wanted).mT).mT
    found = flat(conjugate_gradients(product, scaled, wanted, 14))
    torch.testing.assert_close(found, solved, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(flat(conjugate_gradients(product, scaled, wanted, 0)), flat(scaled(wanted)))
    errors = []
    for steps in range(1, 8):
        away = flat(conjugate_gradients(product, scaled, wanted, steps)) - solved
        errors.append(float(torch.einsum("qi,ij,qj->", away, matrix, away)))
    assert errors == sorted(errors, reverse=True), "every step brings the answer nearer, in the norm of the matrix"


def test_a_refined_score_is_that_of_the_dense_system():
    loaded = tiny_loaded("llama")
    reader, rows = Reader.of(loaded), list(CORPUS)
    options = {"parameters": GLOBS["llama"], "refine": 40, "refine_rows": len(rows), "damping": 10.0}
    found = attribute(find_method("ekfac", options), reader, rows, each(rows[:2])).values
    selection = select_linear(loaded.model, GLOBS["llama"])
    (name,) = selection.shapes
    batches = reader.batches(rows, WINDOW)
    own = whole_gradients(loaded, selection, batches, len(rows))[name].flatten(1).double()
    damping = fit_ekfac(loaded, selection, batches, EkfacOptions(parameters=name, damping=10.0)).factors[name].damping
    matrix = explicit(loaded, reader.tokenize(rows), name, False).double()
    expected = own @ torch.linalg.solve(matrix + damping * torch.eye(len(matrix)), own[:2].mT)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))


def test_part_of_a_parameter_is_refused():
    loaded = tiny_loaded("mixtral")
    selection = select_parameters(loaded.model, "*experts*")
    with pytest.raises(ModelError, match="is part of a parameter"):
        Fisher(loaded, selection.shapes, [])
