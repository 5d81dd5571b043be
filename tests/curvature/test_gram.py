"""The Gram metric: against an explicit inverse, and what it tends to."""

from __future__ import annotations

import pytest
import torch

from headwater.core.errors import DataError, UsageError
from headwater.curvature.gram import Metric, fit_metric

ROWS = torch.randn(40, 12, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 3, 12)
QUERIES = torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
LOSSES = torch.linspace(0.1, 4, 40)


def scores(metric: Metric) -> torch.Tensor:
    fitted = fit_metric(metric, ROWS.split(7))
    return (ROWS @ fitted.probes(QUERIES).mT) * fitted.row_scale(ROWS, LOSSES)[:, None]


def inverse(part: torch.Tensor, damping: float) -> torch.Tensor:
    gram = part.mT.double() @ part.double() / len(part)
    return torch.linalg.inv(gram + damping * gram.trace() / len(gram) * torch.eye(len(gram)))


def test_scores_are_those_of_the_explicit_inverse():
    expected = ROWS.double() @ inverse(ROWS, 0.1) @ QUERIES.double().mT
    torch.testing.assert_close(scores(Metric(0.1)), expected.float(), rtol=1e-4, atol=1e-5)


def test_blocks_are_preconditioned_by_themselves():
    sizes = (5, 4, 3)
    expected = sum(
        a.double() @ inverse(a, 0.1) @ q.double().mT
        for a, q in zip(ROWS.split(sizes, 1), QUERIES.split(sizes, 1), strict=True)
    )
    torch.testing.assert_close(scores(Metric(0.1, sizes)), expected.float(), rtol=1e-4, atol=1e-5)


def test_a_unit_metric_gives_cosines():
    fitted = fit_metric(Metric(0.1, row_norm="metric", query_norm="metric"), [ROWS])
    own = (ROWS @ fitted.probes(ROWS).mT) * fitted.row_scale(ROWS, LOSSES)[:, None]
    torch.testing.assert_close(own.diagonal(), torch.ones(40), rtol=1e-4, atol=1e-5)
    assert own.abs().max() <= 1 + 1e-5


def test_a_large_damping_times_the_score_tends_to_the_inner_product():
    fitted = fit_metric(Metric(1e6), [ROWS])
    (damping,) = fitted.damping
    torch.testing.assert_close(damping * (ROWS @ fitted.probes(QUERIES).mT), ROWS @ QUERIES.mT, rtol=1e-3, atol=1e-3)


def test_uncertainty_multiplies_by_one_minus_the_rows_probability():
    expected = scores(Metric(0.1)) * (1 - torch.exp(-LOSSES))[:, None]
    torch.testing.assert_close(scores(Metric(0.1, uncertain=True)), expected, rtol=1e-5, atol=1e-6)


def test_the_order_and_size_of_batches_do_not_matter():
    once, many = fit_metric(Metric(0.1), [ROWS]), fit_metric(Metric(0.1), ROWS.flip(0).split(3))
    torch.testing.assert_close(once.probes(QUERIES), many.probes(QUERIES), rtol=1e-4, atol=1e-5)


def test_places_no_row_touches_and_zero_queries_stay_harmless():
    padded = torch.cat([ROWS, torch.zeros(40, 2)], 1)
    fitted = fit_metric(Metric(0.1, (12, 2), "metric", "metric"), [padded])
    assert (fitted.probes(torch.zeros(1, 14)) == 0).all()
    assert fitted.row_scale(padded, LOSSES).isfinite().all()


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(DataError, match="no vectors"):
        fit_metric(Metric(0.1), [])
    with pytest.raises(UsageError, match="blocks of 5 numbers for vectors of 12"):
        fit_metric(Metric(0.1, (5,)), [ROWS])
    with pytest.raises(UsageError, match="damping of 0"):
        Metric(0.0)
