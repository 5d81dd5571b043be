"""The laws of the sketches: linear, seeded, unbiased, the same in NumPy and PyTorch, in any order, in any piece."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headwater.core.errors import UsageError
from headwater.sketch import products, shift
from headwater.sketch.blocks import Dense, Gradient, Lookup, Outer, Packed, merge
from headwater.sketch.products import formed, inner_products, squared_norms
from headwater.sketch.shift_plan import shift_plan
from headwater.sketch.sketch import SKETCHES, make_sketch

KINDS = ("outer", "lookup", "both", "dense", "packed", "packed both")
ROWS, TOKENS = 3, 4


def gradient(shape: tuple[int, int], kind: str, seed: int = 0, name: str = "w") -> Gradient:
    g = torch.Generator().manual_seed(seed)
    out, width = shape

    def normal(*size: int) -> torch.Tensor:
        # A mean other than zero, as activations have: signs that are missing must show.
        return torch.randn(*size, generator=g, dtype=torch.float64) + 0.7

    outer = Outer(normal(ROWS, TOKENS, out), normal(ROWS, TOKENS, width))
    lookup = Lookup(torch.randint(0, out, (ROWS, TOKENS), generator=g), normal(ROWS, TOKENS, width))
    # The first row has all tokens, the second two and the third one.
    real = torch.arange(TOKENS) < torch.tensor([[TOKENS], [2], [1]])
    slot = torch.tensor([[0, 1, 2, 3], [4, 5, 5, 5], [6, 6, 6, 6]])
    packed = Packed(normal(7, out), slot, real, outer.right * real[..., None])
    blocks = {
        "outer": (outer,),
        "lookup": (lookup,),
        "both": (outer, lookup),
        "dense": (Dense(normal(ROWS, width)),),
        "packed": (packed,),
        "packed both": (packed, lookup),
    }
    return Gradient(name, (width,) if kind == "dense" else shape, blocks[kind])


def sketched(sketch, *gradients: Gradient, unit: bool = False) -> torch.Tensor:
    total = torch.zeros(ROWS, sketch.dim, dtype=torch.float64)
    for one in gradients:
        sketch.accumulate(total, one, unit=unit)
    return total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "dim"), [((8, 6), 64), ((20, 6), 16), ((5, 40), 16), ((300, 2), 16), ((7, 100), 256), ((64, 32), 512)]
)
@pytest.mark.parametrize("path", [(64, False), (2**20, False), (2**12, True), (2**20, True)])
def test_the_shift_sum_is_its_map(shape, dim, kind, path, monkeypatch):
    """Tiles, signs and turns of the fast paths, a CPU's and a GPU's, against the definition, entry by entry."""
    monkeypatch.setitem(shift.WORK_BYTES, "cpu", path[0])
    monkeypatch.setitem(shift.MANY_TILES, "cpu", path[1])
    one = gradient(shape, kind)
    sketch = make_sketch("shift", {"w": one.shape}, dim=dim, seed=3)
    matrix = formed(one).numpy()
    i, j = np.indices(matrix.shape[1:])
    bucket, sign = shift_plan("w", *one.matrix, dim, 3).place(i.ravel(), j.ravel())
    truth = np.zeros((ROWS, dim))
    for row in range(ROWS):
        np.add.at(truth[row], bucket, matrix[row].ravel() * sign / np.linalg.norm(matrix[row]))
    np.testing.assert_allclose(sketched(sketch, one, unit=True), truth, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(SKETCHES))
def test_sketches_are_linear_and_norms_exact(name, kind):
    a, b = gradient((12, 8), kind, seed=1), gradient((12, 8), kind, seed=2)
    both = Gradient("w", a.shape, merge([*a.blocks, *b.blocks]))
    sketch = make_sketch(name, {"w": a.shape}, dim=32, seed=0)
    torch.testing.assert_close(sketched(sketch, both), sketched(sketch, a) + sketched(sketch, b))
    total = torch.zeros(ROWS, sketch.dim, dtype=torch.float64)
    truth = formed(a).flatten(1).square().sum(1)
    torch.testing.assert_close(sketch.accumulate(total, a, unit=True), truth)
    torch.testing.assert_close(total, sketched(sketch, a) / truth.sqrt()[:, None])


@pytest.mark.parametrize("name", [name for name in sorted(SKETCHES) if name != "identity"])
@pytest.mark.parametrize("kind", ["outer", "both"])
def test_sketches_are_unbiased_over_seeds(name, kind):
    a, b = gradient((12, 8), kind, seed=1), gradient((12, 8), kind, seed=2)
    truth = (formed(a) * formed(b)).sum((1, 2))
    estimates = []
    for seed in range(200):
        sketch = make_sketch(name, {"w": a.shape}, dim=25, seed=seed)
        estimates.append((sketched(sketch, a) * sketched(sketch, b)).sum(1))
    drawn = torch.stack(estimates)
    assert ((drawn.mean(0) - truth).abs() < 4.5 * drawn.std(0) / 200**0.5 + 1e-9).all()


@pytest.mark.parametrize("name", sorted(SKETCHES))
def test_layer_order_and_shards_do_not_matter(name):
    a, b = gradient((12, 8), "outer", 1, "a"), gradient((6, 5), "both", 2, "b")
    shapes = {"a": a.shape, "b": b.shape}
    one, other = make_sketch(name, shapes, dim=32, seed=0), make_sketch(name, shapes, dim=32, seed=0)
    torch.testing.assert_close(sketched(one, a, b), sketched(other, b, a))
    total = torch.zeros(ROWS, one.dim, dtype=torch.float64)
    for row in range(ROWS):
        part = slice(row, row + 1)
        one.accumulate(total[part], a.take(part), unit=False)
        one.accumulate(total[part], b.take(part), unit=False)
    torch.testing.assert_close(total, sketched(other, a, b))


def test_pieces_of_a_formed_gradient_do_not_matter(monkeypatch):
    one = gradient((12, 8), "both")
    whole = {name: sketched(make_sketch(name, {"w": one.shape}, dim=32, seed=0), one) for name in SKETCHES}
    monkeypatch.setattr("headwater.sketch.dense.FORMED_BYTES", 200)
    for name, values in whole.items():
        torch.testing.assert_close(sketched(make_sketch(name, {"w": one.shape}, dim=32, seed=0), one), values)


def test_signs_and_places_are_the_same_bytes_in_numpy_and_torch():
    plan = shift_plan("w", 40, 24, 128, 5)
    i, j = np.indices((40, 24)).astype(np.int64)
    bucket, sign = plan.place(i, j)
    left = torch.stack([shift._left_signs(plan, c, torch.empty(0)) for c in range(plan.columns)])
    right = torch.stack([shift._right_signs(plan, 0, q, torch.empty(0)) for q in range(plan.patterns)])
    i_t, j_t = torch.from_numpy(i), torch.from_numpy(j)
    pattern = i_t // plan.height // plan.width
    assert torch.equal((left[0][i_t] * right[pattern, j_t]).long(), torch.from_numpy(sign))
    assert bucket.min() >= 0
    assert bucket.max() < 128


def test_a_tensor_shorter_than_the_sketch_loses_nothing():
    a, b = gradient((12, 8), "outer", 1), gradient((12, 8), "outer", 2)
    sketch = make_sketch("shift", {"w": a.shape}, dim=4096, seed=0)
    truth = (formed(a) * formed(b)).sum((1, 2))
    torch.testing.assert_close((sketched(sketch, a) * sketched(sketch, b)).sum(1), truth)


def test_every_bucket_is_used_whatever_the_length():
    sketch = make_sketch("shift", {}, dim=1024, seed=0)
    used = torch.zeros(1024, dtype=torch.bool)
    for layer in range(24):
        used |= sketched(sketch, gradient((16, 16), "outer", layer, f"layer.{layer}"))[0] != 0
    assert used.float().mean() > 0.95


def test_a_zero_gradient_stays_zero():
    zero = Gradient("w", (12, 8), (Outer(torch.zeros(ROWS, TOKENS, 12), torch.ones(ROWS, TOKENS, 8)),))
    for name in SKETCHES:
        total = torch.zeros(ROWS, make_sketch(name, {"w": (12, 8)}, dim=32, seed=0).dim)
        make_sketch(name, {"w": (12, 8)}, dim=32, seed=0).accumulate(total, zero, unit=True)
        assert (total == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cheap", [False, True])
def test_norms_and_inner_products_by_both_ways(kind, cheap, monkeypatch):
    monkeypatch.setattr(products, "_ghost_is_cheaper", lambda *_: cheap and kind != "dense")
    monkeypatch.setattr(products, "_pairs_are_cheaper", lambda *_: cheap)
    monkeypatch.setattr(products, "FORMED_BYTES", 300)
    a, b = gradient((12, 8), kind, 1), gradient((12, 8), kind, 2)
    left, right = formed(a).flatten(1), formed(b).flatten(1)
    torch.testing.assert_close(squared_norms(a), left.square().sum(1))
    torch.testing.assert_close(inner_products(a, b), left @ right.T)


def test_an_unknown_sketch_offers_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'rademacher'"):
        make_sketch("rademaker", {}, dim=8, seed=0)
