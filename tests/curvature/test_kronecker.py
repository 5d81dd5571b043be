"""The damping that is chosen without ground truth: it is the one that solves fresh systems best."""

from __future__ import annotations

import numpy as np
import torch

from headwater.curvature.kronecker import SHARES, Covariances, Eigenvalues, agreed_damping
from headwater.sketch.blocks import Gradient, Outer


def halves(rows: int, size: int = 200, seed: int = 0) -> tuple[np.ndarray, torch.Tensor]:
    """True eigenvalues that fall by a power, and their estimates from two halves of so many rows."""
    true = 1.0 / np.arange(1, size + 1) ** 1.5
    rng = np.random.default_rng(seed)
    found = [(true * rng.standard_normal((rows, size)) ** 2).mean(0) for _ in range(2)]
    return true, torch.tensor(np.stack(found))[:, None]


def test_fewer_rows_choose_more_damping_and_the_choice_is_near_the_best():
    chosen = []
    for rows in (8, 64, 2000):
        layers = [halves(rows, seed=seed) for seed in range(10)]
        chosen.append(agreed_damping([found for _, found in layers]))
        costs = np.zeros(len(SHARES))
        for true, found in layers:
            for place, share in enumerate(SHARES):
                s = 1 / (found[0, 0].numpy() + share * float(found[0].mean()))
                costs[place] += float(np.sum(true * s * (true * s / 2 - 1)))
        assert abs(SHARES.index(chosen[-1]) - int(np.argmin(costs))) <= 1, (rows, chosen[-1], costs)
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[0] > chosen[-1]


def test_a_given_damping_is_kept_and_both_halves_make_the_eigenvalues():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(5, 2, 3, generator=generator), torch.randn(5, 2, 4, generator=generator)
    gradient = Gradient("w", (3, 4), (Outer(left, right),))
    sides = Covariances()
    sides.add(gradient)
    eigenvalues = Eigenvalues(sides.bases())
    eigenvalues.add(gradient)
    eigenvalues.rows = 5
    fitted = eigenvalues.finish(0.3)
    factor = fitted.factors["w"]
    rows = torch.einsum("rto,rti->roi", left, right)
    torch.testing.assert_close(factor.values, (factor.left.mT @ rows @ factor.right).square().mean(0))
    assert fitted.damping == 0.3
    assert np.isclose(factor.damping, 0.3 * float(factor.values.mean()), rtol=1e-6)
    assert eigenvalues.finish(0.0).damping in SHARES
