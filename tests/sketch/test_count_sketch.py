"""The count-sketch's two laws: unbiased inner products, and the variance of the field's own formula."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.seeds import buckets, hash32, key, signs
from headwater.sketch.count_sketch import IDENTITY, count_sketch_matrix

DIM, WIDTH, DRAWS = 60, 16, 2000


def _draws(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    found = []
    for seed in range(DRAWS):
        matrix = count_sketch_matrix(DIM, WIDTH, seed=seed, name="t")
        found.append((x @ matrix) @ (y @ matrix))
    return torch.stack(found)


def test_unbiased_with_the_stated_variance():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(DIM, generator=generator), torch.randn(DIM, generator=generator)
    draws = _draws(x, y)
    inner = x @ y
    variance = (x.norm() ** 2 * y.norm() ** 2 + inner**2 - 2 * (x**2 * y**2).sum()) / WIDTH
    assert abs(draws.mean() - inner) < 4 * (variance / DRAWS) ** 0.5
    assert abs(draws.var() / variance - 1) < 0.12


def test_the_product_of_independent_sketches_is_unbiased():
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, DIM, generator=generator), torch.randn(2, DIM, generator=generator)
    draws = []
    for seed in range(DRAWS):
        left = count_sketch_matrix(DIM, WIDTH, seed=seed, name="left")
        right = count_sketch_matrix(DIM, WIDTH, seed=seed, name="right")
        draws.append(((a[0] @ left) @ (a[1] @ left)) * ((b[0] @ right) @ (b[1] @ right)))
    found = torch.stack(draws)
    assert abs(found.mean() - (a[0] @ a[1]) * (b[0] @ b[1])) < 4 * found.std() / DRAWS**0.5


def test_width_zero_is_the_identity():
    torch.testing.assert_close(count_sketch_matrix(5, IDENTITY, seed=0, name="t"), torch.eye(5))


@given(st.lists(st.integers(0, 2**45), min_size=1, max_size=50), st.integers(0, 2**31), st.integers(1, 2**24))
def test_hashes_are_the_same_bytes_in_numpy_and_torch(index, seed, count):
    stream = key(seed, "layer.0.weight")
    in_numpy, in_torch = np.array(index, dtype=np.int64), torch.tensor(index, dtype=torch.int64)
    for function in (lambda i: hash32(i, stream), lambda i: buckets(i, stream, count), lambda i: signs(i, stream)):
        np.testing.assert_array_equal(function(in_numpy), function(in_torch).numpy())
    places = buckets(in_numpy, stream, count)
    assert places.min() >= 0
    assert places.max() < count


def test_hashes_spread_evenly_and_independently_of_neighbouring_keys():
    index = np.arange(200_000, dtype=np.int64)
    first, second = (buckets(index, key(0, name), 64) for name in ("a", "b"))
    expected = len(index) / 64
    assert (abs(np.bincount(first, minlength=64) - expected) < 6 * expected**0.5).all()
    assert abs((first == second).mean() - 1 / 64) < 0.002
    assert abs(signs(index, key(0, "s")).mean()) < 0.01
