"""Z0-Inf: its formula, and what it is for a linear loss."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.core.errors import DataError
from headwater.curvature.checkpoint_losses import Path
from oracles.influence_oracles import zoinf

RNG = np.random.default_rng(0)
WEIGHTS = np.cumsum(RNG.normal(size=(5, 9)), axis=0)


def path(weights: np.ndarray, neighbours: int) -> Path:
    centred = weights - weights[-1]
    return Path(centred @ centred.T, neighbours)


@pytest.mark.parametrize("neighbours", [1, 2, 0])
def test_influence_is_the_formula(neighbours):
    rows, queries = RNG.normal(size=(5, 4)), RNG.normal(size=(5, 3))
    found = path(WEIGHTS, neighbours).influence(rows, queries)
    np.testing.assert_allclose(found, zoinf(WEIGHTS, rows, queries, neighbours), rtol=1e-9, atol=1e-12)
    own = path(WEIGHTS, neighbours).self_influence(rows)
    np.testing.assert_allclose(own, np.diag(zoinf(WEIGHTS, rows, rows, neighbours)), rtol=1e-9, atol=1e-12)


def test_for_a_linear_loss_it_is_the_inner_product_of_projected_gradients():
    """Two checkpoints: both steps are ±d, and ĝ is the projection of the true gradient on d."""
    gradients, asked = RNG.normal(size=(4, 9)), RNG.normal(size=(3, 9))
    weights = WEIGHTS[:2]
    step = weights[1] - weights[0]
    projection = np.outer(step, step) / (step @ step)
    found = path(weights, 1).influence(weights @ gradients.T, weights @ asked.T)
    np.testing.assert_allclose(found, gradients @ projection @ asked.T, rtol=1e-9, atol=1e-12)


def test_steps_that_span_the_space_give_the_whole_gradient():
    """Orthogonal steps from one checkpoint, all neighbours: the estimate is the gradient over their number."""
    steps = np.linalg.qr(RNG.normal(size=(3, 3)))[0] * [[1.0], [2.0], [0.5]]
    weights = np.vstack([np.zeros(3), steps])
    gradients = RNG.normal(size=(4, 3))
    one = Path(weights @ weights.T, 0)
    near, products = one._around(0)
    shares = one._shares(0, near, weights @ gradients.T)
    np.testing.assert_allclose(shares.T @ products @ shares, gradients @ gradients.T / 9, rtol=1e-9, atol=1e-12)


def test_paths_that_say_nothing_are_refused():
    with pytest.raises(DataError, match="at least 2"):
        Path(np.ones((1, 1)))
    with pytest.raises(DataError, match="same weights"):
        Path(np.ones((2, 2))).influence(np.ones((2, 1)), np.ones((2, 1)))
