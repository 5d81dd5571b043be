"""Self-influence against autograd, and against the diagonal of what the method named says of all pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import headwater as hw
from headwater.core.errors import DataError, UsageError
from headwater.data.corpus import open_corpus
from headwater.methods.bound import Bound
from headwater.methods.catalog import vector_method
from headwater.methods.scoring import attribute, prepare
from headwater.methods.targets import each
from headwater.models.reader import Reader
from oracles.gradient_oracles import row_gradients
from oracles.preconditioned_oracles import flat, relatif, trak
from zoo import SENTENCES, tiny_loaded

WORDS = " ".join(SENTENCES).split()
RECORDS = [
    {"id": f"r{i}", "prompt": " ".join(WORDS[i : i + 3]), "response": " ".join(WORDS[2 * i : 2 * i + 2 + i % 4])}
    for i in range(12)
]
NAME = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.of(tiny_loaded("llama"))


@pytest.fixture(scope="module")
def rows():
    return list(open_corpus(RECORDS))


@pytest.fixture(scope="module")
def gradients(reader, rows) -> np.ndarray:
    """float64 [rows, parameters of one layer], by autograd."""
    return np.stack([flat(row_gradients(reader.loaded.model, row), [NAME]) for row in reader.tokenize(rows)])


def own(reader, rows, method: str = "graddot", method_set: str = "", **settings) -> np.ndarray:
    chosen = hw.find_method("self-influence", {"method": method, "method_set": method_set, **settings})
    return attribute(chosen, reader, rows, each(rows[:1])).values[:, 0]


def pairs(reader, rows, method: str, **settings) -> np.ndarray:
    return attribute(vector_method(method, settings), reader, rows, each(rows)).values


def test_of_graddot_it_is_the_squared_norm_of_the_rows_gradient(reader, rows, gradients):
    found = own(reader, rows, method_set=f"sketch=identity; parameters={NAME}")
    np.testing.assert_allclose(found, (gradients**2).sum(1), rtol=1e-4)


def test_of_a_cosine_it_is_one(reader, rows):
    np.testing.assert_allclose(own(reader, rows, "gradcos", f"sketch=identity;parameters={NAME}"), 1, rtol=1e-5)
    np.testing.assert_allclose(own(reader, rows, "gradcos", f"buckets=4096;parameters={NAME}"), 1, atol=0.2)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("graddot", {"buckets": 64}), ("rapidin", {"buckets": 512}), ("rise", {"positions": "all"}), ("linfik", {})],
)
def test_it_is_the_diagonal_of_the_methods_own_scores(reader, rows, method, settings):
    found = own(reader, rows, method, ";".join(f"{name}={value}" for name, value in settings.items()))
    np.testing.assert_allclose(found, pairs(reader, rows, method, **settings).diagonal(), rtol=1e-4)


@pytest.mark.parametrize("method", ["graddot", "rapidin"])
def test_exactly_it_is_the_diagonal_of_the_exact_scores(reader, rows, method):
    exact = Bound.of(hw.find_method(method, {"buckets": 64}), reader).exact_scores(rows, rows).diagonal().numpy()
    found = own(reader, rows, method, "buckets=64", exact=True)
    np.testing.assert_allclose(found, exact, rtol=1e-4)
    assert not np.allclose(own(reader, rows, method, "buckets=64"), exact, rtol=1e-2)


def test_under_a_fitted_metric_it_is_the_diagonal_of_the_dense_formula(reader, rows, gradients):
    options = f"sketch=identity;parameters={NAME}"
    losses = -attribute(hw.find_method("loss"), reader, rows, each(rows[:1])).values[:, 0].astype(np.float64)
    expected = trak(gradients, gradients, (losses, losses), 0.1).diagonal()
    np.testing.assert_allclose(own(reader, rows, "trak", options), expected, rtol=5e-3)
    expected = relatif(gradients, gradients, 0.1, form="theta").diagonal()
    np.testing.assert_allclose(own(reader, rows, "relatif", f"form=theta;{options}"), expected, rtol=5e-3)


def test_the_metric_is_fitted_on_as_many_rows_as_asked_for(reader, rows, gradients):
    settings = {"method": "relatif", "method_set": f"sketch=identity;parameters={NAME}", "fit_rows": 3}
    scorer = prepare(hw.find_method("self-influence", settings), reader, each(rows[:1]), rows)
    assert scorer.notes["metric fitted on rows"] == 3
    sample = gradients[[0, 5, 11]]
    gram = sample.T @ sample / 3
    inverse = np.linalg.inv(gram + 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram)))
    expected = np.sqrt(np.einsum("np,pk,nk->n", gradients, inverse, gradients))
    np.testing.assert_allclose(scorer(rows)[:, 0], expected, rtol=5e-3)
    with pytest.raises(DataError, match="fitted on rows"):
        prepare(hw.find_method("self-influence", settings), reader, each(rows[:1]))


def test_neither_the_query_nor_a_rows_hotwords_play_a_part(reader, rows):
    chosen = hw.find_method("self-influence", {"method": "rise"})
    values = attribute(chosen, reader, rows, each(rows[:3])).values
    assert (values == values[:, :1]).all()
    asked = [replace(row, hotwords=(str(row.response).split()[0],)) for row in rows]
    np.testing.assert_array_equal(attribute(chosen, reader, asked, each(rows[:3])).values, values)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("rapidin", {"buckets": 128}), ("gradcos", {"buckets": 128}), ("linfik", {"buckets": 128}),
        ("logra", {"rank": 4}), ("trak", {"dim": 128}), ("relatif", {"dim": 128}), ("trackstar", {"preset": "plain"}),
    ],
)  # fmt: skip
def test_what_says_that_its_sides_are_alike_reads_them_alike(reader, rows, method, settings):
    bound = Bound.of(vector_method(method, settings), reader)
    assert bound.form.alike
    train, query = (bound.encode(rows[:4], role).vectors for role in ("train", "query"))
    for name in train:
        np.testing.assert_array_equal(train[name], query[name])


def test_a_pool_is_valued_by_it(reader, rows, gradients):
    settings = {"method_set": f"sketch=identity;parameters={NAME}"}
    valued = hw.value(RECORDS, RECORDS[:2], model=reader.loaded, method="self-influence", settings=settings)
    found = [record["value"] for record in valued.records()]
    np.testing.assert_allclose(found, (gradients**2).sum(1), rtol=1e-4)
    fitted = {"method": "logra", "method_set": "rank=4", "fit_rows": 8}
    valued = hw.value(RECORDS, RECORDS[:2], model=reader.loaded, method="self-influence", settings=fitted)
    assert valued.notes["metric fitted on rows"] == 8


def test_no_value_of_it_says_that_a_row_harms():
    assert not hw.find_method("self-influence").meaning.signed


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"method": "bm25"}, "'bm25' gives no vectors"),
        ({"method": "self-influence"}, "'self-influence' gives no vectors"),
        ({"method": "trak", "exact": True}, "trak has no scores but those of its vectors"),
        ({"method_set": "buckets"}, "'buckets' is not name=value"),
        ({"method_set": "bucket=3"}, "bucket"),
    ],
)
def test_what_has_no_self_influence_is_refused(settings, fault):
    with pytest.raises(UsageError, match=fault):
        hw.find_method("self-influence", settings)
