"""RelatIF against explicit inverses through a real index, and the laws of dividing by the row's own reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.core.errors import UsageError
from headwater.curvature.gram import fit_metric
from headwater.data.corpus import open_corpus
from headwater.models.reader import Reader
from oracles.gradient_oracles import row_gradients
from oracles.preconditioned_oracles import flat, relatif
from zoo import SENTENCES, tiny_loaded

WORDS = " ".join(SENTENCES).split()
RECORDS = [
    {"id": f"r{i}", "prompt": " ".join(WORDS[i : i + 3]), "response": " ".join(WORDS[2 * i : 2 * i + 2 + i % 4])}
    for i in range(14)
]
NAME = "model.layers.0.self_attn.q_proj.weight"
FORMS = pytest.mark.parametrize("form", ["l", "theta"])


@pytest.fixture(scope="module")
def loaded():
    return tiny_loaded("llama")


@pytest.fixture(scope="module")
def gradients(loaded) -> np.ndarray:
    """float64 [rows, parameters of one layer], by autograd."""
    tokens = Reader.of(loaded).tokenize(list(open_corpus(RECORDS)))
    return np.stack([flat(row_gradients(loaded.model, row), [NAME]) for row in tokens])


def scores(loaded, folder, **settings) -> np.ndarray:
    settings = {"sketch": "identity", "preset": "full", "parameters": NAME, **settings}
    index = hw.build(folder / "i.lance", model=loaded, data=RECORDS, method="relatif", settings=settings)
    return hw.score(index, RECORDS, model=loaded).values


def fitted(loaded, rows: torch.Tensor, **settings):
    form = hw.find_method("relatif", {"dim": rows.shape[1], "parameters": NAME, **settings}).vectors
    (metric,) = form.metrics(form.bind(loaded)).values()
    return fit_metric(metric, [rows])


def products(metric, rows: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    return (rows @ metric.probes(queries).mT) * metric.row_scale(rows, torch.ones(len(rows)))[:, None]


def close(found, expected, tolerance: float = 2e-3) -> None:
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@FORMS
def test_scores_are_those_of_the_dense_formula(loaded, gradients, tmp_path, form):
    close(scores(loaded, tmp_path, form=form), relatif(gradients, gradients, 0.1, form=form))


@FORMS
def test_a_rows_length_plays_no_part(loaded, form):
    rows, queries = torch.randn(2, 30, 16, generator=torch.Generator().manual_seed(0)).unbind()
    metric = fitted(loaded, rows, form=form)
    longer = rows * torch.logspace(-3, 3, 30)[:, None]
    torch.testing.assert_close(products(metric, longer, queries), products(metric, rows, queries), rtol=1e-3, atol=1e-4)


@FORMS
def test_twice_the_query_is_twice_the_score(loaded, form):
    rows, queries = torch.randn(2, 30, 16, generator=torch.Generator().manual_seed(0)).unbind()
    metric = fitted(loaded, rows, form=form)
    torch.testing.assert_close(products(metric, rows, 2 * queries), 2 * products(metric, rows, queries))


def test_no_row_outranks_a_query_that_is_in_the_index(loaded):
    """Cauchy-Schwarz: ⟨a, q⟩ over the norm of a, both in one metric, is greatest for a = q."""
    rows = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)) * torch.logspace(-1, 1, 8)
    rows = rows * torch.linspace(0.2, 5, 200)[:, None]
    assert (products(fitted(loaded, rows), rows, rows).argmax(dim=0) == torch.arange(200)).all()


@FORMS
def test_a_large_damping_leaves_the_inner_product_over_the_rows_length(loaded, gradients, tmp_path, form):
    damping = 1e6
    found = scores(loaded, tmp_path, form=form, damping=damping)
    if form == "l":
        found = found * np.sqrt(damping * (gradients**2).sum() / gradients.size)
    close(found, gradients @ gradients.T / np.linalg.norm(gradients, axis=1)[:, None])


@FORMS
def test_a_row_without_a_gradient_scores_zero(loaded, form):
    rows = torch.cat([torch.randn(9, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 16)])
    found = products(fitted(loaded, rows, form=form), rows, rows)
    assert found.isfinite().all()
    assert (found[-1] == 0).all()


@FORMS
def test_token_maps_of_both_sides_add_up_to_the_score(loaded, tmp_path, form):
    settings = {"form": form, "dim": 256, "parameters": NAME}
    index = hw.build(tmp_path / "i.lance", model=loaded, data=RECORDS, method="relatif", settings=settings)
    found = hw.trace(index, RECORDS[:2], model=loaded, top=3, tokens=True)
    for query in found.queries:
        for hit in query.hits:
            for side in (hit.row_tokens, hit.query_tokens):
                assert sum(v for v in side.values if v is not None) == pytest.approx(hit.score, rel=5e-3, abs=1e-4)


def test_a_form_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match="lambda"):
        hw.find_method("relatif", {"form": "lambda"})
