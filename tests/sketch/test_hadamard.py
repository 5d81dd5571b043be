"""Laws of the rotation: it is the Hadamard matrix, keeps inner products, spreads energy, and is undone exactly."""

from __future__ import annotations

import math

import pytest
import torch

from headwater.core.errors import UsageError
from headwater.sketch.hadamard import padded, rotate, rotate_back, walsh_hadamard


@pytest.mark.parametrize("n", [1, 2, 8, 32, 64, 2048])
def test_the_transform_is_that_of_its_definition(n: int) -> None:
    """H[s, t] = (−1)^(number of common ones of s and t) / √n."""
    rows = [[(-1) ** bin(s & t).count("1") / math.sqrt(n) for t in range(n)] for s in range(min(n, 64))]
    found = walsh_hadamard(torch.eye(n, dtype=torch.float64))[: min(n, 64)]
    assert torch.allclose(found, torch.tensor(rows, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("dim", [1, 3, 24, 256, 700])
def test_rotations_keep_inner_products_and_can_be_undone(dim: int) -> None:
    x = torch.randn(7, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, 3, "vector", 1)
    assert turned.shape == (7, padded(dim))
    assert torch.allclose(turned @ turned.T, x @ x.T, atol=1e-10)
    assert torch.allclose(rotate_back(turned, dim, 3, "vector", 1), x, atol=1e-12)


def test_a_rotation_depends_on_seed_and_names_and_on_nothing_else() -> None:
    x = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    same = rotate(torch.cat([x, x + 1]), 0, "a")[:1]
    assert torch.equal(rotate(x, 0, "a"), same)
    assert not torch.allclose(rotate(x, 0, "a"), rotate(x, 0, "b"))
    assert not torch.allclose(rotate(x, 0, "a"), rotate(x, 1, "a"))


@pytest.mark.parametrize("vector", [[1.0] + [0.0] * 1023, [1.0] * 1024, [1.0, -1.0] * 512])
def test_whatever_goes_in_comes_out_spread(vector: list[float]) -> None:
    turned = rotate(torch.tensor([vector]), 0, "x")[0]
    turned = turned / turned.norm() * 32
    assert turned.abs().max() < 6
    assert 2 < turned.pow(4).mean() < 4, "the fourth moment of a normal number is 3"


def test_padding_is_to_the_power_of_two_at_or_above() -> None:
    assert [padded(d) for d in (1, 2, 3, 4, 5, 24576, 32768)] == [1, 2, 4, 4, 8, 32768, 32768]
    with pytest.raises(UsageError, match="power of two"):
        walsh_hadamard(torch.ones(1, 12))
